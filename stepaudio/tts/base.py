"""What a voice is here, whichever engine speaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause, Mark

if TYPE_CHECKING:
    import numpy as np

    from stepaudio.tts.prosody import ProsodyPlan


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that an engine can speak with.

    Attributes:
        id: the name people use ("af_heart", "hibari").
        engine: key of the engine ("kokoro", "hibari").
        language: its native language and region, BCP 47 ("en-US", "en-GB", "cmn").
        gender: "female" or "male".
        licence: SPDX name of the licence of its weights.
        origin: "stock" (it came with the engine), "mixed" (of stock voices) or "cloned" (from a recording).
    """

    id: str
    engine: str
    language: str
    gender: str
    licence: str
    origin: str = "stock"


Grade = Literal["native", "accent", "experimental"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can truly do.

    Attributes:
        languages: of the text that it can read ("en", "zh").
        speed: slowest and fastest ``SpeechStyle.speed`` that it follows.
        dialects: those that it speaks (``SpeechStyle.dialect``), and how well: "native" (it learned them),
            "accent" (the dialect's tones, words and readings by rule: understood, and no native speaker's) or
            "experimental" (most of it is not understood; only where that is allowed).
    """

    languages: frozenset[str]
    speed: tuple[float, float]
    dialects: Mapping[str, Grade] = field(default_factory=dict)


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


class Draft(Protocol):
    """What a voice would make of phonemes by itself: lengths, and when those are settled, a melody.

    Attributes:
        lengths: (n + 2,) float, exact frames of the n symbols and of the silences before and after, at the
            speed that the voice was trained at.
    """

    @property
    def lengths(self) -> np.ndarray: ...

    def contours(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pitch (Hz) and energy, (2 * frames,) float32 each, for these whole lengths."""
        ...


class ProsodyModel(Protocol):
    """A voice that is open in the middle: it proposes prosody, and renders whatever prosody it is given.

    Attributes:
        vocabulary: the symbols that it knows, and their numbers.
        limit: longest run of symbols.
    """

    vocabulary: dict[str, int]
    limit: int

    def draft(self, symbols: str, voice: Voice) -> Draft:
        """Propose prosody for a run of symbols."""
        ...

    def render(self, plan: ProsodyPlan, voice: Voice, *, soon: bool = True) -> Iterator[np.ndarray]:
        """Audio of the heard frames of a plan, without its gain, tilt, breath and stretch, in pieces.

        Args:
            soon: somebody waits for the first piece, which should then be short.

        Returns:
            float32 at 24 kHz, together 600 samples a frame.
        """
        ...
