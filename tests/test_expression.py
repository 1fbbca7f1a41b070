"""Styles as prosody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stepaudio.core.style import SpeechStyle
from stepaudio.tts.expression import EMOTIONS, HIGHEST_HZ, LOWEST_HZ, Expression, express, expression
from stepaudio.tts.prosody import ProsodyPlan


def plan() -> ProsodyPlan:
    """A second, half of it voiced: 100 to 200 Hz and back."""
    steps = np.arange(80)
    pitch = np.where((steps >= 20) & (steps < 60), 100 * 2 ** np.sin((steps - 20) / 40 * np.pi), 5)
    nothing = np.zeros(80, np.float32)
    return ProsodyPlan(
        "ab",
        np.array([10, 10, 10, 10]),
        pitch.astype(np.float32),
        nothing,
        nothing,
        nothing,
        nothing,
        (),
        heard=(8, 32),
    )


def expressed(**changes: float) -> ProsodyPlan:
    return express(plan(), [Expression(**changes)] * 4, np.zeros(4))


def semitones(changed: ProsodyPlan) -> np.ndarray:
    return 12 * np.log2(changed.pitch[20:60] / plan().pitch[20:60])


def test_nothing_said_is_the_very_plan() -> None:
    same = plan()
    assert express(same, [expression(SpeechStyle())] * 4, np.zeros(4)) is same


def test_pitch_moves_what_is_voiced() -> None:
    changed = expressed(pitch=3)
    assert semitones(changed) == pytest.approx(np.full(40, 3), abs=0.01)
    assert np.array_equal(changed.pitch[:20], plan().pitch[:20])


def test_range_widens_around_the_median() -> None:
    wide, narrow = (np.log2(expressed(range=r).pitch[20:60]) for r in (1.5, 0.5))
    own = np.log2(plan().pitch[20:60])
    assert np.ptp(wide) == pytest.approx(1.5 * np.ptp(own), abs=0.02)
    assert np.ptp(narrow) == pytest.approx(0.5 * np.ptp(own), abs=0.02)
    assert np.median(wide) == pytest.approx(np.median(own), abs=0.02)


def test_final_rises_over_the_phrase() -> None:
    moved = semitones(expressed(final=4))
    assert moved[0] == pytest.approx(-2, abs=0.1)
    assert moved[-1] == pytest.approx(2, abs=0.1)


def test_pitch_stays_where_voices_can_go() -> None:
    assert expressed(pitch=36).pitch.max() == pytest.approx(HIGHEST_HZ)
    assert expressed(pitch=-36).pitch[20:60].min() == pytest.approx(LOWEST_HZ)


def test_gain_tilt_and_breath() -> None:
    changed = express(plan(), [Expression(gain=3, tilt=-2)] * 4, np.array([0, 1, 0, 0]))
    assert set(changed.gain) == {3}
    assert set(changed.tilt) == {-2}
    assert changed.breath.tolist() == [0] * 20 + [1] * 20 + [0] * 40


def test_trembling_is_the_same_every_time() -> None:
    fearful = expressed(jitter=30, tremor=30)
    assert 0.05 < np.std(semitones(fearful)) < 0.6
    assert np.array_equal(fearful.pitch, expressed(jitter=30, tremor=30).pitch)


def test_a_style_is_all_it_says_at_once() -> None:
    style = SpeechStyle(emotion="happy", speed=1.5, pitch=-1, volume=2)
    happy = EMOTIONS["happy"]
    assert expression(style) == replace(
        happy, pitch=happy.pitch - 1, tempo=happy.tempo * 1.5, gain=happy.gain + 2
    )


@pytest.mark.parametrize("emotion", sorted(set(EMOTIONS) - {"neutral"}))
def test_intensities_rise_evenly(emotion: str) -> None:
    weak, middle, strong = (expression(SpeechStyle(emotion=emotion, intensity=n)) for n in (1, 2, 3))
    assert middle == expression(SpeechStyle(emotion=emotion)) == EMOTIONS[emotion]
    for name in ("pitch", "range", "tempo", "gain", "tilt", "final"):
        a, b, c = (getattr(e, name) for e in (weak, middle, strong))
        assert (a - b) * (b - c) >= 0


@pytest.mark.parametrize(("speed", "tempo"), [(None, 1), (0.01, 0.5), (7, 2), (1.2, 1.2)])
def test_speed_is_kept_within_what_voices_follow(speed: float | None, tempo: float) -> None:
    assert expression(SpeechStyle(speed=speed)).tempo == tempo


def test_unknown_emotion_is_neutral() -> None:
    assert expression(SpeechStyle(emotion="hangry")) == Expression()
