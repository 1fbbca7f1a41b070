"""``conversation.fit``: what goes, what stays, and that the beginning of the prompt holds still."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from stepaudio.core.codes import AudioCodes
from stepaudio.core.conversation import (
    CUT_MARK,
    FULL,
    KEPT,
    SUMMARY_HEAD,
    Message,
    SpokenWord,
    ToolCall,
    ToolSpec,
    compacted,
    estimate_tokens,
    fit,
    is_summary,
    old_turns,
    truncate_to_heard,
)


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


def test_a_short_talk_is_not_compacted() -> None:
    messages = talk("s:sys|u:one|a:1111|u:two|a:2222")
    assert old_turns(messages, round(size(messages) / FULL) + 1, tokens) == []
    assert old_turns([], 0, tokens) == []


def test_old_turns_are_summed_up_and_the_last_ones_kept() -> None:
    messages = talk("s:sys|u:one|a:1111|u:two|a:2222|u:three|a:3333")
    old = old_turns(messages, 30, tokens)  # 9 for the turns kept; the last one takes 11
    assert old == [1, 2, 3, 4]
    shorter = compacted(messages, old, "one and two")
    assert shorter == [messages[0], *messages[5:], Message("system", SUMMARY_HEAD + "one and two")]
    assert old_turns(messages, 40, tokens) == [1, 2, 3, 4]
    assert old_turns(messages, 22, tokens) == [1, 2, 3, 4]  # the last turn stays, however long


def test_a_new_summary_takes_the_place_of_the_one_before() -> None:
    first = Message("system", SUMMARY_HEAD + "one")
    messages = [*talk("s:sys|u:two|a:2222"), first, *talk("u:three|a:3333|u:four|a:4444")]
    old = old_turns(messages, 40, tokens)
    assert old == [1, 2, 3, 4, 5] and is_summary(messages[3])
    assert [is_summary(message) for message in compacted(messages, old, "all")] == [False] * 3 + [True]


def test_nothing_is_put_between_a_call_and_its_result() -> None:
    messages = talk("s:sys|u:one|a:1111|u:two|a:2222|u:three")
    messages.append(Message("assistant", "", calls=(ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}"))))
    messages.append(Message("tool", "3", call_id="1"))
    assert old_turns(messages, 30, tokens) == []
    messages.append(Message("tool", "4", call_id="2"))
    assert old_turns(messages, 30, tokens) == [1, 2, 3, 4]


def test_one_turn_alone_is_never_summed_up() -> None:
    assert old_turns(talk("s:sys|u:one|a:1111"), 1, tokens) == []
    assert old_turns(talk("s:a long system prompt"), 1, tokens) == []


def test_estimates_are_rather_too_large() -> None:
    english, chinese = "It was a bright cold day in April. " * 4, "今天天气怎么样？" * 4
    assert 36 <= estimate_tokens(Message("user", english)) <= 60
    assert 24 <= estimate_tokens(Message("user", chinese)) <= 64
    assert estimate_tokens(calling("x")) > estimate_tokens(Message("assistant", ""))


CATS = "I like cats, dogs."
WORDS = [SpokenWord(2, 0, 100), SpokenWord(7, 100, 300), SpokenWord(13, 300, 500), SpokenWord(18, 600, 900)]


@pytest.mark.parametrize(
    ("heard_ms", "heard"),
    [
        (0, ""),
        (99, ""),
        (100, "I"),
        (499.9, "I like"),
        (500, "I like cats,"),
        (899, "I like cats,"),
        (900, CATS),
        (9999, CATS),
    ],
)
def test_what_was_heard_is_whole_words_as_written(heard_ms, heard) -> None:
    assert truncate_to_heard(CATS, WORDS, heard_ms) == heard


def test_of_what_has_no_words_nothing_was_heard() -> None:
    assert truncate_to_heard("…", [], 500) == ""


def test_codes_are_counted_by_the_group_and_never_cut() -> None:
    codes = AudioCodes(np.zeros(40, np.int64), np.zeros(60, np.int64))
    spoken = Message("user", "", codes=codes)
    assert estimate_tokens(spoken) == 108
    old = [Message("user", "long ago " * 40), Message("assistant", "yes")]
    assert fit([*old, spoken], 100, estimate_tokens) == [spoken]
