"""How something is to be spoken, as data. What a voice can truly do of it, its ``Capabilities`` say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True, slots=True)
class SpeechStyle:
    """A manner of speaking; ``None`` means not said: inherit.

    Attributes:
        emotion: canonical English key.
        intensity: 1..3.
        dialect: BCP-47-like: "en", "cmn", "cmn-sichuan", "yue".
        mode: how the voice is used.
        speed: 1.0 is as trained; 2.0 is twice as fast.
        pitch: semitones up.
        volume: dB.
    """

    emotion: str | None = None
    intensity: int | None = None
    dialect: str | None = None
    mode: Literal["speak", "whisper", "rap", "hum", "sing"] | None = None
    speed: float | None = None
    pitch: float | None = None
    volume: float | None = None

    def over(self, base: SpeechStyle) -> SpeechStyle:
        """This style, its gaps filled from ``base``."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return SpeechStyle(**{k: getattr(base, k) if v is None else v for k, v in own.items()})
