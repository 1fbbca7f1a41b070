"""Fakes at the engine edges: a language model that says a script, and a voice that beeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.conversation import Message, ToolCall, ToolSpec
from stepaudio.core.errors import unknown
from stepaudio.llm.base import Finished, LLMEvent, PromptRead, Reads, Sampling, TextDelta
from stepaudio.recognition.base import Transcript
from stepaudio.tts.base import Speech, Voice

RATE = 24_000


class FakeLLM:
    """Yields ``script``: a string is a delta, an exception is raised, any event is passed on."""

    reads: frozenset[Reads] = frozenset({"text"})

    def __init__(self, *script: str | Exception | ToolCall | PromptRead | Finished) -> None:
        self.script = script
        self.asked: list[list[Message]] = []
        self.said = 0
        self.closed_early = False
        self.options: dict[str, Any] = {}

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, *tools: Any, **options: Any
    ) -> AsyncGenerator[LLMEvent, None]:
        self.asked.append(list(messages))
        self.options = {"tools": tools, **options}
        try:
            for item in self.script:
                await asyncio.sleep(0)
                match item:
                    case str():
                        self.said += 1
                        yield TextDelta(item)
                    case Exception():
                        raise item
                    case _:
                        yield item
            if not any(isinstance(item, Finished) for item in self.script):
                yield Finished("stop")
        except GeneratorExit:
            self.closed_early = True
            raise

    async def warm(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, session: str = ""
    ) -> None:
        self.asked.append(list(messages))

    def close(self) -> None:
        pass


class FakeVoice:
    """Speaks 0.1 s a word, one piece a word; an exception instead of a clause's text is raised."""

    def __init__(self, fail_on: str | None = None, error: Exception | None = None) -> None:
        self.heard: list[tuple[str, float]] = []
        self.fail_on, self.error = fail_on, error
        self.on_piece: Callable[[], None] = lambda: None

    def __call__(self, clause: Clause, ahead_s: float) -> Iterator[Speech]:
        self.heard.append((clause.text, ahead_s))
        if self.fail_on is not None and self.fail_on in clause.text:
            assert self.error is not None
            raise self.error
        for n, word in enumerate(clause.text.split()):
            self.on_piece()
            audio = AudioChunk(np.full(RATE // 10, 0.1, np.float32), RATE, n * RATE // 10)
            yield Speech(audio, (Mark(word, n * 100, n * 100 + 100),))


class FakeSpeaker:
    """Speaks as ``FakeVoice`` does; words of only ``mute`` signs are silent."""

    def __init__(self, mute: str = "") -> None:
        self.clauses: list[Clause] = []
        self.warmed = False
        self._mute, self._voice = set(mute), FakeVoice()

    def speak(self, clause: Clause, *, voice: Voice | None = None, ahead_s: float = 0.0) -> Iterator[Speech]:
        self.clauses.append(clause)
        if not set(clause.text) <= self._mute | {" "}:
            yield from self._voice(clause, ahead_s)

    def find(self, id: str) -> Voice:
        raise unknown("voice", id, ["af_heart"])

    def objection(self, clauses: Sequence[Clause]) -> str | None:
        return None

    def voices(self) -> tuple[Voice, ...]:
        return (Voice("af_heart", "kokoro", "en-US", "female", "Apache-2.0"),)

    def warm(self) -> None:
        self.warmed = True


class FakeRecognizer:
    """Hears the same in everything."""

    languages = ("en", "zh")

    def __init__(self, heard: str) -> None:
        self.heard = heard
        self.calls: list[tuple[AudioChunk, dict[str, Any]]] = []

    def transcribe(self, audio: AudioChunk, **options: Any) -> Transcript:
        self.calls.append((audio, options))
        return Transcript(self.heard, "en")
