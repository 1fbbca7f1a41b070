"""Scores: five ways to write the same song, and what is said of files that hold none."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest

from stepaudio.core.errors import ScoreError
from stepaudio.tts.scores import Lyric, Note, Part, Score, parse
from stepaudio.tts.scores.score import MOST_BYTES, decoded, make, pitch_of, plain, syllable

SONGS = Path(__file__).parents[2] / "shared" / "data" / "scores"

PLAIN = """
title Twinkle
tempo 100
C4 1 Twin-     # the first of two verses in one line
C4 1 kle
G4 1 lit-
G4 .5 tle
A4 .5 -
r 1
G4 2 star
"""


def sung(score: Score, verse: int = 0) -> list[tuple[float, float, int, str | None]]:
    """Begin, beats, pitch and syllable ("-" at its end: the word goes on) of the part with most words."""
    found = []
    for note in score.part().notes:
        lyric = note.lyrics[verse] if len(note.lyrics) > verse else None
        text = lyric.text + ("-" if lyric.joins else "") if lyric else None
        found.append((round(note.begin, 3), round(note.beats, 3), note.pitch, text))
    return found


TWINKLE = [
    (0, 1, 60, "Twin-"),
    (1, 1, 60, "kle"),
    (2, 1, 67, "lit-"),
    (3, 0.5, 67, "tle"),
    (3.5, 0.5, 69, None),
    (5, 2, 67, "star"),
]


# --- the same song five times -------------------------------------------------------------------------------


def number(value: int) -> bytes:
    """A MIDI variable-length quantity."""
    found = [value & 0x7F]
    while value := value >> 7:
        found.insert(0, value & 0x7F | 0x80)
    return bytes(found)


def midi(*tracks: bytes, division: int = 4, kind: int = 1) -> bytes:
    head = struct.pack(">4sIHHH", b"MThd", 6, kind, len(tracks), division)
    return head + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)


def meta(kind: int, data: bytes, after: int = 0) -> bytes:
    return number(after) + bytes([0xFF, kind]) + number(len(data)) + data


def note(pitch: int, ticks: int, after: int = 0) -> bytes:
    return number(after) + bytes([0x90, pitch, 80]) + number(ticks) + bytes([pitch, 0])  # running status


END = meta(0x2F, b"")
TEMPO = meta(0x51, (600_000).to_bytes(3, "big"))

MIDI = midi(
    TEMPO
    + meta(0x05, b"Twin-")
    + note(60, 4)
    + meta(0x05, b"kle")
    + note(60, 4)
    + meta(0x05, b"lit-")
    + note(67, 4)
    + meta(0x05, b"tle")
    + note(67, 2)
    + note(69, 2)
    + meta(0x05, b"star", 4)
    + note(67, 8)
    + END
)

KARAOKE = midi(  # words as texts in a track of their own, spaces between words
    TEMPO + END,
    meta(0x03, b"Melody")
    + note(60, 4)
    + note(60, 4)
    + note(67, 4)
    + note(67, 2)
    + note(69, 2)
    + note(67, 8, 4)
    + END,
    meta(0x03, b"Chords") + note(48, 12) + note(48, 8) + END,
    meta(0x01, b"@LENG")
    + meta(0x01, b"\\Twin")
    + meta(0x01, b"kle ", 4)
    + meta(0x01, b"lit", 4)
    + meta(0x01, b"tle ", 4)
    + meta(0x01, b"/star", 8)
    + END,
)


def xml(notes: str, *, head: str = "", divisions: int = 2) -> bytes:
    return f"""<?xml version="1.0"?>
