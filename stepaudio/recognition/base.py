"""What the ears of the service are, whichever model hears. Audio in is mono float32 at ``RATE``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from stepaudio.core.audio import AudioChunk

RATE = 16_000
"""Hz. Silero VAD, Smart Turn and Whisper were all trained on 16 kHz."""

Mode = Literal["fast", "accurate"]


@dataclass(frozen=True, slots=True)
class Word:
    """One word (or Chinese character) on the time line of the recording, in ms from its start."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence or phrase with its times, in ms from the start of the recording."""

    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said.

    Attributes:
        text: the whole transcript; Chinese in simplified script; "" when there is no speech.
        language: "en" or "zh" (ISO 639-1), detected or as asked.
        segments: the text with times; words within only when they were asked for.
        tokens: the recogniser's own notes, for ``before`` when more of the same audio is there.
    """

    text: str
    language: str
    segments: tuple[Segment, ...] = ()
    tokens: tuple[int, ...] = ()


class Recognizer(Protocol):
    """Speech to text, in one call. Stateless: may be shared between sessions."""

    languages: tuple[str, ...]

    def transcribe(
        self,
        audio: AudioChunk,
        *,
        language: str | None = None,
        mode: Mode = "fast",
        words: bool = False,
        before: Transcript | None = None,
        on_progress: Callable[[float, float], None] | None = None,
    ) -> Transcript:
        """Recognise ``audio`` (16 kHz, any length).

        Args:
            language: "en" or "zh"; None detects it.
            mode: "fast" for talk, "accurate" for files (a wider beam).
            words: also give the times of words.
            before: what was heard of the beginning of this audio, which may save work.
            on_progress: called now and then with the seconds done and the seconds in all.

        Raises:
            ConfigError: a language that the model is not offered for; the message names the nearest.
        """
        ...


class VoiceActivityStream(Protocol):
    """Voice activity over one stream: holds the model's state, so one per stream."""

    def push(self, frame: AudioChunk) -> float:
        """Probability 0..1 that the next 32 ms (512 samples at 16 kHz) hold speech."""
        ...


class VoiceActivity(Protocol):
    """A voice activity model: stateless, shared; ``stream()`` gives the state."""

    def stream(self) -> VoiceActivityStream: ...


class Endpointing(Protocol):
    """Has the speaker finished? Judged from the sound of the turn so far."""

    def score(self, audio: AudioChunk) -> float:
        """Probability 0..1 that the turn is complete; ``audio`` is 16 kHz, its last 8 s are used."""
        ...
