"""MusicXML 4.0 (W3C), plain or compressed (.mxl): the sung notes of every part, repeats written out.

Read: pitch, duration, chords (the highest note sings), ties, grace notes (left out), lyrics of all verses,
tempo marks, repeats with first and second endings, transposing instruments. Not followed: jumps (D.C., D.S.).

The file comes from anywhere: entities are refused as they are declared (one can stand for a terabyte), depth
and size are bounded, and what a compressed file unpacks to is read up to the limit only.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from xml.etree import ElementTree
from xml.parsers import expat

from stepaudio.core.errors import ScoreError
from stepaudio.tts.scores.score import (
    MOST_BYTES,
    MOST_NOTES,
    MOST_TRACKS,
    STEPS,
    Lyric,
    Note,
    Part,
    Score,
    make,
    syllable,
)

_DEPTH = 60
"""Elements within elements; MusicXML itself has about ten."""
_UNITS = {"whole": 4.0, "half": 2.0, "quarter": 1.0, "eighth": 0.5, "16th": 0.25, "32nd": 0.125}
_DAMAGED = "the MusicXML file is damaged ({}); export it again from the notation program"


def read_compressed(data: bytes) -> Score:
    """A score from an .mxl file: a zip archive whose META-INF/container.xml names the score."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [info.filename for info in archive.infolist()[:1000]]
            found = None
            if "META-INF/container.xml" in names:
                root = _tree(_member(archive, "META-INF/container.xml"))
                found = next((item.get("full-path") for item in root.iter("rootfile")), None)
            if found not in names:
                endings = (".musicxml", ".xml")
                found = next((n for n in names if n.endswith(endings) and not n.startswith("META-INF")), None)
            if found is None:
                raise ScoreError("the archive holds no score; export it as .mxl or .musicxml again")
            return read(_member(archive, found))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError) as error:
        raise ScoreError(_DAMAGED.format("its archive cannot be unpacked")) from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ScoreError(
            f"the score unpacks to more than {MOST_BYTES >> 20} MB; keep the sung part alone in it"
        )
    return data


def _tree(data: bytes) -> ElementTree.Element:
    """The document, without anything that its author could make grow."""
    builder, parser, depth = ElementTree.TreeBuilder(), expat.ParserCreate(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEPTH:
            raise ScoreError(_DAMAGED.format("its elements are nested too deeply"))
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def entity(*_: object) -> None:
        raise ScoreError("the score declares XML entities, which no notation program writes; take them out")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = builder.data, entity
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, ValueError) as error:
        line = f"line {error.lineno}" if isinstance(error, expat.ExpatError) else "its text"
        raise ScoreError(_DAMAGED.format(line)) from error


def read(data: bytes) -> Score:
    """A score from an uncompressed document."""
    root = _tree(data)
    if root.tag == "score-timewise":
        raise ScoreError("the score is written timewise; export it as partwise MusicXML (what programs do)")
    if root.tag != "score-partwise":
        raise ScoreError(f"the file is XML, but no MusicXML (it begins with <{root.tag[:40]}>)")
    names = {item.get("id"): (item.findtext("part-name") or "").strip() for item in root.iter("score-part")}
    parts = root.findall("part")
    if len(parts) > MOST_TRACKS:
        raise ScoreError(f"the score has {len(parts)} parts; {MOST_TRACKS} are the most. Keep the sung one")
    title = root.findtext("movement-title") or root.findtext("work/work-title") or ""
    found: list[Part] = []
    tempi: dict[float, float] = {}
    first: _Reader | None = None
    for number, element in enumerate(parts, 1):
        reader = _Reader()
        reader.read(element)
        first = first or reader
        order = list(_order(reader.measures))
        starts = _starts(reader.measures, order)
        for beat, tempo in _tempi(reader.measures, order, starts):
            tempi.setdefault(beat, tempo)
        name = names.get(element.get("id")) or f"part {number}"
        found += _voices(name, reader.measures, order, starts)
    bar = first.bar if first else 4.0
    pickup = float(first.measures[0].length) if first and first.measures else 0.0
    return make(
        title,
        tempi.items(),
        found,
        bar=bar,
        pickup=pickup if pickup < bar else 0.0,
        fifths=first.fifths if first else None,
    )