<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" "partwise.dtd">
<score-partwise><work><work-title>Twinkle</work-title></work>
<part-list><score-part id="P1"><part-name>Voice</part-name></score-part></part-list>
<part id="P1"><measure number="1"><attributes><divisions>{divisions}</divisions>{head}</attributes>
<direction><sound tempo="100"/></direction>{notes}</measure></part></score-partwise>""".encode()


def pitched(name: str, duration: int, lyric: str = "", extra: str = "") -> str:
    step = f"<pitch><step>{name[0]}</step><octave>{name[1]}</octave></pitch>"
    return f"<note>{extra}{step}<duration>{duration}</duration><voice>1</voice>{lyric}</note>"


def words(text: str, kind: str = "single", verse: int = 1) -> str:
    return f'<lyric number="{verse}"><syllabic>{kind}</syllabic><text>{text}</text></lyric>'


MUSICXML = xml(
    pitched("C4", 2, words("Twin", "begin"))
    + pitched("C4", 2, words("kle", "end"))
    + pitched("D4", 0, extra="<grace/>")
    + pitched("G4", 1, words("lit", "begin"), '<tie type="start"/>')
    + pitched("G4", 1, extra='<tie type="stop"/>')
    + pitched("G4", 1, words("tle", "end"))
    + pitched("A4", 1)
    + "<note><rest/><duration>2</duration></note>"
    + pitched("G4", 4, words("star"))
    + pitched("C4", 4, extra="<chord/>")
)

ABC = b"""X:1
T:Twinkle
M:4/4
L:1/4
Q:1/4=100
K:C
C C G G/A/ | z G2 |
w: Twin-kle lit-tle _ star
"""

ULTRASTAR = b"""#TITLE:Twinkle
#BPM:100
#GAP:2000
: 0 4 0 Twin
: 4 4 0 kle
: 8 4 7  lit
: 12 2 7 tle
: 14 2 9 ~
- 18
: 20 8 7  star
E
"""


@pytest.mark.parametrize(
    "data",
    [PLAIN.encode(), MIDI, KARAOKE, MUSICXML, ABC, ULTRASTAR],
    ids=["plain", "midi", "karaoke", "musicxml", "abc", "ultrastar"],
)
def test_the_same_song(data: bytes) -> None:
    score = parse(data)
    assert sung(score) == TWINKLE
    assert score.tempi == ((0.0, pytest.approx(100)),)
    assert score.seconds(5) == pytest.approx(3.0)


def test_titles() -> None:
    assert [parse(data).title for data in (PLAIN.encode(), MUSICXML, ABC, ULTRASTAR)] == ["Twinkle"] * 4


def test_compressed() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "META-INF/container.xml",
            '<container><rootfiles><rootfile full-path="s.xml"/></rootfiles></container>',
        )
        archive.writestr("s.xml", MUSICXML)
    assert sung(parse(file.getvalue())) == TWINKLE


def test_utf16() -> None:
    data = MUSICXML.decode().replace('"1.0"?', '"1.0" encoding="UTF-16"?', 1).encode("utf-16")
    assert sung(parse(data)) == TWINKLE


@pytest.mark.parametrize("path", sorted(SONGS.glob("*.mid")), ids=lambda path: path.stem)
def test_songs_agree_in_all_their_forms(path: Path) -> None:
    with (SONGS / "songs.jsonl").open(encoding="utf-8") as file:
        song = next(s for s in map(json.loads, file) if s["id"] == path.stem)
    text = "".join(
        f"{'r' if pitch is None else pitch} {beats:.6f} {''.join(written.split())}\n"
        for pitch, beats, written in song["notes"]
    )
    forms = [parse(text.encode()), parse(path.read_bytes())]
    if (compressed := path.with_suffix(".mxl")).exists():
        forms.append(parse(compressed.read_bytes()))

    def rounded(score: Score) -> list[tuple[float, float, int, str | None]]:
        return [
            (round(begin, 1), round(beats, 1), pitch, written and "".join(written.split()))
            for begin, beats, pitch, written in sung(score)
        ]

    assert len(rounded(forms[0])) > 10
    assert all(rounded(form) == rounded(forms[0]) for form in forms)


# --- what formats have of their own -----------------------------------------------------------------------


def test_verses_of_plain_text() -> None:
    score = parse("C4 1 Hel- 你\nE4 1 lo 好\n".encode())
    assert score.part().verses == 2
    assert [note.lyrics[1] for note in score.part().notes] == [Lyric("你"), Lyric("好")]


def test_musicxml_repeat_sings_a_verse_each_time() -> None:
    def ending(number: int, notes: str, repeat: str = "") -> str:
        begin = f'<barline><ending number="{number}" type="start"/></barline>'
        return f'{begin}{notes}<barline><ending number="{number}" type="stop"/>{repeat}</barline>'

    body = "</measure><measure>".join(
        [
            pitched("C4", 2, words("one") + words("two", verse=2)),
            ending(1, pitched("D4", 2, words("again")), '<repeat direction="backward"/>'),
            ending(2, pitched("E4", 2, words("end", verse=2))),
        ]
    )
    found = [(pitch, written) for _, _, pitch, written in sung(parse(xml(body)))]
    assert found == [(60, "one"), (62, "again"), (60, "two"), (64, "end")]


def test_musicxml_transposes_and_backs_up() -> None:
    notes = (
        pitched("C4", 4, words("low"))
        + "<backup><duration>4</duration></backup>"
        + pitched("C5", 2).replace("<voice>1", "<voice>2")
    )
    head = "<transpose><chromatic>-2</chromatic><octave-change>-1</octave-change></transpose>"
    assert sung(parse(xml(notes, head=head))) == [(0, 2, 46, "low")]


def test_abc_of_many_parts() -> None:
    score = parse(
        b"X:1\nM:3/4\nL:1/8\nQ:1/8=180\nK:G\n|:D2|^G2 A>F G2|f4-f2|[1 (3efg d2 c2:|[2 [GBd]4 z2|]\n"
        b"w: one two three* five six, se-ven\n"
    )
    notes = [(round(n.begin, 3), round(n.beats, 3), n.pitch) for n in score.part().notes]
    assert score.tempi == ((0.0, 90.0),)
    # The key sharpens f, the accidental holds for its bar, A>F is dotted, the two f are tied.
    assert notes[:6] == [(0, 1, 62), (1, 1, 68), (2, 0.75, 69), (2.75, 0.25, 66), (3, 1, 68), (4, 3, 78)]
    assert notes[6:9] == [(7, 0.333, 76), (7.333, 0.333, 78), (7.667, 0.333, 79)]
    assert notes[-1][1:] == (2, 74)  # the second ending, its highest note
    assert [written for *_, written in sung(score)][:6] == ["one", "two", "three", None, "five", "six,"]


def test_ultrastar_of_two_singers_and_fine_times() -> None:
    score = parse(b"#BPM:800\nP1\n: 8 8 0 One\nP2\n: 16 8 4 Two\nF 30 4 0 spoken\nE\n")
    assert score.tempi == ((0.0, 400.0),)
    assert [(part.name, part.notes[0].begin, part.notes[0].beats) for part in score.parts] == [
        ("singer 1", 0.0, 1.0),
        ("singer 2", 1.0, 1.0),
    ]


def test_parts_by_name_and_number() -> None:
    notes = (Note(0, 1, 60, (Lyric("a"),)),)
    score = make("", [], [Part("Piano", (Note(0, 1, 40),)), Part("Voice", notes)])
    assert score.part().name == score.part("1").name == score.part("voice").name == "Voice"
    with pytest.raises(ScoreError, match=r"1 \(Voice\), 2 \(Piano\)"):
        score.part("flute")


def test_one_note_at_a_time() -> None:
    score = make("", [], [Part("", (Note(0, 4, 60), Note(0, 4, 64, (Lyric("a"),)), Note(1, 1, 62)))])
    assert sung(score) == [(0, 1, 64, "a"), (1, 1, 62, None)]


def test_tempo_changes() -> None:
    score = make("", [(4, 120.0), (0, 60.0)], [Part("", (Note(0, 8, 60),))])
    assert [score.seconds(beat) for beat in (2, 4, 8)] == [2, 4, 6]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("Twin-", Lyric("Twin", True)),
        ("star,", Lyric("star,")),
        ("-kle", Lyric("kle")),
        ("con-\xa0", Lyric("con", True)),
        ("lan'", Lyric("lan'")),
        ("-", None),
        ("_", None),
        ("", None),
    ],
)
def test_syllables_as_people_write_them(written: str, found: Lyric | None) -> None:
    assert syllable(written) == found


@pytest.mark.parametrize(
    ("name", "pitch"),
    [("C4", 60), ("a4", 69), ("F#3", 54), ("Bb4", 70), ("60", 60), ("H4", None), ("C", None)],
)
def test_pitches(name: str, pitch: int | None) -> None:
    assert pitch_of(name) == pitch


def test_encodings() -> None:
    assert decoded("你好".encode("gb18030")) == "你好"
    assert decoded("né".encode("cp1252")) == "né"


# --- bad input ----------------------------------------------------------------------------------------------

BOMB = b"""<!DOCTYPE score-partwise [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<score-partwise>&b;</score-partwise>"""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"x" * (MOST_BYTES + 1), "16 MB"),
        (b"hello world", "line 1: a note is a pitch"),
        (b"C4 0 la", "more than 0"),
        (b"C4 -1 la", "more than 0"),
        (b"C4", "how many beats"),
        (b"r 4", "no notes"),
        (b"tempo 0\nC4 1 la", "10 to 400"),
        (b"tempo -90\nC4 1 la", "10 to 400"),
        (b"tempo nan\nC4 1 la", "10 to 400"),
        (b"tempo fast\nC4 1 la", "number after tempo"),
        (b"tempo 10\n" + b"C4 999 la\n" * 3, "30 are the most"),
        (b"200 1 la", "outside what can be written"),
        (midi(*[END] * 500), "500 tracks"),
        (midi(TEMPO + END), "no notes"),
        (midi(meta(0x51, b"\0\0\0") + note(60, 4) + END), "zero time"),
        (midi(note(60, 4) + END, kind=2), "format 2"),
        (midi(note(60, 4) + END, division=0xE728), "film frames"),
        (MIDI[:60], "damaged"),
        (b"MThd\0\0", "damaged"),
        (midi(b"\x00\x40\x40"), "damaged"),
        (midi(b"\xff\xff\xff\xff\xff\x00"), "damaged"),
        (midi(meta(5, b"a") + meta(5, b"b") + meta(5, b"c") + note(60, 4) + END), "3 syllables for 1 notes"),
        (BOMB, "entities"),
        (b"<score-partwise>" + b"<part>" * 100, "nested too deeply"),
        (b"<score-partwise><part>", "damaged"),
        (b"<score-timewise/>", "timewise"),
        (b"<html/>", "no MusicXML"),
        (xml(pitched("C4", 2), divisions=0), "damaged"),
        (xml(pitched("X4", 2)), "damaged"),
        (xml("").replace(b"</part>", b"</part>" + b"<part/>" * 70), "parts; 64"),
        (b"PK\x03\x04 not really", "damaged"),
        (b"X:1\nK:C\nC @ D\n", "line 3, column 3"),
        (b"X:1\nL:1/0\nK:C\nC\n", "field L:"),
        (b"X:1\nQ:-3\nK:C\nC\n", "10 to 400"),
        (b"X:1\nK:C\nC D\nw: a b c\n", "more syllables than notes"),
        (b"#BPM:0\n: 0 4 0 la\n", "10 to 400"),
        (b"#TITLE:x\n: 0 4 0 la\n", "no tempo"),
        (b"#BPM:100\n: 0 4 la\n", "line 2"),
        (b"#BPM:100\nR 0 4 0 la\n", "spoken or rapped"),
    ],
)
def test_what_is_no_score_is_told_what_to_change(data: bytes, message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        parse(data)


def test_archives_that_hold_too_much_or_nothing() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xml", b" " * (MOST_BYTES + 1))
    with pytest.raises(ScoreError, match="unpacks to more"):
        parse(file.getvalue())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(ScoreError, match="holds no score"):
        parse(file.getvalue())


@pytest.mark.parametrize("text", ["C4 1 Hel lo there", "C4 1 Hel-\nD4 1 lo world"])
def test_plain_words_that_are_longer_than_the_notes(text):
    with pytest.raises(ScoreError, match="longer than the notes"):
        plain(text)
