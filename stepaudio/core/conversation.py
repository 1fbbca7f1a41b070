"""The conversation as data, and how it is shortened to fit a model's context."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["system", "user", "assistant"]

KEPT = 0.75
"""Share of the budget that is left after a cut; see ``fit``."""

CUT_MARK = "… "
"""Stands where the beginning of a message was cut away."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``text`` is what was written, transcribed, or (for the assistant) spoken."""

    role: Role
    text: str


def fit(messages: Sequence[Message], budget: int, count: Callable[[Message], int]) -> list[Message]:
    """The conversation, shortened until it takes at most ``budget`` tokens.

    System messages and the last turn always stay. What goes first are the oldest whole turns (a user
    message with all answers to it). If that is not enough, the last user message loses its beginning.

    A model's cache holds only for a prompt that *begins* as the one before, so a turn dropped at every
    call would cost a whole prompt at every call. Therefore a cut goes down to ``KEPT`` of the budget, and
    then the beginning stays where it is until the budget is full again. To find it from the history alone,
    without a state, the talk is played through from its start: whoever calls with the same history, grown
    by a turn, gets the same beginning. So ``messages`` should be the whole history, never the result of an
    earlier ``fit``.

    Args:
        messages: the history, oldest first, as it was at the earlier calls, and grown.
        budget: tokens.
        count: tokens that one message takes in the prompt, with what the template adds to it. Called for
            every message, so it should remember.

    Returns:
        A new list. It can be over the budget only if system messages and answers after the last user
        message fill the budget alone.
    """
    system = [i for i, message in enumerate(messages) if message.role == "system"]
    room = budget - sum(count(messages[i]) for i in system)
    turns = _turns(messages)
    sizes = [sum(count(messages[i]) for i in turn) for turn in turns]

    first = used = 0
    for last, turn in enumerate(turns):
        # When turn `last` was asked, its answer was not there yet.
        asked = count(messages[turn[0]])
        if used + asked > room:
            while first < last and used + asked > room * KEPT:
                used -= sizes[first]
                first += 1
        used += sizes[last]
    # Whatever came after the last question (a part of its answer) must fit as well.
    while first < len(turns) - 1 and used > room:
        used -= sizes[first]
        first += 1

    kept = {i: messages[i] for i in system}
    kept.update((i, messages[i]) for turn in turns[first:] for i in turn)
    if turns and used > room and messages[turns[-1][0]].role == "user":
        asked = turns[-1][0]
        kept[asked] = _without_beginning(messages[asked], room - used + count(messages[asked]), count)
    return [kept[i] for i in sorted(kept)]


def _turns(messages: Sequence[Message]) -> list[list[int]]:
    """Indices of the messages of each turn. A greeting before the first question is a turn of its own."""
    turns: list[list[int]] = []
    for i, message in enumerate(messages):
        if message.role == "user" or (message.role == "assistant" and not turns):
            turns.append([i])
        elif message.role == "assistant":
            turns[-1].append(i)
    return turns


def _without_beginning(message: Message, room: int, count: Callable[[Message], int]) -> Message:
    """``message`` with as much of its end as takes at most ``room`` tokens (at least its last character)."""
    text = message.text.rstrip()

    def from_(start: int) -> Message:
        return replace(message, text=CUT_MARK + text[start:])

    def fits(start: int) -> bool:
        return count(from_(start)) <= room

    start = bisect_left(range(len(text)), True, key=fits)
    # To the beginning of a word, where one is near: Chinese has no spaces.
    space = text.find(" ", start, start + 24)
    return from_(min(start if space < 0 else space + 1, max(len(text) - 1, 0)))
