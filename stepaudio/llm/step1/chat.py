"""A talk as Step-Audio-Chat is shown it. Pure.

A turn is ``<|BOT|>role\\ncontent<|EOT|>``, with nothing between turns; users are called ``human``. The model
answers in an open turn of the assistant. Speech is a run of ``<audio_N>``, alone in its turn. (Step-Audio,
``stepaudio.py``; the Jinja template of the checkpoint, which a server uses, also puts a system turn before a
talk that has none.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio.core.codes import AudioCodes
from stepaudio.core.errors import ConfigError

START, BEGIN_OF_TURN, END_OF_TURN = "<s>", "<|BOT|>", "<|EOT|>"
START_ID, END_OF_TURN_ID, BEGIN_OF_TURN_ID = 1, 3, 4

DEFAULT_SYSTEM = "You are a helpful assistant."
"""What the checkpoint's Jinja template puts before a talk without a system turn."""

TEMPLATE = (
    "{%- if not messages or messages[0]['role'] != 'system' %}"
    f"{{{{ '{BEGIN_OF_TURN}system\\n{DEFAULT_SYSTEM}{END_OF_TURN}' }}}}"
    "{%- endif %}"
    "{%- for message in messages %}"
    f"{{{{ '{BEGIN_OF_TURN}' + ('human' if message['role'] == 'user' else message['role']) + '\\n' "
    f"+ message['content'] + '{END_OF_TURN}' }}}}"
    "{%- endfor %}"
    f"{{%- if add_generation_prompt %}}{{{{ '{BEGIN_OF_TURN}assistant\\n' }}}}{{%- endif %}}"
)
"""The same for Jinja, for folders that bring none."""

Content = str | AudioCodes | Sequence[Mapping[str, Any]] | None
"""Text; speech; parts ``{"type": "text", "text": …}`` and ``{"type": "audio", "audio": AudioCodes}``; or
None: the turn stays open, for the model to go on."""


def render(messages: Sequence[Mapping[str, Any]]) -> str:
    """A talk as one string, which ends in the assistant's open turn.

    Args:
        messages: ``{"role": …, "content": Content}``, oldest first.

    Raises:
        ConfigError: a part of a content is of no known type.
    """
    return "".join(text for _, text in pieces(messages))


def pieces(messages: Sequence[Mapping[str, Any]]) -> list[tuple[int | None, str]]:
    """A talk in pieces: ``(id, name)`` of a special token, or ``(None, text)``; see ``render``."""
    found: list[tuple[int | None, str]] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        role = "human" if role == "user" else role
        found += [(BEGIN_OF_TURN_ID, BEGIN_OF_TURN), (None, f"{role}\n{_text(content)}")]
        if content is not None:
            found.append((END_OF_TURN_ID, END_OF_TURN))
    answer: list[tuple[int | None, str]] = [(BEGIN_OF_TURN_ID, BEGIN_OF_TURN), (None, "assistant\n")]
    return found if found[-2:] == answer else found + answer


def _text(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, AudioCodes):
        return content.text()
    return "".join(map(_part, content))


def _part(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind == "text":
        return str(part["text"])
    if kind == "audio" and isinstance(part.get("audio"), AudioCodes):
        return part["audio"].text()
    raise ConfigError(f"a message's part is text, or audio as codes; not {kind!r}: tokenize the audio first")
