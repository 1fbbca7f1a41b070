"""What a score is here: notes in beats, a tempo map, and syllables on the notes, verse by verse.

Also what all readers share: limits, the decoding of text, syllables as they are written, and the plain form
"note beats syllable".
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepaudio.core.errors import ScoreError

MOST_BYTES = 16 << 20
"""Of a file, also of what a compressed one unpacks to. An opera's MusicXML has about 10 MB."""
MOST_TRACKS = 64
"""Of a MIDI file, or parts of a MusicXML file."""
MOST_NOTES = 20_000
"""Of a part, repeats written out; an hour of singing has some 6000."""
MOST_SECONDS = 1800
TEMPI = (10.0, 400.0)
"""Quarter notes a minute that can be sung; marks outside are errors of the file."""

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


@dataclass(frozen=True, slots=True)
class Lyric:
    """What is sung on a note: a syllable, or (elision) the end of a word and the next one, with a space.

    Attributes:
        text: as written, without hyphens at its ends.
        joins: the word goes on with the next syllable.
    """

    text: str
    joins: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A note, ties taken together.

    Attributes:
        begin: beats (quarter notes) from the start of the score.
        beats: its length.
        pitch: MIDI number: 60 is C4, 69 is A4 with 440 Hz.
        lyrics: of every verse; None: the syllable before it goes on (a melisma).
    """

    begin: float
    beats: float
    pitch: int
    lyrics: tuple[Lyric | None, ...] = ()

    @property
    def end(self) -> float:
        return self.begin + self.beats


@dataclass(frozen=True, slots=True)
class Part:
    """What one singer sings: notes in order, one at a time."""

    name: str
    notes: tuple[Note, ...]

    @property
    def verses(self) -> int:
        """Verses that have words: 0 for a tune alone."""
        return max((i + 1 for note in self.notes for i, lyric in enumerate(note.lyrics) if lyric), default=0)

    @property
    def syllables(self) -> int:
        """Notes that a syllable of any verse begins on."""
        return sum(any(note.lyrics) for note in self.notes)


@dataclass(frozen=True, slots=True)
class Score:
    """A song.

    Attributes:
        title: as written; may be "".
        tempi: (beat, quarter notes a minute), the first at beat 0, rising.
        parts: the one with most syllables first.
        bar: beats of a bar, as at the start.
        pickup: beats before the first full bar.
        fifths: the key signature: sharps, or minus flats; None where the score does not say.
    """

    title: str
    tempi: tuple[tuple[float, float], ...]
    parts: tuple[Part, ...]
    bar: float = 4.0
    pickup: float = 0.0
    fifths: int | None = None

    def seconds(self, beat: float) -> float:
        """When a beat comes, in seconds from beat 0."""
        total = 0.0
        for (begin, tempo), (end, _) in zip(self.tempi, [*self.tempi[1:], (math.inf, 0.0)], strict=True):
            if beat <= begin:
                break
            total += (min(beat, end) - begin) * 60 / tempo
        return total

    def part(self, name: str | None = None) -> Part:
        """A part by name, or by its number from 1; None: the one with most words.

        Raises:
            ScoreError: there is no such part; the message lists them.
        """
        if name is None:
            return self.parts[0]
        for number, part in enumerate(self.parts, 1):
            if name.casefold() in (part.name.casefold(), str(number)):
                return part
        names = ", ".join(f"{number} ({part.name})" for number, part in enumerate(self.parts[:12], 1))
        raise ScoreError(f"the score has no part {name!r}; it has {names}")


def make(
    title: str,
    tempi: Iterable[tuple[float, float]],
    parts: Iterable[Part],
    *,
    bar: float = 4.0,
    pickup: float = 0.0,
    fifths: int | None = None,
) -> Score:
    """A score from what a reader found, checked.

    Raises:
        ScoreError: no notes, too many, too long, or a tempo that nobody can sing.
    """
    sung = [Part(part.name, monophonic(part.notes)) for part in parts if part.notes]
    if not sung:
        raise ScoreError("the score has no notes; sing needs at least one note with a pitch")
    sung.sort(key=lambda part: -part.syllables)
    marks = dict(sorted(tempi))
    for beat, tempo in marks.items():
        if not (math.isfinite(tempo) and TEMPI[0] <= tempo <= TEMPI[1]):
            raise ScoreError(
                f"the tempo at beat {beat:g} is {tempo:g} a minute; write one from {TEMPI[0]:g} to "
                f"{TEMPI[1]:g} quarter notes a minute"
            )
    first = min(marks, default=0.0)
    if first > 0 or not marks:
        marks[0.0] = marks.get(first, 120.0)
    for part in sung:
        if len(part.notes) > MOST_NOTES:
            raise ScoreError(f"part {part.name!r} has more than {MOST_NOTES} notes; cut the score into songs")
        for note in part.notes:
            if not 0 <= note.pitch <= 127:
                raise ScoreError(
                    f"a note at beat {note.begin:g} lies outside what can be written (MIDI 0 to 127); "
                    "move it by octaves"
                )
    score = Score(title.strip(), tuple(sorted(marks.items())), tuple(sung), bar, pickup, fifths)
    longest = max(score.seconds(part.notes[-1].end) for part in sung)
    if not longest <= MOST_SECONDS:
        raise ScoreError(f"the score lasts {longest / 60:.0f} minutes; 30 are the most. Cut it into songs")
    return score


def monophonic(notes: Iterable[Note]) -> tuple[Note, ...]:
    """One note at a time: of those that begin together the highest, each ended by the next one.

    The words of notes that are left out move to the one that is kept.
    """
    kept: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.begin, -note.pitch)):
        last = kept[-1] if kept else None
        if last and note.begin - last.begin < 1e-3:
            if not any(last.lyrics) and any(note.lyrics):
                kept[-1] = Note(last.begin, last.beats, last.pitch, note.lyrics)
            continue
        if last and last.end > note.begin:
            kept[-1] = Note(last.begin, note.begin - last.begin, last.pitch, last.lyrics)
        kept.append(note)
    return tuple(kept)


def syllable(text: str) -> Lyric | None:
    """A syllable as people write it: "Twin-", "‑kle", "star,"; None where nothing is sung ("-", "_", "~")."""
    text = " ".join(text.replace("\u00ad", "-").split())
    bare = text.strip("-‐‑–—_~ ")
    if not re.search(r"\w", bare):
        return None
    return Lyric(bare, text.rstrip("_~ ").endswith(("-", "‐", "‑", "–", "—")))


def lay(notes: Sequence[Note], verses: Sequence[Sequence[Lyric | None]]) -> tuple[Note, ...]:
    """Notes with words, one entry of a verse a note.

    Raises:
        ScoreError: a verse has more entries than there are notes.
    """
    for number, verse in enumerate(verses, 1):
        if len(verse) > len(notes):
            raise ScoreError(
                f"verse {number} has {len(verse)} syllables for {len(notes)} notes; take "
                f"{len(verse) - len(notes)} away, or add notes"
            )
    return tuple(
        Note(
            note.begin,
            note.beats,
            note.pitch,
            tuple(verse[i] if i < len(verse) else None for verse in verses),
        )
        for i, note in enumerate(notes)
    )


def lay_by_time(
    notes: Sequence[Note], words: Sequence[tuple[float, Lyric]], slack: float
) -> tuple[Note, ...]:
    """Notes with words that are given by their times, in beats; a word goes to the nearest note.

    Raises:
        ScoreError: there are more syllables than notes.
    """
    if len(words) > len(notes):
        raise ScoreError(
            f"there are {len(words)} syllables for {len(notes)} notes; take {len(words) - len(notes)} away, "
            "or add notes"
        )
    begins = [note.begin for note in notes]
    found: dict[int, Lyric] = {}
    for beat, lyric in words:
        at = bisect.bisect_left(begins, beat - slack)  # the first note that does not begin before it
        at = min(at, len(notes) - 1)
        if at in found:  # two syllables on one note
            before = found[at]
            lyric = Lyric(before.text + ("" if before.joins else " ") + lyric.text, lyric.joins)
        found[at] = lyric
    return tuple(Note(n.begin, n.beats, n.pitch, (found.get(i),)) for i, n in enumerate(notes))


def decoded(data: bytes) -> str:
    """Text of unknown encoding: UTF-8 or UTF-16, Chinese (GB 18030), else Western."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = data.decode("gb18030")
        foreign = [char for char in text if ord(char) > 127]
        if all("\u3000" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef" for char in foreign):
            return text
    except UnicodeDecodeError:
        pass
    return data.decode("cp1252", "replace")


_NOTE = re.compile(r"([A-Ga-g])([#♯b♭]{0,2})(-?\d)|(\d{1,3})")


def pitch_of(name: str) -> int | None:
    """MIDI number of "C4", "F#3", "Bb4" or "60"; None for anything else."""
    found = _NOTE.fullmatch(name)
    if found is None:
        return None
    if found[4]:
        return int(found[4])
    shift = sum(1 if sign in "#♯" else -1 for sign in found[2])
    return 12 * (int(found[3]) + 1) + STEPS[found[1].upper()] + shift


def name_of(pitch: int) -> str:
    """ "C4" of 60."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def number(text: str) -> float | None:
    """A length such as "1", "0.5", "1/2" or "1.5"; None for anything else."""
    found = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?|\.\d{1,6})(?:/(\d{1,4}))?", text)
    if found is None or (found[2] and int(found[2]) == 0):
        return None
    return float(found[1]) / int(found[2] or 1)


def plain(text: str) -> Score:
    """A score as people type it: a note a line, "pitch beats syllable"; further syllables are further verses.

    "r 1" is a rest; a note without a syllable, or with "-", carries the one before it on; "tempo 96", "title
    …" and "bar 3" stand on lines of their own; "#" begins a comment.

    Raises:
        ScoreError: a line is none of these; the message names it.
    """
    title, tempi, bar, beat = "", [], 4.0, 0.0
    notes: list[Note] = []
    for place, line in enumerate(text.splitlines(), 1):
        fields = re.sub(r"(^|\s)#.*", "", line).split()
        if not fields:
            continue
        key, rest = fields[0].lower().rstrip(":"), fields[1:]
        if key == "title":
            title = " ".join(rest)
        elif key in ("tempo", "bpm", "bar"):
            try:
                (value,) = map(float, rest)
            except ValueError:
                raise ScoreError(f"line {place}: write a number after {key}, as in '{key} 96'") from None
            if key != "bar":
                tempi.append((beat, value))
            elif 1 <= value <= 16:
                bar = value
            else:
                raise ScoreError(f"line {place}: a bar has 1 to 16 beats")
        else:
            pitch = None if key in ("r", "rest", "z") else pitch_of(fields[0])
            beats = number(rest[0]) if rest else None
            if pitch is None and key not in ("r", "rest", "z"):
                raise ScoreError(
                    f"line {place}: a note is a pitch such as C4, F#3 or 60, its beats, and a syllable, as "
                    "in 'C4 1 Hel-'; a rest is 'r 1'"
                )
            if not beats:
                raise ScoreError(
                    f"line {place}: write how many beats it lasts, more than 0 and below 10000, as in "
                    "'C4 1 Hel-'"
                )
            if pitch is not None:
                notes.append(Note(beat, beats, pitch, tuple(syllable(word) for word in rest[1:])))
            beat += beats
    if len({len(note.lyrics) for note in notes if note.lyrics}) > 1 or any(
        len(note.lyrics) > len(notes) for note in notes
    ):
        raise ScoreError(
            "the words are longer than the notes: a line is one note, and further syllables on it are those "
            "of further verses, as many on every line; give each syllable a line"
        )
    if not notes:
        raise ScoreError("the text has no notes; a line such as 'C4 1 Hel-' is one: pitch, beats, syllable")
    return make(title, tempi, [Part("voice", tuple(notes))], bar=bar)
