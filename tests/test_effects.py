"""What is done to audio as it comes: each alone, and that a stream is the same as the whole."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.tts.effects import CEILING, Effects, Faster, Gain, Tilt, Whisper
from stepaudio.tts.prosody import RATE, ProsodyPlan

SECOND = 80  # half frames


def tone(hz: float, seconds: float = 1.0, loud: float = 0.1) -> np.ndarray:
    return (loud * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def buzz(hz: float = 120.0) -> np.ndarray:
    """Something like a voice: many harmonics."""
    return sum((tone(hz * n, loud=0.1 / n) for n in range(1, 30)), np.zeros(RATE, np.float32))


def level(samples: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1e-12))


def curve(value: float) -> np.ndarray:
    return np.full(SECOND, value, np.float32)


def whole(effect: Gain | Tilt | Whisper | Faster, samples: np.ndarray) -> np.ndarray:
    return np.concatenate([effect.push(samples), effect.flush()])


@pytest.mark.parametrize("effect", ["gain", "tilt", "whisper", "faster", "slower"])
@pytest.mark.parametrize("size", [1, 97, 600, 5000])
def test_stream_is_the_whole(effect: str, size: int) -> None:
    def make() -> Gain | Tilt | Whisper | Faster:
        ramp = np.linspace(0, 1, SECOND, dtype=np.float32)
        return {
            "gain": lambda: Gain(6 * ramp),
            "tilt": lambda: Tilt(6 * ramp),
            "whisper": lambda: Whisper(ramp),
            "faster": lambda: Faster(1.3),
            "slower": lambda: Faster(0.8),
        }[effect]()

    samples = buzz()[:7000]
    stream = make()
    pieces = [stream.push(samples[i : i + size]) for i in range(0, len(samples), size)]
    streamed = np.concatenate([*pieces, stream.flush()])
    at_once = whole(make(), samples)
    assert (
        len(streamed)
        == len(at_once)
        == pytest.approx(len(samples) / {"faster": 1.3, "slower": 0.8}.get(effect, 1), abs=1)
    )
    assert streamed == pytest.approx(at_once, abs=1e-6)
    assert streamed.dtype == np.float32


def test_gain_makes_louder_and_never_clips() -> None:
    assert level(whole(Gain(curve(6)), tone(200))) == pytest.approx(level(tone(200)) + 6, abs=0.01)
    loud = whole(Gain(curve(12)), tone(200, loud=0.9))
    assert CEILING < np.abs(loud).max() <= 1


@pytest.mark.parametrize(("hz", "louder"), [(200, 0.0), (500, 0.0), (3000, 6.0), (8000, 6.0)])
def test_tilt_raises_what_is_high(hz: float, louder: float) -> None:
    tilted = whole(Tilt(curve(6)), tone(hz))
    assert level(tilted[500:-500]) - level(tone(hz)[500:-500]) == pytest.approx(louder, abs=0.3)


def test_tilt_does_not_delay() -> None:
    assert whole(Tilt(curve(-4)), tone(200)) == pytest.approx(tone(200), abs=0.01)


def test_whisper_takes_the_tone_and_keeps_the_formants() -> None:
    whispered = whole(Whisper(curve(1)), buzz())

    def periodicity(samples: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(samples[4800:19200] * np.hanning(14400))) ** 2
        again = np.fft.irfft(spectrum)
        return float(again[150:400].max() / again[0])  # pitch of 60 to 160 Hz

    def share_below(hz: float, samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float(power[: int(hz * len(samples) / RATE)].sum() / power.sum())

    assert periodicity(buzz()) > 0.9
    assert periodicity(whispered) < 0.35
    assert share_below(1000, whispered) > 0.8  # the buzz falls with frequency, and so does its whisper
    assert whole(Whisper(curve(0)), buzz()) == pytest.approx(buzz(), abs=1e-6)


@pytest.mark.parametrize("factor", [0.75, 1.25, 1.8])
def test_faster_keeps_the_pitch(factor: float) -> None:
    quick = whole(Faster(factor), tone(200))
    assert len(quick) == round(RATE / factor)
    middle = quick[2000:-2000]
    crossings = np.count_nonzero(np.diff(np.signbit(middle)))
    assert crossings / 2 * RATE / len(middle) == pytest.approx(200, rel=0.02)


def test_nothing_to_do_changes_no_bit() -> None:
    nothing = np.zeros(20, np.float32)
    plan = ProsodyPlan(
        "a", np.array([4, 2, 4]), nothing, nothing, nothing, nothing, nothing, (), heard=(2, 8)
    )
    effects = Effects(plan)
    samples = tone(200)[:3600]
    assert effects.push(samples) is samples
    assert len(effects.flush()) == 0


def test_effects_in_a_row_lose_no_sample() -> None:
    some = np.full(80, 0.5, np.float32)
    plan = ProsodyPlan("a", np.array([10, 20, 10]), some, some, some, some, some, (), (5, 35), stretch=1.2)
    effects = Effects(plan)
    out = [effects.push(piece) for piece in np.split(buzz()[:18000], 5)]
    assert sum(map(len, out)) + len(effects.flush()) == 15000
