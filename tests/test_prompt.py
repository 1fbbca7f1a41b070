"""The system prompt, and messages as chat APIs take them."""

from __future__ import annotations

from stepaudio.core.conversation import Message
from stepaudio.llm.prompt import SYSTEM_PROMPT, render


def test_messages_become_openais_chat_format() -> None:
    messages = [Message("system", "s"), Message("user", "u"), Message("assistant", "a")]
    assert render(messages) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    assert render([]) == []


def test_half_a_character_does_no_harm() -> None:
    assert render([Message("user", "a\ud83db")]) == [{"role": "user", "content": "a?b"}]


def test_the_system_prompt_is_one_line_and_short() -> None:
    # It is in the cache, but each of its tokens is read with each token of the answer.
    assert "\n" not in SYSTEM_PROMPT and len(SYSTEM_PROMPT) < 800
