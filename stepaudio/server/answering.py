"""One answer on its way to the listener: what was made of it, what is to be sent when, where the time went.

Knows neither the models that make it nor the session that hears of it: the one gives it ``ResponseEvent``,
the other takes what ``due`` gives. The clock is an argument.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from stepaudio.core import commands as act
from stepaudio.core.audio import AudioChunk, float_to_pcm16, pcm16_to_float
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.errors import ConfigError
from stepaudio.core.resampling import SincResampler
from stepaudio.llm.base import PromptRead, TextDelta
from stepaudio.respond import AudioDelta, ClauseStarted, Done, ResponseEvent, Spoken, ToolCalled
from stepaudio.server.pacing import Pacer
from stepaudio.timeline import Timeline

MADE_AHEAD_S = 4.0
"""Audio of an answer that is made before it is sent; more is not needed and may never be heard."""
PLAYED_EVERY_MS = 100
"""How often the session is told what was heard."""
WANTED_S = 0.6
"""After the end of the speech, the first audio is wanted: the deadline of what leads to it."""
BESIDE_S = 10.0
"""Later than others is wanted what is outside the conversation: who talks goes first, but not for ever."""
FAILED = "The answer failed on the server; ask again."

_RECEIPT = (
    # what, from, to. A draft is made while silence is awaited: "vad" overlaps the others.
    ("vad", "speech_end", "decision"),
    ("asr", "begun", "transcript"),
    ("llm_ttft", "transcript", "first_token"),
    ("first_clause", "first_token", "first_clause"),
    ("tts_ttfa", "first_clause", "first_audio"),
    ("first_audio", "decision", "sent"),
    ("voice_to_voice", "speech_end", "sent"),
)


@dataclass(slots=True)
class _Span:
    """A piece of audio in the pacer: whose clause, how many samples are left, words not yet told."""

    clause: Clause
    samples: int
    marks: list[Mark]


class Answer:
    """A response under way.

    Args:
        command: what to answer, and how.
        clock: seconds, monotonic.
        speech_end: when the user's speech ended; None: it answers no speech.

    Attributes:
        pacer: its audio.
        timeline: when what happened.
        wanted_at: when the listener would like to hear it, seconds on the clock.
        released: whether it may be sent.
        heard: the words that it answers, by the start of the turn.
        told: whether ``due`` has given the end.
        progress: when something last came of it.
        room: set while more audio may be made.
        sound_at: when the sound began for which it is held.
        sent_at: when audio was last given.
        task: that makes it.
    """

    def __init__(
        self, command: act.StartResponse, clock: Callable[[], float], speech_end: float | None
    ) -> None:
        self.command, self._clock, self._speech_end = command, clock, speech_end
        self.released = not command.draft
        self.wanted_at = (clock() if speech_end is None else speech_end) + WANTED_S
        if command.beside:
            self.wanted_at += BESIDE_S
        self.heard: dict[int, str] = {}
        self.told = False
        self.room = asyncio.Event()
        self.sound_at: float | None = None
        self.sent_at = 0.0
        self.task: asyncio.Task[None] | None = None
        self._decided = clock() if self.released else None
        self._played_ms = 0
        self._timed: act.ResponseTimed | None = None
        self.begin()

    @property
    def id(self) -> str:
        """Of the response."""
        return self.command.response_id

    @property
    def is_made(self) -> bool:
        """Whether no more of it will be made."""
        return self._end is not None

    def begin(self) -> None:
        """It is made from the start (again: nothing was sent yet)."""
        self.pacer = Pacer(self.command.output_rate)
        self.timeline = Timeline(self._clock)
        self.timeline.stamp("begun")
        if self._decided is not None:
            self.timeline.stamp("decision", self._decided)
        if self._speech_end is not None:
            self.timeline.stamp("speech_end", self._speech_end)
        self.heard.clear()
        self.progress = self._clock()
        self.room.set()
        self._spans: deque[_Span] = deque()
        self._others: deque[act.ResponseText | act.ResponseToolCall] = deque()
        self._end: act.ResponseFinished | None = None
        self._usage = act.TokenUsage()  # until now
        self._waited_s = 0.0

    def release(self) -> None:
        """It may be sent."""
        self.released = True
        self._decided = self._clock()
        self.timeline.stamp("decision", self._decided)

    # What is made

    def deadline(self) -> float:
        """When its next piece is needed, seconds on the clock."""
        if not self.pacer.sent and not self.pacer.queued_s:
            return self.wanted_at
        return self.pacer.runs_dry_at(self._clock())

    def waited(self, seconds: float) -> None:
        """The voice had to wait for its turn."""
        if self.timeline.at("first_audio") is None:
            self._waited_s += seconds

    def made(self, event: ResponseEvent) -> None:
        """More was made."""
        self.progress = self._clock()
        match event:
            case PromptRead(tokens, cached):
                self._usage = replace(self._usage, input_text=tokens, cached=cached)
            case TextDelta(text):
                self.timeline.stamp("first_token")
                # A token each, but for signs of several tokens and tags, which are no text.
                self._usage = replace(self._usage, output_text=self._usage.output_text + 1)
                if self.command.modality == "text":
                    self._others.append(act.ResponseText(self.id, text))
            case ClauseStarted():
                self.timeline.stamp("first_clause")
            case AudioDelta(clause, audio, marks):
                self.timeline.stamp("first_audio")
                samples = _at_rate(audio, self.pacer.rate)
                self.pacer.push(samples)
                self._spans.append(_Span(clause, len(samples), list(marks)))
                if self.pacer.queued_s > MADE_AHEAD_S:
                    self.room.clear()
            case Spoken():
                pass
            case ToolCalled(call):
                self._others.append(act.ResponseToolCall(self.id, call.call_id, call.name, call.arguments))
            case Done():
                self._finish(_end(self.id, event, self._usage))
            case _:
                assert_never(event)

    def nothing_to_say(self) -> None:
        """Nothing was asked."""
        self._finish(act.ResponseFinished(self.id))

    def fail(self, error: BaseException) -> None:
        """The rest will not come. What was made is still heard."""
        self._finish(_failed(self.id, self._usage, error))

    def _finish(self, end: act.ResponseFinished) -> None:
        self._end = end
        self.pacer.end()

    # What is sent

    def due(self, now: float) -> Iterator[act.EngineEvent]:
        """What the session is to be told now, in order. Stop asking when it has stopped the answer."""
        if not self.released:
            return
        while self._others:
            yield self._others.popleft()
        while (block := self.pacer.take(now)) is not None:
            yield self._audio(block)
        if self.pacer.queued_s <= MADE_AHEAD_S:
            self.room.set()
        if self._end is not None and self.pacer.is_done and not self.told:
            self.told = True
            yield replace(self._end, timings_ms=self.receipt())
        usage = self._end.usage if self._end else self._usage
        timed = act.ResponseTimed(self.id, self.receipt(), usage)
        if timed != self._timed and not self.told:
            self._timed = timed
            yield timed
        yield from self.played(now)

    def played(self, now: float) -> Iterator[act.Played]:
        """What was heard, where there is news of it."""
        ms = self.pacer.heard_ms(now) if self.pacer.sent else 0
        news = self.is_over(now) or not self._played_ms or ms >= self._played_ms + PLAYED_EVERY_MS
        if ms > self._played_ms and news:
            self._played_ms = ms
            yield act.Played(self.id, ms)

    def is_over(self, now: float) -> bool:
        """Whether it was told, and heard, to its end."""
        return self.told and self.pacer.is_heard(now)

    def due_at(self, now: float) -> float:
        """When ``due`` has something next, seconds on the clock; infinite until something changes."""
        if not self.released:
            return math.inf
        if self.pacer.sent:
            return min(self.pacer.due_at(now), now + PLAYED_EVERY_MS / 1000)
        return self.pacer.due_at(now)

    def receipt(self) -> dict[str, float]:
        """Where the time went, ms: ``metrics.STAGES``, and what ``_RECEIPT`` has besides."""
        at = self.timeline.at
        receipt = {
            name: round(1000 * (end - begin), 1)
            for name, first, last in _RECEIPT
            if (begin := at(first)) is not None and (end := at(last)) is not None
        }
        return receipt | {"queue": round(1000 * self._waited_s, 1)} if receipt else {}

    def _audio(self, block: np.ndarray) -> act.ResponseAudio:
        self.timeline.stamp("sent")
        self.sent_at = self._clock()
        span, rate, sent = self._spans[0], self.pacer.rate, self.pacer.sent
        marks = [mark for mark in span.marks if mark.start_ms < 1000 * sent / rate]
        del span.marks[: len(marks)]
        span.samples -= len(block)
        if not span.samples:
            marks += span.marks
            self._spans.popleft()
        # As it will be on the wire: a recording holds it so, and its echo is looked for again in a replay.
        samples = pcm16_to_float(float_to_pcm16(block))
        chunk = AudioChunk(samples, rate, sent - len(block))
        return act.ResponseAudio(self.id, chunk, span.clause, tuple(marks))


def _end(response_id: str, done: Done, usage: act.TokenUsage) -> act.ResponseFinished:
    if (finished := done.finished) is not None:
        usage = act.TokenUsage(
            input_text=finished.prompt_tokens,
            cached=finished.cached_tokens,
            output_text=finished.completion_tokens,
        )
    if done.error is not None:
        return _failed(response_id, usage, done.error)
    return act.ResponseFinished(response_id, done.status, usage)


def _failed(response_id: str, usage: act.TokenUsage, error: BaseException) -> act.ResponseFinished:
    """What the client asked for is told in full; what is the server's fault, is not."""
    code, message = (
        ("invalid_value", str(error)) if isinstance(error, ConfigError) else ("server_error", FAILED)
    )
    return act.ResponseFinished(response_id, "failed", usage, error_code=code, error_message=message)


def _at_rate(audio: AudioChunk, rate: int) -> np.ndarray:
    if audio.rate == rate:
        return audio.samples
    resampler = SincResampler(audio.rate, rate)
    return np.concatenate([resampler.push(audio.samples), resampler.flush()])
