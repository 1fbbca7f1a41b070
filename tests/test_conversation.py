"""``conversation.fit``: what goes, what stays, and that the beginning of the prompt holds still."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from stepaudio.core.conversation import CUT_MARK, KEPT, Message, ToolCall, ToolSpec, fit


def tokens(message: Message) -> int:
    """A token a character, and one for the role."""
    return len(message.text) + 1


def size(messages: list[Message]) -> int:
    return sum(map(tokens, messages))


def talk(script: str) -> list[Message]:
    """``"s:be brief|u:hi|a:hello"`` as messages."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [Message(roles[part[0]], part[2:]) for part in script.split("|")]  # type: ignore[arg-type]


def test_what_fits_is_left_alone() -> None:
    messages = talk("s:be brief|u:hi|a:hello|u:more")
    assert fit(messages, size(messages), tokens) == messages


def test_oldest_whole_turns_go_first_and_the_system_message_stays() -> None:
    messages = talk("s:sys|u:one|a:1111|a:1112|u:two|a:2222|u:three")
    assert fit(messages, 4 + 9 + 6, tokens) == talk("s:sys|u:two|a:2222|u:three")


def test_a_greeting_before_the_first_question_is_a_turn() -> None:
    messages = talk("a:welcome|a:ask me|u:one|a:1111|u:two")
    assert fit(messages, 15, tokens) == talk("u:one|a:1111|u:two")


def test_system_messages_in_the_middle_keep_their_place() -> None:
    messages = talk("s:a|u:one|a:1111|s:b|u:two")
    assert fit(messages, 10, tokens) == talk("s:a|s:b|u:two")


def test_without_a_question_nothing_is_lost() -> None:
    assert fit(talk("s:be brief"), 3, tokens) == talk("s:be brief")
    assert fit([], 3, tokens) == []


def test_a_lone_greeting_is_never_cut() -> None:
    assert fit(talk("a:welcome"), 3, tokens) == talk("a:welcome")


@pytest.mark.parametrize(
    ("text", "budget", "kept"),
    [
        ("alpha beta gamma delta", 16, "gamma delta"),  # at a word
        ("春眠不觉晓处处闻啼鸟", 8, "处处闻啼鸟"),  # at a character: no spaces
        ("x" * 50, 13, "x" * 10),
        ("alpha beta  ", 7, "beta"),
        ("alpha beta", 0, "a"),  # nothing fits: the end of it, never a failure
        ("", 0, ""),
    ],
)
def test_a_last_message_that_is_too_long_loses_its_beginning(text: str, budget: int, kept: str) -> None:
    assert fit([Message("user", text)], budget, tokens) == [Message("user", CUT_MARK + kept)]


def test_a_long_last_message_pushes_out_all_turns_then_is_cut() -> None:
    messages = talk("s:sys|u:one|a:1111|u:alpha beta gamma delta")
    assert fit(messages, 4 + 16, tokens) == talk(f"s:sys|u:{CUT_MARK}gamma delta")


def test_a_begun_answer_after_the_last_question_counts() -> None:
    messages = talk("u:one|a:1111|u:two|a:2222")
    assert fit(messages, 13, tokens) == talk("u:two|a:2222")


def calling(*ids: str) -> Message:
    return Message("assistant", "", tuple(ToolCall(id, "weather", "{}") for id in ids))


def result(id: str, text: str) -> Message:
    return Message("tool", text, call_id=id)


def test_calls_and_results_go_with_their_turn() -> None:
    asked, called, more = Message("user", "one"), calling("x", "y"), Message("user", "two")
    messages = [asked, called, result("x", "22"), result("y", "33"), Message("assistant", "1111"), more]
    assert fit(messages, size(messages), tokens) == messages
    assert fit(messages, size(messages) - 1, tokens) == [more]


def test_a_late_result_goes_with_the_turn_of_its_call() -> None:
    more, late = Message("user", "two"), result("x", "22222222")
    messages = [Message("user", "one"), calling("x"), more, late]
    assert fit(messages, size(messages), tokens) == messages
    assert fit(messages, size(messages) - 1, tokens) == [more]


def test_a_result_without_a_call_stays_where_it_is() -> None:
    messages = [Message("user", "one"), Message("assistant", "1"), Message("user", "two"), result("?", "2")]
    assert fit(messages, 8, tokens) == messages[2:]


def test_results_too_long_for_the_last_turn_lose_their_ends_the_longest_first() -> None:
    asked = Message("user", "one")
    messages = [asked, calling("x", "y"), result("x", "short"), result("y", "long " * 40)]
    kept = fit(messages, 4 + 1 + 6 + 13, tokens)
    assert kept == [*messages[:3], result("y", "long long " + CUT_MARK)]
    # Nothing else can go: the question loses its beginning, too.
    kept = fit(messages, 4 + 1 + 4, tokens)
    assert kept == [
        Message("user", CUT_MARK + "e"),
        messages[1],
        *(result(id, word + CUT_MARK) for id, word in ("xs", "yl")),
    ]


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    assert ToolSpec("now").parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize("seed", range(20))
def test_the_beginning_stays_still_while_a_talk_grows(seed: int) -> None:
    """Called anew with the whole history each turn, a cut comes rarely, and it frees a chunk."""
    rng = random.Random(seed)
    budget, history, prompts = 400, [Message("system", "s" * 30)], []
    for turn in range(120):
        history.append(Message("user", str(turn).ljust(rng.randrange(5, 40), "u")))
        prompts.append(fit(history, budget, tokens))
        assert prompts[-1][0] == history[0] and prompts[-1][-1] == history[-1]
        assert size(prompts[-1]) <= budget
        history.append(Message("assistant", "a" * rng.randrange(5, 60)))

    cuts = 0
    for before, after in pairwise(prompts):
        if after[: len(before)] != before:
            cuts += 1
            assert size(after) <= 31 + KEPT * (budget - 31)
        assert after[-2].role == "assistant" or len(after) == 2
    # A turn takes about 55 of the budget's 400, a cut frees about 90 of it: never two cuts running here.
    assert 20 <= cuts <= 60
