"""Standard MIDI files (RP-001, format 0 and 1) with lyrics, and karaoke files (.kar), whose words are texts.

The format is a page long, so it is read here and not by a library: every length is checked against the file.
Words belong to the notes that begin with them; which track or channel is the melody, their times tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from stepaudio.core.errors import ScoreError
from stepaudio.tts.scores.score import (
    MOST_NOTES,
    MOST_TRACKS,
    Lyric,
    Note,
    Part,
    Score,
    decoded,
    lay_by_time,
    make,
    monophonic,
    syllable,
)

_DAMAGED = "the MIDI file is damaged (it ends in the middle of {}); export it again"
_DRUMS = 9
_SLACK = 0.2
"""Beats that a syllable may come after its note; people's karaoke files are not exact."""


@dataclass(slots=True)
class _Track:
    name: str = ""
    notes: dict[int, list[Note]] = field(default_factory=dict)  # of every channel
    lyrics: list[tuple[float, bytes]] = field(default_factory=list)
    texts: list[tuple[float, bytes]] = field(default_factory=list)


def read(data: bytes) -> Score:
    """A score from a MIDI file."""
    if data.startswith(b"RIFF"):  # .rmi: the file in a wrapper
        data = data[max(0, data.find(b"MThd")) :]
    if len(data) < 14 or not data.startswith(b"MThd"):
        raise ScoreError(_DAMAGED.format("its header"))
    kind, count, division = (int.from_bytes(data[i : i + 2]) for i in (8, 10, 12))
    if kind == 2:
        raise ScoreError("the MIDI file holds patterns (format 2), not a song; export it as format 1")
    if count > MOST_TRACKS:
        raise ScoreError(f"the MIDI file has {count} tracks; {MOST_TRACKS} are the most. Keep the sung one")
    if not division:
        raise ScoreError(_DAMAGED.format("its header: no ticks per quarter note"))
    if division & 0x8000:
        raise ScoreError("the MIDI file counts film frames, not beats; export it with ticks per quarter note")
    tempi: dict[float, float] = {}
    bars: dict[float, float] = {}
    keys: dict[float, int] = {}
    tracks = []
    at = 8 + int.from_bytes(data[4:8])
    while at + 8 <= len(data) and len(tracks) <= MOST_TRACKS:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8])
        if name == b"MTrk":
            body = data[at + 8 : at + 8 + size]
            tracks.append(_track(body, division, tempi, bars, keys))
        at += 8 + size
    if not tracks:
        raise ScoreError("the MIDI file has no track; export it again")
    title = next((track.name for track in tracks if track.name), "")
    parts = list(_parts(tracks))
    return make(title, tempi.items() or [(0.0, 120.0)], parts, bar=bars.get(0.0, 4.0), fifths=keys.get(0.0))


def _track(
    body: bytes, division: int, tempi: dict[float, float], bars: dict[float, float], keys: dict[float, int]
) -> _Track:
    track, sounding = _Track(), {}
    for tick, status, data in _events(body):
        beat = tick / division
        kind, channel = status & 0xF0, status & 0x0F
        if kind in (0x80, 0x90):
            pitch, begun = data[0], sounding.pop((channel, data[0]), None)
            if begun is not None and beat > begun:
                notes = track.notes.setdefault(channel, [])
                notes.append(Note(begun, beat - begun, pitch))
                if len(notes) > 4 * MOST_NOTES:
                    raise ScoreError("a track has too many notes; keep the sung one alone in the file")
            if kind == 0x90 and data[1]:
                sounding[channel, pitch] = beat
        elif status == 0xFF:
            what, text = data[0], data[1:]
            if what == 0x01:
                track.texts.append((beat, text))
            elif what == 0x03 and not track.name:
                track.name = decoded(text).strip()[:80]
            elif what == 0x05:
                track.lyrics.append((beat, text))
            elif what == 0x51 and len(text) == 3:
                micros = int.from_bytes(text)
                if not micros:
                    raise ScoreError(f"the tempo at beat {beat:g} is zero time a beat; write a real one")
                tempi[beat] = 60e6 / micros
            elif what == 0x58 and len(text) >= 2 and text[0] and text[1] < 7:
                bars.setdefault(beat, 4 * text[0] / 2 ** text[1])
            elif what == 0x59 and len(text) >= 1:
                keys.setdefault(beat, text[0] - 256 if text[0] > 127 else text[0])
    return track


