"""Long talks: the model sums up old turns while nobody waits for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import aclosing

from stepaudio.core.conversation import Message, ToolSpec, compacted, estimate_tokens, old_turns
from stepaudio.llm.base import LLM, Finished, Sampling, TextDelta

SUMMARY_TOKENS = 120
"""Longest summary."""

INSTRUCTION = (
    "Sum up our whole conversation in at most five short sentences: who the user is, every name, number, "
    "place, wish and decision that was mentioned, and what is still open."
)


async def compact(
    llm: LLM,
    messages: Sequence[Message],
    budget: int,
    *,
    count: Callable[[Message], int] = estimate_tokens,
    tools: Sequence[ToolSpec] = (),
    session: str = "",
) -> list[Message] | None:
    """The talk with its old turns summed up, or None when it is short, or no summary came.

    For time in which nobody waits for the model, between an answer and the next question: cancel it when the
    next answer begins. The question for the summary is put after the whole talk, so a cancelled try has cost
    the cache nothing. What is returned is in the cache when this returns.

    Args:
        llm: the model of the talk.
        messages: the talk, system prompt first, an answer last.
        budget: tokens of the context that the talk may fill.
        count: tokens of one message.
        tools: of the talk; in the prompt, so that the cache fits.
        session: see ``LLM.generate``. It waits behind all who have a deadline.

    Raises:
        BackendError: see ``LLM.generate``.
    """
    old = old_turns(messages, budget, count)
    if not old:
        return None
    asked = [*messages, Message("user", INSTRUCTION)]
    summary, whole = "", False
    answer = llm.generate(
        asked, Sampling(max_tokens=SUMMARY_TOKENS), tools, "none", session=session, deadline=math.inf
    )
    async with aclosing(answer) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                summary += event.text
            elif isinstance(event, Finished):
                whole = event.reason == "stop"
    if not whole:  # to its last whole sentence
        summary = summary[: max(map(summary.rfind, ".!?。！？")) + 1]
    if not summary.strip():
        return None
    shorter = compacted(messages, old, " ".join(summary.split()))
    await llm.warm(shorter, tools, session=session)
    return shorter