@dataclass(slots=True)
class _Sung:
    """A note inside a measure."""

    begin: Fraction
    length: Fraction
    pitch: int
    voice: str
    tied: bool  # to the note before it
    lyrics: dict[int, Lyric]


@dataclass(slots=True)
class _Measure:
    length: Fraction = Fraction(0)
    notes: list[_Sung] = field(default_factory=list)
    tempi: list[tuple[Fraction, float]] = field(default_factory=list)
    forward: bool = False
    backward: int = 0  # times that the section is played; 0: no repeat ends here
    endings: frozenset[int] = frozenset()
    ending_stops: bool = False


class _Reader:
    """Measure by measure through a part."""

    def __init__(self) -> None:
        self.measures: list[_Measure] = []
        self.bar, self.fifths = 4.0, None
        self._divisions, self._transposed = Fraction(1), 0
        self._endings: frozenset[int] = frozenset()
        self._count = 0

    def read(self, part: ElementTree.Element) -> None:
        for number, element in enumerate(part.findall("measure"), 1):
            try:
                self.measures.append(self._measure(element))
            except (ValueError, ArithmeticError, KeyError) as error:
                raise ScoreError(
                    _DAMAGED.format(f"measure {number}: a number or a name in it cannot be read")
                ) from error

    def _measure(self, element: ElementTree.Element) -> _Measure:
        measure = _Measure(endings=self._endings)
        at = last = Fraction(0)  # now, and where the note before began
        for item in element:
            match item.tag:
                case "attributes":
                    self._attributes(item, at == 0 and not self.measures)
                case "note":
                    length = Fraction(item.findtext("duration") or 0) / self._divisions
                    if item.find("grace") is not None or item.find("cue") is not None:
                        continue
                    begin = last if item.find("chord") is not None else at
                    if item.find("pitch") is not None:
                        measure.notes.append(self._note(item, begin, length))
                        self._count += 1
                        if self._count > 4 * MOST_NOTES:
                            raise ScoreError("a part of the score has too many notes; keep the sung one")
                    if item.find("chord") is None:
                        last, at = at, at + length
                case "backup":
                    at = max(Fraction(0), at - Fraction(item.findtext("duration") or 0) / self._divisions)
                case "forward":
                    at += Fraction(item.findtext("duration") or 0) / self._divisions
                case "direction" | "sound":
                    if (tempo := _tempo(item)) is not None:
                        measure.tempi.append((at, tempo))
                case "barline":
                    self._barline(item, measure)
            measure.length = max(measure.length, at)
        return measure

    def _attributes(self, item: ElementTree.Element, first: bool) -> None:
        if (divisions := item.findtext("divisions")) is not None:
            self._divisions = Fraction(divisions)
            if self._divisions <= 0:
                raise ValueError(divisions)
        beats, unit = item.findtext("time/beats"), item.findtext("time/beat-type")
        if first and beats and unit:
            self.bar = 4 * sum(map(int, beats.split("+"))) / int(unit)
        if first and (fifths := item.findtext("key/fifths")):
            self.fifths = int(fifths)
        if (transpose := item.find("transpose")) is not None:
            self._transposed = int(transpose.findtext("chromatic") or 0)
            self._transposed += 12 * int(transpose.findtext("octave-change") or 0)

    def _note(self, item: ElementTree.Element, begin: Fraction, length: Fraction) -> _Sung:
        step, octave = item.findtext("pitch/step") or "", int(item.findtext("pitch/octave") or 4)
        alter = round(float(item.findtext("pitch/alter") or 0))
        lyrics: dict[int, Lyric] = {}
        for order, lyric in enumerate(item.findall("lyric"), 1):
            given = lyric.get("number") or str(order)
            if (text := _lyric(lyric)) is not None:
                lyrics.setdefault(int(given) if given.isdecimal() else order, text)
        return _Sung(
            begin,
            length,
            STEPS[step] + alter + 12 * (octave + 1) + self._transposed,
            item.findtext("voice") or "1",
            any(tie.get("type") == "stop" for tie in item.findall("tie")),
            lyrics,
        )

    def _barline(self, item: ElementTree.Element, measure: _Measure) -> None:
        if (ending := item.find("ending")) is not None:
            if ending.get("type") == "start":
                numbers = (ending.get("number") or "").replace(" ", ",").split(",")
                measure.endings = self._endings = frozenset(int(n) for n in numbers if n.isdecimal())
            else:
                self._endings, measure.ending_stops = frozenset(), True
        if (repeat := item.find("repeat")) is not None:
            if repeat.get("direction") == "forward":
                measure.forward = True
            else:
                times = max(2, min(int(repeat.get("times") or 2), 9))
                measure.backward = max(times, max(measure.endings, default=0) + 1)


