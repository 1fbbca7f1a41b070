"""How much at once: talks that this machine can hold, requests, and what one key may take.

The decisions are pure (``talks_of``, ``Bucket``), the clock an argument. The machine's speed is measured when
the service starts (``measure``); a talk that would make all others stutter is refused, with the time after
which another try makes sense.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.core.audio import AudioChunk, join, resample
from stepaudio.core.clauses import Clause
from stepaudio.core.conversation import Message
from stepaudio.core.errors import BackendError
from stepaudio.core.style import SpeechStyle
from stepaudio.llm.base import Finished, Sampling, TextDelta
from stepaudio.recognition.base import RATE
from stepaudio.server.auth import Caller
from stepaudio.server.errors import ApiError

if TYPE_CHECKING:
    from stepaudio.engine import Engine

MB = 1_000_000
JSON_BYTES = MB
"""Largest JSON request without audio in it."""
SPEECH_CHARACTERS = 4096
"""Longest text of one ``/v1/audio/speech`` (OpenAI's number; about five minutes)."""
JOBS = 32
"""HTTP requests that are worked on, or wait for a model, at the same time; the next is refused."""
RETRY_S = 5
"""After which a refused client should try again: about one turn of a talk."""
BUCKETS = 10_000
"""Callers whose rate is remembered."""


def too_large(most_bytes: int, what: str = "request") -> ApiError:
    """The refusal of what has more bytes than are taken."""
    message = f"the {what} is larger than {most_bytes / MB:g} MB; send less at once"
    return ApiError(413, message, code="request_too_large")


# What this machine can hold


@dataclass(frozen=True, slots=True)
class Paces:
    """How fast the parts work on this machine, alone.

    Attributes:
        activity: seconds of work for a second of sound (voice activity).
        hearing: the same for recognition.
        speaking: the same for the voice.
        first_token_s: seconds until the model begins to answer a short question.
        tokens_per_s: of the model, when it writes.
    """

    activity: float
    hearing: float
    speaking: float
    first_token_s: float
    tokens_per_s: float


USER_S, AGENT_S, PAUSE_S = 4.0, 4.0, 1.0
"""A turn of a talk, in seconds: the user speaks, the answer is spoken, and silence between them."""
ANSWER_TOKENS = 20
"""An answer of ``AGENT_S``: some 15 words, and the last token."""
HEARD_TWICE = 2.0
"""Recognition runs over what grew while the user speaks, and once at the end: each second about twice."""
MOST_LOAD = 0.7
"""Share of the time in which the machine may be busy. Turns come at random; above this, waits grow steeply
(with one server at a load of 0.7 the mean wait is already 1.2 times a job, at 0.9 it is 4.5: M/D/1)."""


def talks_of(paces: Paces) -> int:
    """Talks that can be held at the same time without stuttering; at least one.

    Work of one turn over the length of one turn is the load of one talk. The paces were measured with the
    whole machine to themselves, so the loads of talks add up.
    """
    work_s = (
        paces.activity * (USER_S + AGENT_S + PAUSE_S)
        + paces.hearing * USER_S * HEARD_TWICE
        + paces.first_token_s
        + ANSWER_TOKENS / paces.tokens_per_s
        + paces.speaking * AGENT_S
    )
    return max(1, math.floor(MOST_LOAD * (USER_S + AGENT_S + PAUSE_S) / work_s))


MEASURED_TOKENS = 24
"""What the model writes while it is measured."""
_SENTENCE = "The house stands on a hill, and from its windows one can see the river and the town behind it."
_QUESTION = "Tell me in one long sentence what a river is."


async def measure(engine: Engine) -> Paces:
    """Measure this machine with a sentence that it speaks, hears and answers; takes 2 to 4 s.

    The engine should be warm, and nothing else run on it.
    """
    speech, speaking_s = await asyncio.to_thread(_timed, lambda: _speak(engine))
    heard = resample(speech, RATE)
    _, hearing_s = await asyncio.to_thread(
        _timed, lambda: engine.recognizer.transcribe(heard, language="en", mode="fast")
    )
    _, activity_s = await asyncio.to_thread(_timed, lambda: _listen(engine, heard))
    first_token_s, tokens_per_s = await _write(engine)
    return Paces(
        activity=activity_s / heard.seconds,
        hearing=hearing_s / heard.seconds,
        speaking=speaking_s / speech.seconds,
        first_token_s=first_token_s,
        tokens_per_s=tokens_per_s,
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return work(), time.monotonic() - began


def _speak(engine: Engine) -> AudioChunk:
    clause = Clause(0, _SENTENCE, SpeechStyle(dialect="en"))
    return join(piece.audio for piece in engine.speaker.speak(clause))


def _listen(engine: Engine, audio: AudioChunk) -> None:
    stream, size = engine.vad.stream(), 512
    for at in range(0, len(audio.samples) - size + 1, size):
        stream.push(AudioChunk(np.ascontiguousarray(audio.samples[at : at + size]), audio.rate, at))


async def _write(engine: Engine) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second after it."""
    began = first = last = time.monotonic()
    pieces = tokens = 0
    messages = [engine.system, Message("user", _QUESTION)]
    async with aclosing(
        engine.llm.generate(messages, sampling=Sampling(max_tokens=MEASURED_TOKENS))
    ) as events:
        async for event in events:
            match event:
                case TextDelta():
                    last = time.monotonic()
                    first = first if pieces else last
                    pieces += 1
                case Finished():
                    tokens = event.completion_tokens
    if not pieces:
        raise BackendError("the language model wrote nothing when it was measured; try another model")
    written = max(tokens or pieces, 2) - 1
    return first - began, written / max(last - first, 1e-3)


# Who comes in


class Bucket:
    """So many a minute on average, and as many at once: a token bucket.

    Args:
        per_minute: its size, and what flows in every minute.
    """

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute, self._level, self._at = per_minute, float(per_minute), now

    def take(self, now: float) -> float:
        """0 if one may go, else the seconds until one may."""
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        if self._level < 1:
            return (1 - self._level) * 60 / self.per_minute
        self._level -= 1
        return 0.0

    @property
    def level(self) -> int:
        """How many may still go at once."""
        return int(self._level)


class Admission:
    """Lets talks and requests in, or says when to come again. For one event loop.

    Args:
        talks: at the same time; None: not known yet, nobody is let in.
        per_key: of them, of one key; None: no limit.
        requests_per_minute: of one caller.
        clock: seconds, monotonic.
        on_refusal: called with the reason, for the metrics.
    """

    def __init__(
        self,
        talks: int | None = None,
        per_key: int | None = None,
        requests_per_minute: int = 600,
        clock: Callable[[], float] = time.monotonic,
        on_refusal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.talks, self.per_key, self.requests_per_minute = talks, per_key, requests_per_minute
        self.closing = False
        self._clock, self._on_refusal = clock, on_refusal
        self._open: Counter[str] = Counter()
        self._running = 0
        self._buckets: dict[str, Bucket] = {}

    @property
    def open_talks(self) -> int:
        """Talks now."""
        return self._open.total()

    @property
    def running(self) -> int:
        """HTTP requests that are worked on now."""
        return self._running

    def request(self, caller: Caller) -> dict[str, str]:
        """Count a request.

        Returns:
            Headers that tell the client what it has left.

        Raises:
            ApiError: 429, this caller has made too many in the last minute.
        """
        per_minute = caller.requests_per_minute or self.requests_per_minute
        now = self._clock()
        bucket = self._buckets.pop(caller.name, None) or Bucket(per_minute, now)
        self._buckets[caller.name] = bucket  # the one not seen for longest is first, and goes first
        if len(self._buckets) > BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        wait_s = bucket.take(now)
        headers = {
            "x-ratelimit-limit-requests": str(per_minute),
            "x-ratelimit-remaining-requests": str(bucket.level),
        }
        if wait_s:
            self._on_refusal("rate")
            raise ApiError(
                429,
                f"more than {per_minute} requests a minute; wait a little",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
                headers=headers,
            )
        return headers

    @asynccontextmanager
    async def talk(self, caller: Caller) -> AsyncIterator[None]:
        """Hold a place for a talk for the length of an ``async with``.

        Raises:
            ApiError: 503, there is no place (or the service is closing or not ready); 429, this caller holds
                as many as it may.
        """
        self.check_talk(caller)
        self._open[caller.name] += 1
        try:
            yield
        finally:
            self._open[caller.name] -= 1
            if not self._open[caller.name]:
                del self._open[caller.name]

    def check_talk(self, caller: Caller) -> None:
        """Raises what ``talk`` would."""
        self._check_open()
        if self.talks is None:
            raise self._refused(503, "not_ready", "the models are being loaded; try again in a moment")
        if self.open_talks >= self.talks:
            raise self._refused(
                503,
                "capacity",
                f"this machine holds {self.talks} talks at once, and has them; try again soon",
            )
        most = caller.sessions or self.per_key
        if most is not None and self._open[caller.name] >= most:
            raise self._refused(429, "key", f"this key may hold {most} talks at once; end one, or try later")

    @contextmanager
    def job(self) -> Iterator[None]:
        """Count an HTTP request that computes, for the length of a ``with``. It holds no place at the models:
        it asks for one before each piece of work, so that a client who reads slowly keeps nobody waiting.

        Raises:
            ApiError: 503, there are ``JOBS`` already, or the service is closing.
        """
        self._check_open()
        if self._running >= JOBS:
            raise self._refused(503, "queue", "too many requests are being worked on; try again soon")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def as_dict(self) -> dict[str, Any]:
        """Talks there can be, are, and may still come."""
        free = max(0, (self.talks or 0) - self.open_talks)
        return {"talks": self.talks, "open": self.open_talks, "free": 0 if self.closing else free}

    def _check_open(self) -> None:
        if self.closing:
            raise self._refused(503, "closing", "the server is being shut down")

    def _refused(self, status: int, reason: str, message: str) -> ApiError:
        self._on_refusal(reason)
        code = "session_limit_reached" if reason in ("capacity", "key") else "overloaded"
        return ApiError(status, message, code=code, retry_after_s=RETRY_S)


def as_dict(paces: Paces) -> dict[str, float]:
    """The paces for JSON."""
    return {name: round(value, 4) for name, value in asdict(paces).items()}
