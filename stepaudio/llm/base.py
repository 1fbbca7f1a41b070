"""What a language model is here, whichever engine runs it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from stepaudio.core.conversation import Message, ToolCall, ToolChoice, ToolSpec

Reads = Literal["text", "codes", "audio"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        max_tokens: bound on the answer.
        temperature: 0 is greedy.
        top_p: nucleus.
        seed: for temperature above 0.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The prompt was read, the first token comes: the cost of an answer that is broken off before its end.

    Attributes:
        prompt_tokens, cached_tokens: as in ``Finished``.
    """

    prompt_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is over.

    Attributes:
        reason: "stop" (the model ended, be it with calls of tools) or "length" (``max_tokens``).
        prompt_tokens: of the whole prompt, as the engine counts them (0: the server did not say).
        cached_tokens: of those, how many were still in the cache.
        completion_tokens: of the answer.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


LLMEvent = PromptRead | TextDelta | ToolCall | Finished


class LLM(Protocol):
    """A language model. ``generate`` may be closed at any time; the work behind it then stops."""

    reads: frozenset[Reads]

    def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        tools: Sequence[ToolSpec] = (),
        tool_choice: ToolChoice = "auto",
        *,
        session: str = "",
        deadline: float = math.inf,
    ) -> AsyncGenerator[LLMEvent, None]:
        """Answer the conversation: ``TextDelta`` …, ``ToolCall`` …, then one ``Finished``.

        Engines of our own begin with ``PromptRead``; a server tells what it counted at the end.

        A conversation that outgrows the context is shortened by whole turns (``conversation.fit``).

        Args:
            messages: the whole history, oldest first.
            sampling: how the answer is drawn.
            tools: what the model may call. A call is whole when it comes, and never part of the text.
            tool_choice: "auto", "none", "required", or a tool's name.
            session: any name of the talk. An engine with caches keeps one for each talk, as far as they go.
            deadline: when the listener will have heard all that there is (``time.monotonic()``). Of requests
                that wait for an engine, the one with the earliest goes first.

        Raises:
            BackendError: the engine or server failed; what was yielded before stays valid.
            ConfigError: ``tool_choice`` names no tool, or a tool's parameters cannot be followed.
        """
        ...

    async def warm(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, session: str = ""
    ) -> None:
        """Load ``messages`` (the system prompt) into the cache, so that a first token need not wait.

        Of ``session``; without a name, for all talks that are still to come.

        Raises:
            BackendError: the engine or server cannot be used; the message says what to do.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...