def _tempo(item: ElementTree.Element) -> float | None:
    sound = item if item.tag == "sound" else item.find("sound")
    if sound is not None and sound.get("tempo"):
        return float(sound.get("tempo") or 0)
    metronome = item.find("direction-type/metronome")
    if metronome is None:
        return None
    try:
        unit = _UNITS[metronome.findtext("beat-unit") or ""] * (
            1.5 if metronome.find("beat-unit-dot") is not None else 1.0
        )
        return unit * float(metronome.findtext("per-minute") or "")
    except (KeyError, ValueError):
        return None  # "ca. 60", or one note value equal to another


def _lyric(element: ElementTree.Element) -> Lyric | None:
    """The syllable, "end of a word and next one" where two share the note."""
    if element.find("humming") is not None:
        return Lyric("mm")
    text, kind = "", "single"
    for item in element:
        if item.tag == "syllabic":
            kind = (item.text or "").strip()
        elif item.tag == "elision":
            text += " "
        elif item.tag == "text":
            text += item.text or ""
    found = syllable(text)
    return Lyric(found.text, found.joins or kind in ("begin", "middle")) if found else None


def _order(measures: list[_Measure]) -> Iterator[tuple[int, int]]:
    """(measure, time that it is played) in the order of playing."""
    at, start, time, played = 0, 0, 1, 0
    while at < len(measures) and played < MOST_NOTES:
        measure = measures[at]
        if measure.forward and start != at:
            start, time = at, 1
        if measure.endings and time not in measure.endings:
            at += 1
            continue
        yield at, time
        played += 1
        if measure.backward and time < measure.backward:
            at, time = start, time + 1
            continue
        if measure.backward or measure.ending_stops:
            start, time = at + 1, 1
        at += 1


def _starts(measures: list[_Measure], order: list[tuple[int, int]]) -> list[Fraction]:
    starts, at = [], Fraction(0)
    for index, _ in order:
        starts.append(at)
        at += measures[index].length
    return starts


def _tempi(
    measures: list[_Measure], order: list[tuple[int, int]], starts: list[Fraction]
) -> Iterator[tuple[float, float]]:
    for (index, _), start in zip(order, starts, strict=True):
        for at, tempo in measures[index].tempi:
            yield float(start + at), tempo


def _voices(
    name: str, measures: list[_Measure], order: list[tuple[int, int]], starts: list[Fraction]
) -> Iterator[Part]:
    """The voices of a part: those with words; if none has any, the one with most notes."""
    counts: dict[str, int] = {}
    worded: set[str] = set()
    verses = 0
    for measure in measures:
        for note in measure.notes:
            counts[note.voice] = counts.get(note.voice, 0) + 1
            if note.lyrics:
                worded.add(note.voice)
                verses = max(verses, *note.lyrics)
    if not counts:
        return
    times = max(time for _, time in order)
    chosen = [voice for voice in counts if voice in worded] or [max(counts, key=lambda v: counts[v])]
    for voice in chosen:
        notes: list[Note] = []
        for (index, time), start in zip(order, starts, strict=True):
            for note in sorted(measures[index].notes, key=lambda note: (note.begin, -note.pitch)):
                if note.voice != voice or note.length <= 0:
                    continue
                begin, length = float(start + note.begin), float(note.length)
                last = notes[-1] if notes else None
                if note.tied and last and last.pitch == note.pitch and abs(last.end - begin) < 1e-3:
                    notes[-1] = Note(last.begin, last.beats + length, last.pitch, last.lyrics)
                    continue
                if 1 < verses == times:  # the verses are the times that the repeat is sung
                    lyrics = (note.lyrics.get(time) or note.lyrics.get(1),)
                else:
                    lyrics = tuple(note.lyrics.get(verse) for verse in range(1, min(verses, 20) + 1))
                notes.append(Note(begin, length, note.pitch, lyrics))
        yield Part(name if len(chosen) == 1 else f"{name} {voice}", tuple(notes))
