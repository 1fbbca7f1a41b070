"""From words to sound, for every voice that is open in the middle: plan, render, shape.

words -> symbols -> runs -> the voice's own lengths -> the style's lengths -> the voice's melody for them ->
the style's melody -> audio of the voice -> loudness, tilt, whisper, tempo
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Span
from stepaudio.core.style import SpeechStyle
from stepaudio.tts.base import ProsodyModel, Speech, Voice
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
    whole_frames,
)

if TYPE_CHECKING:
    from stepaudio.tts.text import SpokenWord

PAUSES_MS = (0, 10_000)
"""Shortest and longest pause within a clause."""


def plan(
    model: ProsodyModel, words: Sequence[SpokenWord], clause: Clause, voice: Voice
) -> Iterator[ProsodyPlan]:
    """How a clause is to sound: one plan, or several when it is long. None when there is nothing to say."""
    symbols, places = layout([word.phonemes for word in words], model.vocabulary)
    if all(symbol in SILENT for symbol in symbols):
        return
    styles, pauses = _of_words(words, clause)
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
        stops = np.zeros(stop - first + 2)
        for i, pause_ms in pauses.items():
            if first < places[i][0] < stop:
                stops[places[i][0] - first] += pause_ms * RATE / 1000 / FRAME
        yield _plan_run(
            model,
            symbols[first:stop],
            tuple(planned),
            [expressions[i] for i in owner],
            np.array([breaths[i] for i in owner]),
            stops,
            voice,
        )


def _plan_run(
    model: ProsodyModel,
    symbols: str,
    words: tuple[PlannedWord, ...],
    expressions: Sequence[Expression],
    breath: np.ndarray,
    pauses: np.ndarray,
    voice: Voice,
) -> ProsodyPlan:
    draft = model.draft(symbols, voice)
    tempo = np.array([e.tempo for e in expressions])
    stretch = 1.0
    if (tempo == 1).all() and not pauses.any():
        lengths = np.maximum(1, np.round(draft.lengths)).astype(np.int64)  # as the network would round them
    else:
        exact = draft.lengths / tempo + pauses
        lengths = whole_frames(exact)
        stretch = max(1.0, float(lengths.sum() / exact.sum()))
        stretch = stretch if stretch > 1.005 else 1.0
    pitch, energy = draft.contours(lengths)
    steps = 2 * int(lengths.sum())
    nothing = np.zeros(steps, np.float32)
    heard = audible(symbols, energy)
    planned = ProsodyPlan(symbols, lengths, pitch, energy, nothing, nothing, nothing, words, heard, stretch)
    return express(_silenced(planned, pauses), expressions, breath)


def _silenced(planned: ProsodyPlan, pauses: np.ndarray) -> ProsodyPlan:
    """Nothing is heard in a pause but for the ends of the sounds around it."""
    if not pauses.any():
        return planned
    gain = planned.gain.copy()
    ends = np.cumsum(planned.lengths)
    for i in np.flatnonzero(pauses):
        begin, end = 2 * (ends[i] - planned.lengths[i]) + 4, 2 * ends[i] - 3
        gain[begin:end] = -90
    return planned.edit(gain=gain)


def _of_words(words: Sequence[SpokenWord], clause: Clause) -> tuple[list[SpeechStyle], dict[int, float]]:
    """The style of every word, and the pauses (ms) before words, by their place."""
    at, styles, pauses = 0, [], dict[int, float]()
    begins = []
    for word in words:
        found = clause.text.find(word.written, at)
        begin = at if found < 0 else found
        begins.append(begin)
        at = begin + len(word.written) if found >= 0 else at
        inside = [span for span in clause.spans if span.begin <= begin < span.end]
        styles.append(_within(inside, clause.style))
    for span in clause.spans:
        if span.pause_ms:
            before = next((i for i, begin in enumerate(begins) if begin >= span.begin), None)
            if before:
                pauses[before] = pauses.get(before, 0) + min(span.pause_ms, PAUSES_MS[1])
    return styles, pauses


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
