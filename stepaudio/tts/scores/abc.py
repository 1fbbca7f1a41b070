"""ABC notation 2.1 (https://abcnotation.com/wiki/abc:standard:v2.1): the first tune of a file.

Read: headers, keys with modes, accidentals that hold for a bar, lengths, broken rhythm, tuplets, ties,
chords (the highest note sings), rests, repeats with first and second endings, voices (V:), and words under
the notes (w:), one line a verse. Grace notes, decorations, chord names and slurs are passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from stepaudio.core.errors import ScoreError
from stepaudio.tts.scores.score import MOST_NOTES, STEPS, Lyric, Note, Part, Score, make, syllable

_SHARPS, _MODES = "FCGDAEB", {"maj": 0, "ion": 0, "mix": -1, "dor": -2, "m": -3, "min": -3, "aeo": -3}
_MODES |= {"phr": -4, "loc": -5, "lyd": 1}
_FIFTHS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1}
_ACCIDENTALS = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}

_TOKEN = re.compile(
    r"(?P<field>\[[A-Za-z]:[^\]]*\])"
    r"|(?P<skip>\"[^\"]*\"|![^!\s]*!|\+[a-z]+\+|\{[^}]*\}|[\s`~.HLMOPSTuvJ()\\y])"
    r"|(?P<tuplet>\((\d)(?::(\d?))?(?::(\d?))?)"
    r"|(?P<bar>:*\|[\]|]*:*(?:\s*\[?\d[\d,-]*)?|\[\||::|\[\d[\d,-]*)"
    r"|(?P<note>(?:\^\^|\^|__|_|=)?[A-Ga-g][',]*)"
    r"|(?P<rest>[zxZX])"
    r"|(?P<chord>\[(?=[\^_=A-Ga-g\"]))"
    r"|(?P<close>\])"
    r"|(?P<tie>-)"
    r"|(?P<broken>>{1,3}|<{1,3})"
)
_TUPLET = re.compile(r"\((\d)(?::(\d?))?(?::(\d?))?")
_LENGTH = re.compile(r"(\d{1,3})?(/{1,4})?(\d{1,3})?")
_WORDS = re.compile(r"\s*(?:(?P<sign>[_*|])|(?P<text>(?:\\-|[^\s_*|-])+)(?P<join>\s?-)?|(?P<again>-))")


@dataclass(slots=True)
class _Voice:
    """A voice while it is read. Times are in quarter notes."""

    name: str
    notes: list[Note | None] = field(default_factory=list)  # None: the bar ended here
    at: Fraction = Fraction(0)
    line: int = 0  # where in ``notes`` the current line of music begins
    verses: int = 0  # lines of words under it so far
    tie: bool = False
    marks: list[tuple[int, Fraction, str, str]] = field(
        default_factory=list
    )  # (notes, time, bar sign, ending)


@dataclass(slots=True)
class _Head:
    title: str = ""
    tempo: float | None = None
    bar: float = 4.0
    unit: Fraction | None = None  # length of a note without a number, in quarter notes
    fifths: int = 0
    meter: Fraction = Fraction(1)


def read(text: str) -> Score:
    """A score from the first tune of an ABC file."""
    head, voices, at = _Head(), {}, None
    started = False
    for place, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(?<!\\)%.*", "", line).rstrip()
        if started and not line.strip():
            break  # an empty line ends the tune
        key = line[:1] if line[1:2] == ":" and line[:1].isalpha() else ""
        value = line[2:].strip() if key else ""
        if key == "X" and started:
            break
        if key == "V":
            name = value.split()[0] if value else "1"
            at = voices.setdefault(name, _Voice(name))
        elif key == "w":
            if at is not None:
                _words(at, value, place)
        elif key and key not in "|":
            _field(head, key, value, place)
            started = started or key == "K"
        elif line.strip() and started:
            at = at or voices.setdefault("1", _Voice("1"))
            at.line, at.verses = len(at.notes), 0
            _music(head, at, line, place)
    parts = [Part(f"voice {voice.name}", _repeated(voice)) for voice in voices.values()]
    tempo = [(0.0, head.tempo)] if head.tempo is not None else []
    return make(head.title, tempo, parts, bar=head.bar, fifths=head.fifths)


def _field(head: _Head, key: str, value: str, place: int) -> None:
    try:
        match key:
            case "T":
                head.title = head.title or value
            case "M" if value not in ("none", ""):
                written = {"C": "4/4", "C|": "2/2"}.get(value, value)
                beats, _, unit = written.partition("/")
                head.meter = Fraction(sum(map(int, beats.strip("()").split("+"))), int(unit))
                head.bar = float(4 * head.meter)
            case "L":
                head.unit = 4 * Fraction(value)
                if head.unit <= 0:
                    raise ValueError
            case "Q":
                plain = re.sub(r'"[^"]*"', "", value).strip()
                found = re.fullmatch(r"(?:(\d+/\d+(?: +\d+/\d+)*) *= *)?(-?[\d.]+)", plain)
                if found:
                    beat = 4 * sum(map(Fraction, found[1].split())) if found[1] else Fraction(1)
                    head.tempo = float(found[2]) * float(beat)
                elif plain:
                    raise ValueError
            case "K":
                head.fifths = _key(value)
    except (ValueError, ArithmeticError):
        raise ScoreError(
            f"line {place}: the field {key}: cannot be read; write it as in M:3/4, L:1/8, Q:1/4=96 or K:G"
        ) from None


def _key(value: str) -> int:
    """Sharps (or minus flats) of "G", "Am", "Bb", "D dor", "none"."""
    found = re.match(r"([A-G])([#b]?)\s*([A-Za-z]*)", value)
    if found is None:
        return 0
    mode = found[3].lower()
    shift = _MODES.get(mode[:3], _MODES["m"] if mode == "m" else 0)
    return _FIFTHS[found[1]] + {"#": 7, "b": -7, "": 0}[found[2]] + shift


def _music(head: _Head, voice: _Voice, line: str, place: int) -> None:
    unit = head.unit or (Fraction(1, 2) if head.meter >= Fraction(3, 4) else Fraction(1, 4))
    altered: dict[tuple[str, int], int] = {}  # accidentals of this bar
    tuplet: tuple[int, Fraction] = (0, Fraction(1))  # notes left, and what they last
    broken = Fraction(1)  # of the next note
    chord: list[int] | None = None
    at = 0
    while at < len(line):
        found = _TUPLET.match(line, at) or _TOKEN.match(line, at)
        if found is None:
            raise ScoreError(f"line {place}, column {at + 1}: {line[at]!r} is no ABC; take it out")
        at, kind = found.end(), found.lastgroup if found.re is _TOKEN else "tuplet"
        if found.re is _TOKEN:
            kind = next(name for name, text in found.groupdict().items() if text)
        match kind:
            case "field":
                _field(head, found[0][1], found[0][3:-1].strip(), place)
                unit = head.unit or unit
            case "tuplet":
                p = int(found[1])
                q = int(found[2] or {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p, 2))
                tuplet = (int(found[3] or p), Fraction(q, max(p, 1)))
            case "bar":
                ending = "".join(re.findall(r"\d[\d,-]*", found[0]))
                voice.marks.append((len(voice.notes), voice.at, found[0], ending))
                voice.notes.append(None)
                altered.clear()
            case "chord":
                chord = []
            case "note" | "rest" | "close":
                pitch = _pitch(found[0], head.fifths, altered) if kind == "note" else None
                length = _LENGTH.match(line, at)
                assert length is not None
                at = length.end()
                if chord is not None and kind != "close":
                    chord += [pitch] if pitch is not None else []
                    continue
                if kind == "close":
                    pitch, chord = max(chord, default=None) if chord else None, None
                lasts = _lasts(length) * unit * broken
                broken = Fraction(1)
                if found[0] in "ZX":  # bars of rest
                    lasts = _lasts(length) * 4 * head.meter
                elif tuplet[0]:
                    lasts, tuplet = lasts * tuplet[1], (tuplet[0] - 1, tuplet[1])
                if (sign := re.match(r"\s*(>{1,3}|<{1,3})", line[at:])) is not None:
                    at += sign.end()
                    short = Fraction(1, 2 ** len(sign[1]))
                    first, broken = (2 - short, short) if sign[1][0] == ">" else (short, 2 - short)
                    lasts *= first
                _append(voice, pitch, lasts)
            case "tie":
                voice.tie = True


def _append(voice: _Voice, pitch: int | None, lasts: Fraction) -> None:
    if pitch is not None:
        last = next((note for note in reversed(voice.notes) if note is not None), None)
        if voice.tie and last and last.pitch == pitch and abs(last.end - float(voice.at)) < 1e-3:
            place = max(i for i, note in enumerate(voice.notes) if note is last)
            voice.notes[place] = Note(last.begin, last.beats + float(lasts), pitch, last.lyrics)
        else:
            voice.notes.append(Note(float(voice.at), float(lasts), pitch))
        if len(voice.notes) > MOST_NOTES:
            raise ScoreError(f"the tune has more than {MOST_NOTES} notes; cut it into tunes")
    voice.tie = False
    voice.at += lasts


def _pitch(written: str, fifths: int, altered: dict[tuple[str, int], int]) -> int:
    sign = re.match(r"[\^_=]*", written)
    accidental, name = (sign[0], written[sign.end() :]) if sign else ("", written)
    letter = name[0].upper()
    octave = 5 if name[0].islower() else 4
    octave += name.count("'") - name.count(",")
    if accidental:
        altered[letter, octave] = _ACCIDENTALS[accidental]
    sharps = dict.fromkeys(_SHARPS[: max(0, min(fifths, 7))], 1)
    flats = dict.fromkeys(_SHARPS[::-1][: max(0, min(-fifths, 7))], -1)
    shift = altered.get((letter, octave), (sharps | flats).get(letter, 0))
    return 12 * (octave + 1) + STEPS[letter] + shift


def _lasts(length: re.Match[str]) -> Fraction:
    """The number behind a note: "2", "/2", "3/2", "/", "//"."""
    value = Fraction(int(length[1] or 1))
    if length[2]:
        value /= int(length[3]) or 1 if length[3] else 2 ** len(length[2])
    return value


def _words(voice: _Voice, written: str, place: int) -> None:
    """Lay a line of words under the line of music before it."""
    voice.verses += 1
    notes = voice.notes
    at = voice.line
    syllables = 0
    for found in _WORDS.finditer(written):
        if found["sign"] == "|":
            while at < len(notes) and notes[at] is not None:
                at += 1
            at += 1
            continue
        while at < len(notes) and notes[at] is None:
            at += 1
        syllables += 1
        if at >= len(notes):
            raise ScoreError(f"line {place}: there are more syllables than notes above; take some away")
        note = notes[at]
        assert note is not None
        if found["text"]:
            lyric = syllable(found["text"].replace("~", " ").replace("\\-", "‧"))
            if lyric:
                text = lyric.text.replace("‧", "-")
                lyrics = (
                    *note.lyrics,
                    *(None,) * (voice.verses - 1 - len(note.lyrics)),
                    Lyric(text, bool(found["join"])),
                )
                notes[at] = Note(note.begin, note.beats, note.pitch, lyrics)
        at += 1


def _repeated(voice: _Voice) -> tuple[Note, ...]:
    """The notes with repeats written out. Where a verse is there for every time, each time sings its own."""
    bars: list[tuple[list[Note], Fraction, bool, bool, str]] = []  # notes, length, opens, closes, ending
    opens, ending, begin, first = False, "", Fraction(0), 0
    marks = [*voice.marks, (len(voice.notes), voice.at, "|]", "")]
    for place, time, sign, number in marks:
        notes = [note for note in voice.notes[first:place] if note is not None]
        closes = sign.startswith(":")
        if notes or time > begin:
            moved = [Note(n.begin - float(begin), n.beats, n.pitch, n.lyrics) for n in notes]
            bars.append((moved, time - begin, opens, closes, ending))
            opens = False
        elif closes and bars:
            bars[-1] = (*bars[-1][:3], True, bars[-1][4])
        opens = opens or sign.rstrip("0123456789[,- ").endswith(":")
        ending = number or ("" if closes or sign.startswith(("||", "|]")) else ending)
        begin, first = time, place + 1
    verses = max((len(note.lyrics) for bar in bars for note in bar[0]), default=0)
    times = 2 if any(bar[3] for bar in bars) else 1
    played: list[Note] = []
    at, i, start, time = Fraction(0), 0, 0, 1
    while i < len(bars) and len(played) < MOST_NOTES:
        notes, length, opens, closes, ending = bars[i]
        if opens and start != i and time == 1:
            start = i
        if ending and str(time) not in ending:
            i += 1
            continue
        for note in notes:
            lyrics = note.lyrics
            if verses == times > 1 and lyrics:
                lyrics = (lyrics[time - 1] if len(lyrics) >= time else lyrics[0],)
            played.append(Note(note.begin + float(at), note.beats, note.pitch, lyrics))
        at += length
        if closes and time == 1:
            i, time = start, 2
            continue
        if closes or (ending and (i + 1 == len(bars) or bars[i + 1][4] != ending)):
            start, time = i + 1, 1
        i += 1
    return tuple(played)
