"""How something is to be spoken, as data. What a voice can truly do of it, its ``Capabilities`` say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True, slots=True)
class SpeechStyle:
    """A manner of speaking; ``None`` means not said: inherit.

    Attributes:
        emotion: canonical English key.
        intensity: 1..3, of the emotion.
        dialect: BCP-47-like: "en", "en-GB", "cmn", "cmn-sichuan", "yue".
        mode: how the voice is used.
        speed: 1.0 is as trained; 2.0 is twice as fast.
        pitch: semitones up.
        volume: dB.
        emphasis: -1 reduced, 0 none, 1 moderate, 2 strong.
        pitch_range: how far the melody goes up and down; 1.0 is as trained, 0 is one tone.
        voice: id of the voice to speak with.
    """

    emotion: str | None = None
    intensity: int | None = None
    dialect: str | None = None
    mode: Literal["speak", "whisper", "rap", "hum", "sing"] | None = None
    speed: float | None = None
    pitch: float | None = None
    volume: float | None = None
    emphasis: int | None = None
    pitch_range: float | None = None
    voice: str | None = None

    def over(self, base: SpeechStyle) -> SpeechStyle:
        """This style, its gaps filled from ``base``. The strength of another emotion is not inherited."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        filled = {k: getattr(base, k) if v is None else v for k, v in own.items()}
        if self.emotion is not None:
            filled["intensity"] = self.intensity
        return SpeechStyle(**filled)


NO_STYLE = SpeechStyle()
"""Says nothing."""


@dataclass(frozen=True, slots=True)
class Span:
    """What holds for a part of a clause only.

    Attributes:
        begin, end: characters of the clause's text, ``end`` excluded; ``begin == end`` is a point.
        style: over the clause's.
        phonemes: said instead of the text, in the voices' alphabet (misaki).
        pause_ms: silence at the point.
        sound: made at the point: "laugh", "sigh" or "breath".
        bookmark: the name that a listener gave the point, to be told when it is reached.
    """

    begin: int
    end: int
    style: SpeechStyle = NO_STYLE
    phonemes: str | None = None
    pause_ms: int | None = None
    sound: str | None = None
    bookmark: str | None = None
