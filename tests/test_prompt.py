"""The system prompt, and messages as chat APIs take them."""

from __future__ import annotations

import numpy as np

from stepaudio.core.codes import AudioCodes
from stepaudio.core.conversation import Message, ToolCall, ToolSpec
from stepaudio.llm.prompt import NO_RESULT, SYSTEM_PROMPT, render, render_as_text, render_tools


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


def test_an_answer_that_was_broken_into_says_so() -> None:
    messages = [Message("assistant", "One, two, ", interrupted=True), Message("assistant", "One.")]
    assert [message["content"] for message in render(messages)] == ["One, two, —", "One."]


def test_for_any_template_tools_and_calls_are_text() -> None:
    calls = (ToolCall("c1", "weather", '{"city": "Rome"}'), ToolCall("c2", "now", "{}"))
    results = [Message("tool", text, call_id=id) for id, text in (("c1", "sunny"), ("c2", "noon"))]
    messages = [Message("user", "u"), Message("assistant", "Well.", calls), *results]
    system, user, called, result = render_as_text(messages, [ToolSpec("now", "the time")])
    assert system["role"] == "system" and '{"name": "now", "description": "the time"' in system["content"]
    assert user == {"role": "user", "content": "u"}
    assert called["content"].splitlines() == [
        "Well.",
        '{"name": "weather", "arguments": {"city": "Rome"}}',
        '{"name": "now", "arguments": {}}',
    ]
    assert result == {
        "role": "user",
        "content": "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>",
    }
    assert render_as_text(messages[:1], ()) == [user]
    assert render_as_text([Message("system", "s")], [ToolSpec("now")])[0]["content"].startswith(
        "s\n\n# Tools"
    )


def test_half_a_character_does_no_harm() -> None:
    assert render([Message("user", "a\ud83db")]) == [{"role": "user", "content": "a?b"}]


def test_the_system_prompt_is_one_line_and_short() -> None:
    # It is in the cache, but each of its tokens is read with each token of the answer.
    assert "\n" not in SYSTEM_PROMPT and len(SYSTEM_PROMPT) < 800


def test_models_of_codes_are_shown_codes_where_they_are_there() -> None:
    codes = AudioCodes(np.array([1, 2]), np.array([3, 4, 5]))
    messages = [Message("user", "before"), Message("user", "words", codes=codes)]
    tokens = "<audio_1><audio_2><audio_1027><audio_1028><audio_1029>"
    assert [m["content"] for m in render(messages, codes=True)] == ["before", tokens]
    assert [m["content"] for m in render(messages)] == ["before", "words"]
