"""What a language model is told: the product's system prompt, and messages as chat APIs take them."""

from __future__ import annotations

from collections.abc import Sequence

from stepaudio.core.conversation import Message

SYSTEM_PROMPT = (
    "You are a knowledgeable voice assistant. Your answer is spoken aloud. Reply in the language of the "
    "question, in one short sentence of plain words. Name the exact fact that is asked for. "
    "Write numbers as words."
)
"""Measured with Qwen2.5 1.5B, temperature 0: 98 of 150 LLaMA Questions right, 8 words an answer (median).
No Chinese in it: with a clause of it the model answers "Say hi." in Chinese."""


def render(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The conversation in OpenAI's chat format, which llama.cpp and all servers take.

    Halves of characters (lone surrogates, which JSON can hold and UTF-8 cannot) become question marks.
    """
    return [
        {"role": message.role, "content": message.text.encode("utf-8", "replace").decode()}
        for message in messages
    ]
