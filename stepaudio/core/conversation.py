"""The conversation as data, and how it is shortened to fit a model's context."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stepaudio.core.codes import GROUP_SIZE, AudioCodes

Role = Literal["system", "user", "assistant", "tool"]

FULL = 0.75
"""Share of the budget from which on a talk is compacted: well before ``fit`` has to drop turns."""

COMPACT = 0.3
"""Share of the budget that the turns kept whole may take after that."""

SUMMARY_HEAD = "What was said before: "
"""How a summary of old turns begins."""

KEPT = 0.75
"""Share of the budget that is left after a cut; see ``fit``."""

CUT_MARK = "… "
"""Stands where the beginning of a message (of a tool's result: the end) was cut away."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that the model may call: what it is told of it.

    Attributes:
        name: of the function; letters, digits, ``_`` and ``-``.
        description: what it does and when to use it, for the model.
        parameters: a JSON schema of type "object".
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


ToolChoice = str
"""Whether the model calls a tool: "auto" (as it thinks fit), "none", "required" (one at least), or the name
of the tool that it must call."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model wants a tool's result. ``arguments``: a JSON object, as text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: whose. "tool": the result of a call.
        text: what was written, transcribed, or (for the assistant) spoken; of a tool, its result.
        calls: of the assistant, the tools that it called after ``text`` (which is often empty then).
        call_id: of a result, the ``ToolCall`` that it belongs to.
        interrupted: of the assistant: the user broke in; ``text`` is what was heard of the answer.
        codes: of the user, what was said, for models that read codes; ``text`` may be empty then, as the
            transcript is not waited for. Only the last turn has them: history is text (14 times shorter).
    """

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    interrupted: bool = False
    codes: AudioCodes | None = None


def fit(messages: Sequence[Message], budget: int, count: Callable[[Message], int]) -> list[Message]:
    """The conversation, shortened until it takes at most ``budget`` tokens.

    System messages and the last turn always stay. What goes first are the oldest whole turns (a user
    message with all answers to it, calls of tools and their results). If that is not enough, results of
    the last turn lose their ends, the longest first, and then the last user message its beginning.

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
        A new list. It can be over the budget only if system messages, a last user message of codes (which
        are never cut), and the assistant's words and calls after it, fill the budget alone.
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
    # What is still too much is in the last turn: results first, then the question.
    cuttable = [
        i
        for i in (turns[-1] if turns else ())
        if messages[i].role in ("tool", "user") and messages[i].codes is None
    ]
    for i in sorted(cuttable, key=lambda i: (messages[i].role == "user", -count(messages[i]))):
        if used > room:
            kept[i] = _shortened(messages[i], room - used + count(messages[i]), count)
            used += count(kept[i]) - count(messages[i])
    return [kept[i] for i in sorted(kept)]


def estimate_tokens(message: Message) -> int:
    """Tokens of a message, for a tokenizer that is not known: rather too many than too few.

    English takes one token for 4 to 5 characters, Chinese 0.6 to 1.5 tokens a character, a digit a token; a
    template's frame takes about 5 tokens. Codes are a token each, in place of their words.
    """
    if message.codes is not None:
        return GROUP_SIZE * message.codes.groups + 8
    text = message.text + "".join(f"{call.name} {call.arguments}" for call in message.calls)
    wide = sum(character > "\u02ff" for character in text)
    digits = sum(character.isdigit() for character in text)
    return (len(text) - wide - digits) // 3 + wide * 3 // 2 + digits + 8 + 12 * len(message.calls)


def old_turns(messages: Sequence[Message], budget: int, count: Callable[[Message], int]) -> list[int]:
    """Which messages to replace by a summary; none, while the talk is short or waits for a tool's result.

    To be asked when there is time, after an answer: a summary takes the model seconds. All turns go but the
    last ones that fit in ``COMPACT`` of the budget, and at least the last turn stays; earlier summaries go,
    too, since the new one is made with them in sight.

    Args:
        messages: the talk, oldest first.
        budget: tokens.
        count: tokens of one message; see ``fit``.

    Returns:
        Their indices, ascending.
    """
    if sum(map(count, messages)) <= budget * FULL:
        return []
    turns = _turns(messages)
    last = [messages[i] for i in turns[-1]] if turns else []
    if {call.call_id for message in last for call in message.calls} - {message.call_id for message in last}:
        return []  # the summary would stand between the call and its result
    room = budget * COMPACT
    first = len(turns)
    while first and (size := sum(count(messages[i]) for i in turns[first - 1])) <= room:
        room -= size
        first -= 1
    gone = [i for turn in turns[: min(first, len(turns) - 1)] for i in turn]
    summaries = [i for i, message in enumerate(messages) if is_summary(message)]
    return sorted({*gone, *summaries}) if gone else []


def compacted(messages: Sequence[Message], old: Sequence[int], summary: str) -> list[Message]:
    """The talk without the ``old`` messages, and with a summary where it stands now.

    The summary comes after the turns that are kept, not before them: so nothing is put in between what the
    model's cache holds, it is only cut out of, and a cache that can move (llama.cpp's) is not filled anew.
    """
    gone = set(old)
    kept = [message for i, message in enumerate(messages) if i not in gone]
    return [*kept, Message("system", SUMMARY_HEAD + summary)]


def is_summary(message: Message) -> bool:
    """Whether a message is what ``compacted`` put in."""
    return message.role == "system" and message.text.startswith(SUMMARY_HEAD)


def _turns(messages: Sequence[Message]) -> list[list[int]]:
    """Indices of the messages of each turn. A greeting before the first question is a turn of its own.

    A result belongs to the turn of its call, even if the user spoke again before it came.
    """
    turns: list[list[int]] = []
    called: dict[str, list[int]] = {}  # by call id: the turn
    for i, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "tool" and message.call_id in called:
            called[message.call_id].append(i)
        elif message.role == "user" or not turns:
            turns.append([i])
        else:
            turns[-1].append(i)
        called.update((call.call_id, turns[-1]) for call in message.calls)
    return turns


def _shortened(message: Message, room: int, count: Callable[[Message], int]) -> Message:
    """``message`` with as much of its end (of a result: its beginning) as takes at most ``room`` tokens.

    At least one character stays.
    """
    text = message.text.rstrip()

    def from_(start: int) -> Message:
        if message.role == "tool":
            return replace(message, text=text[: len(text) - start] + CUT_MARK)
        return replace(message, text=CUT_MARK + text[start:])

    def fits(start: int) -> bool:
        return count(from_(start)) <= room

    start = bisect_left(range(len(text)), True, key=fits)
    if message.role == "tool":
        return from_(min(start, max(len(text) - 1, 0)))
    # To the beginning of a word, where one is near: Chinese has no spaces.
    space = text.find(" ", start, start + 24)
    return from_(min(start if space < 0 else space + 1, max(len(text) - 1, 0)))


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word (or Chinese character) of a spoken text.

    Attributes:
        end: where it ends in the text, with the signs that belong to it: ``text[:end]`` ends with it.
        start_ms, end_ms: when it is heard, from the beginning of the speech.
    """

    end: int
    start_ms: int
    end_ms: int


def truncate_to_heard(text: str, words: Sequence[SpokenWord], heard_ms: float) -> str:
    """What a listener who heard ``heard_ms`` of the speech knows of ``text``: whole words, as written.

    Args:
        text: what was spoken.
        words: of it, in order.
        heard_ms: of the speech, from its beginning; a word counts when it was heard to its end.
    """
    heard = bisect_right(words, heard_ms, key=lambda word: word.end_ms)
    if heard == len(words):
        return text if words else ""
    return text[: words[heard - 1].end].rstrip() if heard else ""
