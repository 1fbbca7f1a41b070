"""Clauses that are sung, hummed or rapped: what a talk asks for with a tag alone.

Words that are a known song have its tune; for others one is made by rule. A rap has a line for every phrase.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stepaudio.core.clauses import Clause
from stepaudio.core.tags import SPEEDS
from stepaudio.tts import rap, tunes
from stepaudio.tts.base import ProsodyModel, Voice
from stepaudio.tts.prosody import PHRASE_ENDS, PlannedWord, ProsodyPlan
from stepaudio.tts.singing import (
    COMFORT,
    Phrase,
    Sung,
    Tone,
    fitting,
    joined,
    spoken_pitch,
    sung,
    symbols_of,
)
from stepaudio.tts.syllables import VOWELS, Syllable, syllables

if TYPE_CHECKING:
    from stepaudio.tts.text import SpokenWord

MODES = frozenset({"sing", "hum", "rap"})
_LONGEST = 14
"""Syllables of a phrase; what is longer is cut in two."""
_VOWELS = "".join(sorted(VOWELS))
_SAD = frozenset({"sad", "fearful", "angry"})
"""Emotions that are sung in a minor key."""


def plan(
    model: ProsodyModel, words: Sequence[SpokenWord], clause: Clause, voice: Voice
) -> Iterator[ProsodyPlan]:
    """A clause whose style has one of ``MODES``, as plans that follow each other in time."""
    words = [word for word in words if word.phonemes.strip(PHRASE_ENDS + " ")]
    if not words:
        return
    speed = min(max(clause.style.speed or 1.0, SPEEDS[0]), SPEEDS[1])
    songs = (
        _rapped(model, words, voice, speed)
        if clause.style.mode == "rap"
        else _sung(model, words, clause, voice, speed)
    )
    for planned in joined(songs):
        gain = np.clip(planned.gain + (clause.style.volume or 0.0), -90, 24).astype(np.float32)
        yield planned.edit(gain=gain)


def _rapped(model: ProsodyModel, words: Sequence[SpokenWord], voice: Voice, speed: float) -> list[Sung]:
    low, high = rap.BPM_RANGE
    bpm = min(max(rap.BPM * speed, low), high)
    at, songs = 0.0, []
    groups: list[list[SpokenWord]] = []
    for group in phrases(words):  # short phrases share a bar
        if groups and _size([*groups[-1], *group]) < rap.FULL:
            groups[-1] += group
        else:
            groups.append(list(group))
    for group in groups:
        line, bars = rap.line(model, group, voice, bpm, at)
        songs.append(rap.rapped(model, line, voice))
        at += bars * rap.BAR * 15 / bpm
    return songs


def _sung(
    model: ProsodyModel, words: Sequence[SpokenWord], clause: Clause, voice: Voice, speed: float
) -> list[Sung]:
    known = tunes.known(" ".join(word.written for word in words))
    groups = _known_groups(words, known) if known else None
    if known and groups:
        drafts = [_syllables(model, group) for group in groups]
        lines = [
            tunes.for_name(phrase, len(found))
            for (_, _, found), (_, phrase) in zip(drafts, known, strict=True)
        ]
        beats, tempo = [phrase.beats for _, phrase in known], known[0][1].tempo
    else:
        groups = phrases(words)
        drafts = [_syllables(model, group) for group in groups]
        minor = clause.style.emotion in _SAD
        stresses = [[syllable.stress for syllable in found] for _, _, found in drafts]
        lines = tunes.composed(stresses, tunes.bare(clause.text), minor=minor)
        beats = [4.0 * -(-(line[-1].begin + line[-1].beats) // 4) for line in lines]
        tempo = tunes.TEMPO
    beat_s, at, songs = 60 / tempo / speed, 0.0, []
    for (symbols, places, found), group, line, length in zip(drafts, groups, lines, beats, strict=True):
        planned = tuple(PlannedWord(word.written, *place) for word, place in zip(group, places, strict=True))
        tones = _tones(line, at, beat_s, len(found))
        songs.append(Phrase(symbols, planned, tuple(found), tones))
        at += length * beat_s
    shift = fitting(
        [tone for song in songs for own in song.tones for tone in own],
        spoken_pitch(model, songs, voice),
        COMFORT[voice.engine],
    ) + (clause.style.pitch or 0.0)
    if clause.style.mode == "hum":
        songs = [hum(song) for song in songs]
    return [sung(model, song, voice, shift) for song in songs]


def _syllables(
    model: ProsodyModel, words: Sequence[SpokenWord]
) -> tuple[str, list[tuple[int, int]], list[Syllable]]:
    symbols, places = symbols_of(words, model.vocabulary)
    return symbols, places, syllables(symbols, places, [word.language for word in words])


def _tones(
    line: Sequence[tunes.TuneNote], begin_s: float, beat_s: float, count: int
) -> tuple[tuple[Tone, ...], ...]:
    """The tones of every syllable; a breath is taken from the end of the last one."""
    found: list[list[Tone]] = []
    for note in line:
        first = begin_s + note.begin * beat_s
        tone = Tone(first, first + note.beats * beat_s, note.pitch)
        if note.held and found:
            found[-1].append(tone)
        else:
            found.append([tone])
    last = found[-1][-1]
    found[-1][-1] = replace(last, end=last.end - min(0.25, 0.3 * (last.end - last.begin)))
    return tuple(tuple(own) for own in found[:count])


def hum(phrase: Phrase) -> Phrase:
    """The same tune without words: an m for every syllable. Its words are marked where they would be."""
    count = len(phrase.syllables)
    found = tuple(
        Syllable(i, i, i + 1, i + 1, syllable.word, 0) for i, syllable in enumerate(phrase.syllables)
    )
    words = []
    for number, word in enumerate(phrase.words):
        own = [i for i, syllable in enumerate(phrase.syllables) if syllable.word == number]
        begin = own[0] if own else (words[-1].end if words else 0)
        words.append(PlannedWord(word.written, begin, own[-1] + 1 if own else begin))
    return Phrase("m" * count, tuple(words), found, phrase.tones)


def phrases(words: Sequence[SpokenWord]) -> list[list[SpokenWord]]:
    """Words cut where a sign stands after one; what is very long is cut in two, again and again."""
    groups: list[list[SpokenWord]] = [[]]
    for word in words:
        groups[-1].append(word)
        if word.phonemes.rstrip()[-1:] in PHRASE_ENDS and word is not words[-1]:
            groups.append([])
    found: list[list[SpokenWord]] = []
    for group in groups:
        found += _halved(group)
    return found


def _size(group: Sequence[SpokenWord]) -> int:
    """About how many syllables words have: runs of vowels."""
    return sum(max(1, len(re.findall(f"[{_VOWELS}]+", word.phonemes))) for word in group)


def _halved(group: list[SpokenWord]) -> list[list[SpokenWord]]:
    sizes = [_size([word]) for word in group]
    if sum(sizes) <= _LONGEST or len(group) < 2:
        return [group]
    total, at, cut = sum(sizes), 0, 1
    for i, size in enumerate(sizes[:-1]):
        at += size
        if at * 2 <= total + size:
            cut = i + 1
    return _halved(group[:cut]) + _halved(group[cut:])


def _known_groups(
    words: Sequence[SpokenWord], known: Sequence[tuple[str, tunes.Known]]
) -> list[list[SpokenWord]] | None:
    """The words of every phrase of a known song."""
    groups: list[list[SpokenWord]] = []
    at = 0
    for taken, _ in known:
        group: list[SpokenWord] = []
        while at < len(words) and len(tunes.bare(" ".join(w.written for w in group))) < len(taken):
            group.append(words[at])
            at += 1
        if not group or tunes.bare(" ".join(word.written for word in group)) != taken:
            return None
        groups.append(group)
    return groups if at == len(words) else None
