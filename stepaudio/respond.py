"""One answer: the language model writes, and the voice speaks what is written, at the same time.

Knows nothing of sockets, files or turns: ``ask`` and the server both use it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, ClauseSplitter, Mark
from stepaudio.core.conversation import Message, ToolCall, ToolChoice, ToolSpec
from stepaudio.core.errors import StepAudioError
from stepaudio.core.style import NO_STYLE, SpeechStyle
from stepaudio.core.tagged import TagReader, Token, Unknown
from stepaudio.llm.base import LLM, Finished, PromptRead, Sampling, TextDelta
from stepaudio.threads import iterate_in_thread
from stepaudio.tts.base import Speech

Speak = Callable[[Clause, float], Iterator[Speech]]
"""Speak a clause, given the seconds of audio that the listener still has to hear."""

Iterate = Callable[[Callable[[], Iterator[Speech]]], AsyncGenerator[Speech, None]]
"""Run the voice, which blocks, somewhere else: ``threads.iterate_in_thread``, or a scheduler."""


@dataclass(frozen=True, slots=True)
class ClauseStarted:
    """A clause was written and goes to the voice."""

    clause: Clause


@dataclass(frozen=True, slots=True, eq=False)
class AudioDelta:
    """The next piece of the spoken answer; ``audio.start`` counts samples from the answer's first.

    ``marks``: the words that it holds, in ms from the answer's first sample.
    """

    clause: Clause
    audio: AudioChunk
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Spoken:
    """A clause was spoken to its end. ``marks``: its words, in ms from the answer's first sample."""

    clause: Clause
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model wants a tool's result: whoever runs it asks again, with the call and its result added."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is over; nothing follows.

    Attributes:
        status: "completed"; "incomplete" (the length limit cut it); "failed" (``error`` says why; what
            was emitted before stays).
        finished: what the language model said of its end, when it came to one.
    """

    status: Literal["completed", "incomplete", "failed"]
    finished: Finished | None = None
    error: StepAudioError | None = None


ResponseEvent = PromptRead | TextDelta | ClauseStarted | AudioDelta | Spoken | ToolCalled | Done


async def respond(
    llm: LLM,
    speak: Speak,
    messages: Sequence[Message],
    emit: Callable[[ResponseEvent], Awaitable[None]],
    *,
    sampling: Sampling | None = None,
    tools: Sequence[ToolSpec] = (),
    tool_choice: ToolChoice = "auto",
    session: str = "",
    deadline: float = math.inf,
    style: SpeechStyle = NO_STYLE,
    unknown_tags: Unknown = "speak",
    iterate: Iterate = iterate_in_thread,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Answer ``messages`` in text and speech; the last event is always ``Done``, unless cancelled.

    Instruction tags that the model writes become the style of clauses and are in no text that is emitted.

    To stop it, cancel its task: the model stops writing and the voice stops speaking.
    ``tools`` to ``deadline``: see ``LLM.generate``. No tool is run here; the answer ends with the calls.
    ``style``: of the answer, where no tag says another.
    ``unknown_tags``: "speak" or "drop" brackets that look like tags and are none ("report" is not for talks).
    ``iterate``: where the voice runs.
    """
    clauses: asyncio.Queue[Clause | None] = asyncio.Queue(maxsize=8)
    finished: Finished | None = None
    failure: StepAudioError | None = None

    async def write() -> None:
        nonlocal finished, failure
        tags = TagReader(unknown="speak" if unknown_tags == "report" else unknown_tags)
        splitter = ClauseSplitter(style=style, by_words=True)

        async def pass_on(tokens: list[Token], *, final: bool = False) -> None:
            if text := "".join(token for token in tokens if isinstance(token, str)):
                await emit(TextDelta(text))
            for clause in splitter.feed(tokens, final=final):
                await clauses.put(clause)

        try:
            answer = llm.generate(
                messages, sampling or Sampling(), tools, tool_choice, session=session, deadline=deadline
            )
            async with aclosing(answer) as events:
                async for event in events:
                    match event:
                        case TextDelta(text):
                            await pass_on(tags.push(text))
                        case PromptRead():
                            await emit(event)
                        case ToolCall():
                            await emit(ToolCalled(event))
                        case Finished():
                            finished = event
                        case _:
                            assert_never(event)
        except StepAudioError as error:
            failure = error  # whole clauses are still spoken; the half one is not
        else:
            await pass_on(tags.flush(), final=True)
        await clauses.put(None)

    async def say() -> None:
        emitted, rate = 0, 1  # samples so far, and how many a second
        first_at = 0.0  # when the listener began to hear them
        while (clause := await clauses.get()) is not None:
            await emit(ClauseStarted(clause))
            start, marks = emitted, []
            ahead_s = max(0.0, first_at + emitted / rate - clock()) if emitted else 0.0

            def begin(clause: Clause = clause, ahead_s: float = ahead_s) -> Iterator[Speech]:
                return speak(clause, ahead_s)

            async with aclosing(iterate(begin)) as pieces:
                async for piece in pieces:
                    if not emitted:
                        first_at = clock()
                    rate = piece.audio.rate
                    emitted = start + piece.audio.start + len(piece.audio.samples)
                    begin_ms = round(1000 * start / rate)
                    moved = [Mark(m.text, m.start_ms + begin_ms, m.end_ms + begin_ms) for m in piece.marks]
                    marks += moved
                    audio = replace(piece.audio, start=start + piece.audio.start)
                    await emit(AudioDelta(clause, audio, tuple(moved)))
            await emit(Spoken(clause, tuple(marks)))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(say())
    except* StepAudioError as errors:  # of the voice
        failure = failure or _first(errors)
    if failure is not None:
        await emit(Done("failed", finished, failure))
    else:
        cut = finished is not None and finished.reason == "length"
        await emit(Done("incomplete" if cut else "completed", finished))


def _first(errors: BaseExceptionGroup) -> StepAudioError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error  # type: ignore[return-value]
