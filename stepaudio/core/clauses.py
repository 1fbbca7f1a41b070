"""Clauses: what a voice gets to speak, cut from text as it is being written."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepaudio.core.style import SpeechStyle


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of text to speak in one breath: never half a word, never half a number.

    Attributes:
        index: place in the answer, from 0.
        text: as written (not yet made speakable).
        style: how to speak it.
    """

    index: int
    text: str
    style: SpeechStyle = field(default_factory=SpeechStyle)


@dataclass(frozen=True, slots=True)
class Mark:
    """One written word (or Chinese character) on the time line of a clause, in ms from its start."""

    text: str
    start_ms: int
    end_ms: int
