"""Styles as prosody: what emotions, emphasis, speed and the rest change in how a voice would say something.

An emotion is a row of numbers. Their signs follow the literature on emotional speech (Murray & Arnott 1993;
Banse & Scherer 1996; Juslin & Laukka 2003; Bulut & Narayanan 2008: the range of pitch tells more than its
mean); their size is our choice, such that words stay clear and the speaker the same (``bench voice``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stepaudio.core.style import SpeechStyle
from stepaudio.core.tags import SPEEDS
from stepaudio.tts.prosody import FRAME, RATE, VOICED_HZ, ProsodyPlan

LOWEST_HZ, HIGHEST_HZ = 60.0, 520.0
"""No edit goes beyond: voices creak below, and break above."""


@dataclass(frozen=True, slots=True)
class Expression:
    """What is changed in a voice's own prosody.

    Attributes:
        pitch: semitones up.
        range: times that the melody moves as far from its median.
        tempo: times as fast.
        gain: dB louder.
        tilt: dB more above 1.5 kHz: effort sounds bright, its lack dull.
        final: semitones that pitch rises (falls) from the beginning of the phrase to its end.
        jitter: cents, random from one period of the melody to the next.
        tremor: cents, a trembling at 6.5 Hz.
    """

    pitch: float = 0.0
    range: float = 1.0
    tempo: float = 1.0
    gain: float = 0.0
    tilt: float = 0.0
    final: float = 0.0
    jitter: float = 0.0
    tremor: float = 0.0

    def scaled(self, strength: float) -> Expression:
        """The same manner, stronger or weaker; 1 leaves it as it is, 0 takes it away."""
        return Expression(
            self.pitch * strength,
            self.range**strength,
            self.tempo**strength,
            self.gain * strength,
            self.tilt * strength,
            self.final * strength,
            self.jitter * strength,
            self.tremor * strength,
        )

    def and_(self, other: Expression) -> Expression:
        """Both at once."""
        return Expression(
            self.pitch + other.pitch,
            self.range * other.range,
            self.tempo * other.tempo,
            self.gain + other.gain,
            self.tilt + other.tilt,
            self.final + other.final,
            self.jitter + other.jitter,
            self.tremor + other.tremor,
        )


EMOTIONS = {
    "neutral": Expression(),
    "happy": Expression(2.2, 1.4, 1.06, 2, 0.5, final=1),
    "sad": Expression(-1.4, 0.65, 0.84, -4, -1, final=-1),
    "angry": Expression(1.2, 1.3, 1.08, 4.5, 2.2),
    "fearful": Expression(2.5, 0.75, 1.15, -2.5, 0, jitter=2, tremor=12),
    "surprised": Expression(3.0, 1.45, 1.0, 2, 0, final=2.5),
    "calm": Expression(-1.2, 0.65, 0.91, -1.5, -1),
    "tender": Expression(0.3, 0.7, 0.87, -4, -2.5),
    "excited": Expression(2.3, 1.35, 1.14, 4, 1, final=0.5),
    "serious": Expression(-1.6, 0.75, 0.94, 1.5, 1),
    "playful": Expression(2.4, 1.5, 0.91, -0.5, -0.5, final=1.2),
}
"""Every emotion at its middle intensity."""
INTENSITIES = {1: 0.5, 2: 1.0, 3: 1.45}
"""How strongly: an exponent of factors, a factor of the rest."""
EMPHASIS = {
    -1: Expression(pitch=-1.0, range=0.7, tempo=1.12, gain=-3),
    0: Expression(),
    1: Expression(pitch=1.2, range=1.2, tempo=0.88, gain=2),
    2: Expression(pitch=2.2, range=1.4, tempo=0.78, gain=3.5, tilt=1),
}


def expression(style: SpeechStyle) -> Expression:
    """What a style changes, all of it together."""
    emotion = EMOTIONS.get(style.emotion or "neutral", EMOTIONS["neutral"])
    felt = emotion.scaled(INTENSITIES[min(max(style.intensity or 2, 1), 3)])
    speed = min(max(style.speed or 1.0, SPEEDS[0]), SPEEDS[1])
    said = Expression(
        pitch=style.pitch or 0.0,
        range=1.0 if style.pitch_range is None else style.pitch_range,
        tempo=speed,
        gain=style.volume or 0.0,
    )
    return felt.and_(said).and_(EMPHASIS[style.emphasis or 0])


def express(plan: ProsodyPlan, expressions: Sequence[Expression], breath: np.ndarray) -> ProsodyPlan:
    """Draw a plan's expressions into its curves; its lengths are already what they ask for.

    Args:
        expressions: one for every symbol, the silences at the ends included.
        breath: the same, 0 to 1.
    """
    if not breath.any() and all(expression == Expression() for expression in expressions):
        return plan

    def curve(name: str, smooth: int = 5) -> np.ndarray:
        values = plan.steps(np.array([getattr(e, name) for e in expressions], np.float32))
        return _smooth(values, smooth)

    return plan.edit(
        pitch=_melody(plan, curve),
        gain=np.clip(plan.gain + curve("gain"), -60, 18).astype(np.float32),
        tilt=np.clip(plan.tilt + curve("tilt"), -18, 12).astype(np.float32),
        breath=np.maximum(plan.breath, plan.steps(breath.astype(np.float32))),
    )


def _melody(plan: ProsodyPlan, curve: Callable[..., np.ndarray]) -> np.ndarray:
    voiced = np.flatnonzero(plan.pitch > VOICED_HZ)
    if not len(voiced):
        return plan.pitch
    median = float(np.median(plan.pitch[voiced]))
    height = 12 * np.log2(np.maximum(plan.pitch, 1e-3) / median)
    place = (np.arange(len(height)) - voiced[0]) / max(1, voiced[-1] - voiced[0]) - 0.5
    height = height * curve("range") + curve("pitch") + curve("final", 1) * np.clip(place, -0.5, 0.5)
    seconds = np.arange(len(height)) * FRAME / 2 / RATE
    height += curve("tremor") / 100 * np.sin(2 * np.pi * 6.5 * seconds)
    jitter = curve("jitter") / 100
    if jitter.any():
        height += jitter * np.random.default_rng(0).standard_normal(len(height))
    pitch = np.clip(median * 2 ** (height / 12), LOWEST_HZ, HIGHEST_HZ)
    return np.where(plan.pitch > VOICED_HZ, pitch, plan.pitch).astype(np.float32)


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average over an odd number of half frames, the ends held."""
    if width == 1 or (values == values[0]).all():
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid").astype(np.float32)