def _events(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(tick, status, data) of a track; of a meta event the data begin with its kind."""
    at, tick, running = 0, 0, 0

    def number() -> int:
        nonlocal at
        value = 0
        for _ in range(4):
            byte = body[at]
            at += 1
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise ScoreError("the MIDI file is damaged (a time in it is too long); export it again")

    try:
        while at < len(body):
            tick += number()
            status = body[at]
            if status < 0x80:
                status = running
            else:
                at += 1
            if status < 0x80:
                raise ScoreError("the MIDI file is damaged (data without an event); export it again")
            if status in (0xFF, 0xF0, 0xF7):
                kind = b""
                if status == 0xFF:
                    kind, at = body[at : at + 1], at + 1
                size = number()
                if at + size > len(body):
                    raise IndexError
                data, at = body[at : at + size], at + size
                if status == 0xFF:
                    if kind == b"\x2f":
                        return
                    yield tick, status, kind + data
            elif status > 0xF0:
                raise ScoreError(
                    "the MIDI file is damaged (an event that files do not have); export it again"
                )
            else:
                running = status
                size = 1 if status & 0xF0 in (0xC0, 0xD0) else 2
                data, at = body[at : at + size], at + size
                if len(data) < size:
                    raise IndexError
                yield tick, status, data
    except IndexError:
        raise ScoreError(_DAMAGED.format("an event")) from None


def _parts(tracks: list[_Track]) -> Iterator[Part]:
    """Every track and channel that has notes; those that words belong to, with them."""
    tunes: dict[tuple[int, int], tuple[Note, ...]] = {
        (index, channel): monophonic(notes)
        for index, track in enumerate(tracks)
        for channel, notes in track.notes.items()
        if channel != _DRUMS
    }
    for index, track in enumerate(tracks):
        words = _words(track.lyrics) or (_words(track.texts) if _karaoke(track) else [])
        if not words or not tunes:
            continue
        beats = [beat for beat, _ in words]
        best = max(tunes, key=lambda key: _matching(tunes[key], beats) + 0.1 * len(beats) * (key[0] == index))
        tunes[best] = lay_by_time(tunes[best], words, _SLACK)
    for (index, channel), notes in tunes.items():
        yield Part(tracks[index].name or f"track {index + 1}, channel {channel + 1}", notes)


def _karaoke(track: _Track) -> bool:
    """Whether texts are words: some begin a line with "/" or "\\", or many stand on different beats."""
    lines = sum(text[:1] in (b"/", b"\\") for _, text in track.texts)
    return lines > 0 or len({beat for beat, _ in track.texts}) > 8


def _words(events: list[tuple[float, bytes]]) -> list[tuple[float, Lyric]]:
    """Syllables with their beats. Where spaces are written, they part words; else only hyphens join them."""
    encoded = b"\n".join(text for _, text in events)
    texts = decoded(encoded).replace("\r", " ").split("\n")
    if len(texts) != len(events):  # line ends inside of texts
        texts = [decoded(text).replace("\r", " ").replace("\n", " ") for _, text in events]
    spaced = any(text != text.strip() and text.strip() for text in texts)
    found: list[tuple[float, Lyric]] = []
    for (beat, _), text in zip(events, texts, strict=True):
        if text.startswith("@"):  # a karaoke file's title, language, …
            continue
        starts = text[:1] in ("/", "\\", " ")
        lyric = syllable(text.lstrip("/\\ "))
        if spaced and found and (starts or not text.strip()):
            found[-1] = found[-1][0], Lyric(found[-1][1].text)
        if lyric is None:
            continue
        hyphen = lyric.joins
        found.append((beat, Lyric(lyric.text, hyphen or (spaced and not text.endswith(" ")))))
    if found:
        found[-1] = found[-1][0], Lyric(found[-1][1].text)
    return found


def _matching(notes: tuple[Note, ...], beats: list[float]) -> float:
    """How well words fit a tune: those on the beginning of a note, less a little for notes without."""
    begins = sorted(beats)
    hits = i = 0
    for note in notes:
        while i < len(begins) and begins[i] < note.begin - _SLACK:
            i += 1
        if i < len(begins) and begins[i] <= note.begin + _SLACK:
            hits += 1
            i += 1
    return hits - 0.1 * (len(notes) - hits)
