"""The system prompt, and messages as chat APIs take them."""

from __future__ import annotations

from stepaudio.core.conversation import Message, ToolCall, ToolSpec
from stepaudio.llm.prompt import NO_RESULT, SYSTEM_PROMPT, render, render_tools


def test_messages_become_openais_chat_format() -> None:
    messages = [Message("system", "s"), Message("user", "u"), Message("assistant", "a")]
    assert render(messages) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    assert render([]) == []


def test_results_follow_their_calls_whenever_they_come() -> None:
    calls = (ToolCall("c1", "weather", '{"city": "Rome"}'), ToolCall("c2", "now", "{}"))
    messages = [
        Message("user", "u"),
        Message("assistant", "", calls),
        Message("user", "hurry"),
        Message("tool", "sunny", call_id="c1"),
        Message("tool", "whose?", call_id="c9"),
    ]
    assert render(messages) == [
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": NO_RESULT},
        {"role": "user", "content": "hurry"},
    ]


def test_tools_become_openais_chat_format() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"name": "weather", "description": "of a city", "parameters": schema}
    assert render_tools([ToolSpec("weather", "of a city", schema)]) == [
        {"type": "function", "function": function}
    ]


def test_half_a_character_does_no_harm() -> None:
    assert render([Message("user", "a\ud83db")]) == [{"role": "user", "content": "a?b"}]


def test_the_system_prompt_is_one_line_and_short() -> None:
    # It is in the cache, but each of its tokens is read with each token of the answer.
    assert "\n" not in SYSTEM_PROMPT and len(SYSTEM_PROMPT) < 800
