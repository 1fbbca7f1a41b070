"""UltraStar text files (https://usdx.eu/format): songs of karaoke games.

Times count quarters of a beat of #BPM, pitches semitones from C4. A syllable ends a word where a space stands
after it, or before the next one. Spoken ("F") and rapped ("R", "G") notes have no pitch to sing and are left
out.
"""

from __future__ import annotations

import math
import re

from stepaudio.core.errors import ScoreError
from stepaudio.tts.scores.score import MOST_NOTES, TEMPI, Lyric, Note, Part, Score, make, syllable

_NOTE = re.compile(r"([:*FRG])\s+(-?\d{1,9})\s+(\d{1,9})\s+(-?\d{1,3})(?: (.*))?$")


def read(text: str) -> Score:
    """A score from an UltraStar file."""
    head: dict[str, str] = {}
    parts: dict[str, list[Note]] = {}
    notes = parts.setdefault("", [])
    joined: list[str] = []  # how the words were written, to know where they end
    shift, left_out = 0, 0
    for place, line in enumerate(text.splitlines(), 1):
        line = line.lstrip("\ufeff")
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            head[key.strip().upper()] = value.strip()
        elif re.match(r"P ?\d", line):
            _end_words(notes, joined)
            notes = parts.setdefault(f"singer {line[1:].strip()}", [])
            joined, shift = [], 0
        elif line.startswith("-"):  # a line of the song ends; in relative files its time begins anew
            numbers = line[1:].split()
            if head.get("RELATIVE", "").upper() == "YES" and len(numbers) > 1:
                shift += int(numbers[1]) if numbers[1].lstrip("-").isdecimal() else 0
            if joined:
                joined[-1] += " "
        elif line.startswith("E"):
            break
        elif found := _NOTE.match(line):
            kind, begin, length, pitch = found[1], int(found[2]), int(found[3]), int(found[4])
            if kind in "FRG" or not length:
                left_out += 1
                continue
            if len(notes) >= MOST_NOTES:
                raise ScoreError(f"the song has more than {MOST_NOTES} notes; cut it into songs")
            written = found[5] or ""
            lyric = syllable(written.replace("~", ""))
            if lyric is None:
                if joined and written.endswith(" "):
                    joined[-1] += " "
            else:
                if joined and written.startswith(" "):
                    joined[-1] += " "
                joined.append(written)
            notes.append(Note((begin + shift) / 4, length / 4, 60 + pitch, (lyric,)))
        elif line.strip():
            raise ScoreError(
                f"line {place} is no UltraStar note; one is a sign, start, length, pitch and text, as in "
                "': 0 4 2 Hel'"
            )
    _end_words(notes, joined)
    if not any(parts.values()):
        why = "; the notes it has are spoken or rapped" if left_out else ""
        raise ScoreError(f"the UltraStar file has no sung note{why}")
    tempo, finer = _tempo(head.get("BPM", ""))
    begin = min(note.begin for notes in parts.values() for note in notes)
    moved = {
        name: tuple(Note((n.begin - begin) / finer, n.beats / finer, n.pitch, n.lyrics) for n in notes)
        for name, notes in parts.items()
    }
    return make(
        head.get("TITLE", ""),
        [(0.0, tempo)],
        [Part(name or "voice", notes) for name, notes in moved.items()],
    )


def _tempo(written: str) -> tuple[float, int]:
    """The tempo, and by what to divide times: files double a tempo, again and again, for finer times."""
    try:
        tempo = float(written.replace(",", "."))
    except ValueError:
        raise ScoreError("the UltraStar file has no tempo; write a line such as '#BPM:120'") from None
    finer = 1
    while TEMPI[1] < tempo < math.inf:
        tempo, finer = tempo / 2, finer * 2
    return tempo, finer


def _end_words(notes: list[Note], written: list[str]) -> None:
    """Say of every syllable whether its word goes on: no space stands between it and the next one."""
    places = [i for i, note in enumerate(notes) if note.lyrics[0]]
    for number, i in enumerate(places):
        lyric = notes[i].lyrics[0]
        last = number == len(places) - 1
        if lyric is not None:
            goes_on = not last and (lyric.joins or not written[number].endswith(" "))
            note = notes[i]
            notes[i] = Note(note.begin, note.beats, note.pitch, (Lyric(lyric.text, goes_on),))
