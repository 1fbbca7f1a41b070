"""``CallReader``: what models write around calls, and that no piece of a call is ever text."""

from __future__ import annotations

import random

import pytest

from stepaudio.core.conversation import ToolCall
from stepaudio.core.errors import ConfigError
from stepaudio.llm.base import TextDelta
from stepaudio.llm.calls import BadCall, CallReader, check_choice

ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'
BERLIN = '{"name": "weather", "arguments": {"city": "Berlin"}}'


def read(text: str, seed: int | None = None) -> tuple[str, list[str]]:
    """The words, and the arguments of the calls; with a seed, the text comes in random pieces."""
    rng, reader, events = random.Random(seed), CallReader(["weather"]), []
    while text:
        length = len(text) if seed is None else rng.randrange(1, 6)
        events += reader.push(text[:length])
        text = text[length:]
    events += reader.push("", end=True)
    words = "".join(event.text for event in events if isinstance(event, TextDelta))
    return words, [event.arguments for event in events if isinstance(event, ToolCall)]


@pytest.mark.parametrize("seed", [None, *range(8)])
@pytest.mark.parametrize(
    ("text", "words", "cities"),
    [
        ("It is three.", "It is three.", []),
        (ROME, "", ["Rome"]),
        (f"<tool_call>\n{ROME}\n</tool_call>", "", ["Rome"]),
        (f"```json\n{ROME}\n```", "", ["Rome"]),
        ("{" + ROME + "}}", "", ["Rome"]),
        (f"[{ROME}, {BERLIN}]", "", ["Rome", "Berlin"]),
        (f"Let me see.\n{ROME}\n{BERLIN}", "Let me see.\n", ["Rome", "Berlin"]),
        (f"{ROME}. It is sunny in Rome.", "", ["Rome"]),  # made up
        (f"{ROME}\n{ROME}\n{ROME}", "", ["Rome"]),
        ("a < b and `c` and {d} are signs, no calls, whatever follows.",) * 2 + ([],),
        ("I love it <3 ```", "I love it <3 ```", []),
    ],
)
def test_words_and_calls(text: str, words: str, cities: list[str], seed: int | None) -> None:
    assert read(text, seed) == (words, [f'{{"city": "{city}"}}' for city in cities])


def test_other_ways_of_writing_arguments() -> None:
    assert read('{"name": "weather", "parameters": {"a": "北京"}}')[1] == ['{"a": "北京"}']
    assert read('{"name": "weather", "arguments": "{\\"a\\": 1}"}')[1] == ['{"a": 1}']


def test_each_call_has_its_own_id() -> None:
    calls = CallReader(["weather"]).push(f"{ROME}\n{BERLIN}", end=True)
    assert len({call.call_id for call in calls if isinstance(call, ToolCall)}) == 2


@pytest.mark.parametrize(
    "text",
    [
        ROME[:-3],
        '{"name": "storm", "arguments": {}}',
        '{"name": "weather", "arguments": [1]}',
        '{"name": "weather", "arguments": "{"}',
    ],
)
def test_what_no_tool_can_take_is_an_error(text: str) -> None:
    with pytest.raises(BadCall):
        read(text)


def test_nothing_is_read_after_words_that_follow_a_call() -> None:
    reader = CallReader(["weather"])
    reader.push(ROME)
    assert not reader.over
    assert reader.push(" And then?") == [] and reader.over
    assert reader.push(BERLIN) == []


def test_a_choice_needs_tools() -> None:
    check_choice([], "auto")
    with pytest.raises(ConfigError, match="tool choice"):
        check_choice([], "required")
