"""What a language model is told: the product's system prompt, and messages as chat APIs take them."""

from __future__ import annotations

from collections.abc import Sequence

from stepaudio.core.conversation import Message

SYSTEM_PROMPT = (
    "You are a helpful voice assistant. Answer in one short spoken sentence, "
    "in the language of the question (用户说中文时，用中文口语简短回答)."
)


def render(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The conversation in OpenAI's chat format, which llama.cpp and all servers take.

    Halves of characters (lone surrogates, which JSON can hold and UTF-8 cannot) become question marks.
    """
    return [
        {"role": message.role, "content": message.text.encode("utf-8", "replace").decode()}
        for message in messages
    ]
