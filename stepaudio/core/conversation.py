"""The conversation as data, and how it is shortened to fit a model's context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``text`` is what was written, transcribed, or (for the assistant) spoken."""

    role: Role
    text: str
