"""From words to sound, for every voice that is open in the middle: plan, render, shape.

words -> symbols -> runs -> the voice's own lengths -> the style's lengths -> the voice's melody for them ->
the dialect's tones -> the style's melody -> audio of the voice -> loudness, tilt, whisper, tempo
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Span
from stepaudio.core.style import SpeechStyle
from stepaudio.core.tags import PAUSES_MS
from stepaudio.tts import dialects, modes, sounds
from stepaudio.tts.base import Draft, ProsodyModel, Speech, Voice
from stepaudio.tts.effects import Effects
from stepaudio.tts.expression import Expression, express, expression
from stepaudio.tts.prosody import (
    FRAME,
    RATE,
    SILENT,
    PlannedWord,
    ProsodyPlan,
    audible,
    layout,
    runs,
    sounding,
    whole_frames,
)

if TYPE_CHECKING:
    from stepaudio.tts.text import SpokenWord
    from stepaudio.tts.text.tones import Tone

MOST_TEMPO = 1.2
"""No sound is spoken faster than so many times; beyond, the audio is played faster. The networks know no
sound of less than 25 ms: at 1.5, am_michael's errors rise by 13.6 points without this, and by 3.4 with it
(six sentences of ``bench voice --only speed``)."""
CORRECTIONS = 3
"""Times that lengths are drawn anew to keep a tempo."""
CLOSE = 0.005
"""How near to the tempo is near enough."""


def plan(
    model: ProsodyModel, words: Sequence[SpokenWord], clause: Clause, voice: Voice
) -> Iterator[ProsodyPlan]:
    """How a clause is to sound: one plan, or several when it is long. None when there is nothing to say."""
    begins = _begins(words, clause.text)
    words = _pronounced(words, begins, clause.spans)
    if clause.style.mode in modes.MODES:
        yield from modes.plan(model, words, clause, voice)
        return
    symbols, places = layout([word.phonemes for word in words], model.vocabulary)
    if all(symbol in SILENT for symbol in symbols):
        return
    styles = [
        _within([span for span in clause.spans if span.begin <= begin < span.end], clause.style)
        for begin in begins
    ]
    pauses = [(bisect_left(begins, span.begin), span) for span in clause.spans if span.pause_ms or span.sound]
    expressions = [expression(style) for style in styles]
    breaths = [float(style.mode == "whisper") for style in styles]
    for first, stop in runs(symbols, model.limit):
        inside = [i for i, (begin, _) in enumerate(places) if first <= begin < stop]
        planned = [
            PlannedWord(words[i].written, places[i][0] - first, min(places[i][1], stop) - first)
            for i in inside
        ]
        # A word's expression also holds for the signs after it, and the first one's for the silence before.
        owner = np.zeros(stop - first + 2, int)
        for i, word in zip(inside, planned, strict=True):
            owner[word.begin + 1 :] = i
        owner[: planned[0].begin + 2 if planned else 1] = inside[0] if inside else 0
        breaks = _Breaks(np.zeros(stop - first + 2), [])
        for i, pause in pauses:
            place = places[i][0] if i < len(words) else len(symbols)
            if first <= place < stop or place == stop == len(symbols):
                breaks.add(place - first if i < len(words) else -1, pause)
        yield _plan_run(
            model,
            symbols[first:stop],
            tuple(planned),
            [tone.moved(places[i][0] - first) for i in inside for tone in words[i].tones],
            [expressions[i] for i in owner],
            np.array([breaths[i] for i in owner]),
            breaks,
            voice,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Breaks:
    """Silence that is asked for in a run.

    Attributes:
        frames: (symbols + 2,) that every symbol lasts longer.
        sounds: the places in it where something is heard in the silence, and what.
    """

    frames: np.ndarray
    sounds: list[tuple[int, str]]

    def add(self, place: int, pause: Span) -> None:
        place %= len(self.frames)
        self.frames[place] += min(pause.pause_ms or 0, PAUSES_MS[1]) * RATE / 1000 / FRAME
        if pause.sound in sounds.FRAMES:
            self.frames[place] += sounds.FRAMES[pause.sound] + 2
            self.sounds.append((place, pause.sound))


def _plan_run(
    model: ProsodyModel,
    symbols: str,
    words: tuple[PlannedWord, ...],
    tones: Sequence[Tone],
    expressions: Sequence[Expression],
    breath: np.ndarray,
    breaks: _Breaks,
    voice: Voice,
) -> ProsodyPlan:
    draft = model.draft(symbols, voice)
    tempo = np.array([e.tempo for e in expressions])
    lengths, stretch = _paced(draft, tempo, breaks.frames)
    pitch, energy = draft.contours(lengths)
    nothing = np.zeros(2 * int(lengths.sum()), np.float32)
    heard = audible(symbols, energy, float(tempo.mean()) / stretch)
    planned = ProsodyPlan(symbols, lengths, pitch, energy, nothing, nothing, nothing, words, heard, stretch)
    return express(_broken(dialects.draw(planned, tones), breaks), expressions, breath)


def _paced(draft: Draft, tempo: np.ndarray, pauses: np.ndarray) -> tuple[np.ndarray, float]:
    """Whole lengths at a tempo, and how many times faster than these the audio is to be played.

    One tempo for all is kept by what is heard: with other lengths, a voice also begins and ends at another
    place in the silence around.

    Args:
        draft: of a run.
        tempo: for every symbol, the silences included.
        pauses: frames that every symbol lasts longer, at any tempo.
    """
    plain = np.maximum(1, np.round(draft.lengths)).astype(np.int64)  # as the network would round them
    if (tempo == 1).all():
        return (whole_frames(plain + pauses) if pauses.any() else plain), 1.0
    mean = float(plain.sum() / (plain / tempo).sum())
    stretch = max(1.0, mean / MOST_TEMPO)

    def drawn(scale: float) -> np.ndarray:
        return whole_frames((plain / tempo * scale + pauses) * stretch)

    lengths = drawn(1.0)
    if (tempo != tempo[0]).any():
        return lengths, stretch
    wanted = (_spoken(draft, plain) / mean + pauses[1:-1].sum()) * stretch
    scale, off = 1.0, _spoken(draft, lengths) / wanted
    last = off
    for _ in range(CORRECTIONS):
        if abs(last - 1) < CLOSE:
            break
        scale = min(max(scale / last, 0.8), 1.25)
        other = drawn(scale)
        last = _spoken(draft, other) / wanted
        if abs(last - 1) < abs(off - 1):
            lengths, off = other, last
    # What whole frames cannot give, the audio gives; a played speed of nearly 1 is not worth its blur.
    exact = stretch * off
    return lengths, exact if exact > 1 + CLOSE else 1.0


def _spoken(draft: Draft, lengths: np.ndarray) -> int:
    first, stop = sounding(draft.contours(lengths)[1])
    return stop - first


def _broken(planned: ProsodyPlan, breaks: _Breaks) -> ProsodyPlan:
    """The plan with its pauses: nothing is heard in them but for the ends of the sounds around."""
    if not breaks.frames.any():
        return planned
    gain = planned.gain.copy()
    ends = np.cumsum(planned.lengths)
    begins = ends - planned.lengths
    for place in np.flatnonzero(breaks.frames):
        gain[2 * begins[place] + 4 : 2 * ends[place] - 3] = -90
    before, after = math.ceil(breaks.frames[0]), math.ceil(breaks.frames[-1])
    heard = (max(0, planned.heard[0] - before), min(planned.frames, planned.heard[1] + after))
    if before:  # its silence is the last of what comes before the first word
        gain[: 2 * planned.heard[0]] = -90
    if after:
        gain[2 * planned.heard[1] :] = -90
    made = []
    for place, name in breaks.sounds:
        begin = (
            heard[0] if place == 0 else planned.heard[1] if place == len(begins) - 1 else begins[place] + 2
        )
        made.append((int(begin), name))
    return planned.edit(gain=gain, heard=heard, sounds=tuple(made))


def _begins(words: Sequence[SpokenWord], text: str) -> list[int]:
    """Where each word begins in the text."""
    at, begins = 0, []
    for word in words:
        found = text.find(word.written, at)
        begins.append(at if found < 0 else found)
        at = at if found < 0 else found + len(word.written)
    return begins


def _pronounced(
    words: Sequence[SpokenWord], begins: Sequence[int], spans: Sequence[Span]
) -> Sequence[SpokenWord]:
    """The words, in phonemes where a span gives them: its first word says them, the others are silent."""
    changed = list(words)
    for span in spans:
        inside = [i for i, begin in enumerate(begins) if span.begin <= begin < span.end]
        if span.phonemes and inside:
            last = words[inside[-1]].phonemes
            signs = last[len(last.rstrip(SILENT)) :]
            for i in inside:
                changed[i] = replace(words[i], phonemes="", tones=())
            changed[inside[0]] = replace(changed[inside[0]], phonemes=span.phonemes + signs)
    return changed


def _within(spans: Sequence[Span], style: SpeechStyle) -> SpeechStyle:
    for span in spans:  # the innermost one comes last
        style = span.style.over(style)
    return style


def perform(model: ProsodyModel, plans: Iterable[ProsodyPlan], voice: Voice) -> Iterator[Speech]:
    """Speak plans, one after the other, as one clause."""
    done = 0  # samples
    for number, planned in enumerate(plans):
        effects = Effects(planned)
        marks = planned.marks(1000 * done / RATE)
        rendered = model.render(planned, voice, soon=number == 0)
        left = (planned.heard[1] - planned.heard[0]) * FRAME
        for samples in rendered:
            left -= len(samples)
            shaped = effects.push(samples)
            if left <= 0:
                shaped = np.concatenate([shaped, effects.flush()])
            end_ms = 1000 * (done + len(shaped)) / RATE
            now = len(marks) if left <= 0 else sum(mark.start_ms < end_ms for mark in marks)
            if len(shaped):
                yield Speech(AudioChunk(shaped, RATE, done), tuple(marks[:now]))
                del marks[:now]
            done += len(shaped)
