"""What a voice is here, whichever engine speaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that an engine can speak with.

    Attributes:
        id: the name people use ("af_heart", "hibari").
        engine: key of the engine ("kokoro", "hibari").
        language: its native language and region, BCP 47 ("en-US", "en-GB", "cmn").
        gender: "female" or "male".
        licence: SPDX name of the licence of its weights.
    """

    id: str
    engine: str
    language: str
    gender: str
    licence: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can truly do.

    Attributes:
        languages: of the text that it can read ("en", "zh").
        speed: slowest and fastest ``SpeechStyle.speed`` that it follows.
    """

    languages: frozenset[str]
    speed: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """A piece of a spoken clause.

    Attributes:
        audio: mono, at the engine's rate; ``start`` counts samples from the start of the clause.
        marks: the words that begin in this piece, in ms from the start of the clause. Over a whole
            clause they hold every written word once, in order.
    """

    audio: AudioChunk
    marks: tuple[Mark, ...] = ()


class Synthesizer(Protocol):
    """Text to speech. Stateless: may be shared between sessions."""

    rate: int
    capabilities: Capabilities

    def voices(self) -> tuple[Voice, ...]:
        """The voices it has, default first."""
        ...

    def synthesize(self, clause: Clause, voice: Voice) -> Iterator[Speech]:
        """Speak a clause piece by piece; closing the iterator stops the work.

        A clause without anything to say (only signs) yields nothing.
        """
        ...
