"""The streaming resampler: the formula of its filter, and streams that give what wholes give."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.core.errors import AudioError
from stepaudio.core.resampling import SincResampler, resample_sinc

RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 44_099, 48_000]


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def by_the_formula(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """Sum over all inputs of x[i] base/source sinc(base t) cos^2(pi base t / 12), t = i/source - j/target."""
    base = 0.99 * min(source, target)
    t = np.arange(len(samples)) / source - np.arange(-(-len(samples) * target // source))[:, None] / target
    window = np.where(np.abs(base * t) < 6, np.cos(np.pi * base * t / 12) ** 2, 0)
    return (np.sinc(base * t) * window) @ samples * base / source


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_the_filter_is_the_published_one(rate: int):
    samples = noise(700)
    ours = resample_sinc(samples, rate, 16_000)
    np.testing.assert_allclose(ours, by_the_formula(samples, rate, 16_000), atol=2e-4)


@pytest.mark.parametrize("rate", RATES)
def test_a_stream_is_the_whole_to_the_bit(rate: int):
    samples = noise(rate // 2 + 7)
    whole = resample_sinc(samples, rate, 16_000)
    assert len(whole) == -(-len(samples) * 16_000 // rate)
    for piece in (1_000, 441, 7):
        stream = SincResampler(rate, 16_000)
        parts = [stream.push(samples[i : i + piece]) for i in range(0, len(samples), piece)]
        np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), whole)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_silence_between_sounds_changes_neither(rate: int):
    samples = np.concatenate([noise(200), np.zeros(500, np.float32), noise(100)])
    stream = SincResampler(rate, 16_000)
    parts = [stream.push(samples[i : i + 50]) for i in range(0, len(samples), 50)]
    whole = resample_sinc(samples, rate, 16_000)
    np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), whole)
    np.testing.assert_allclose(whole, by_the_formula(samples, rate, 16_000), atol=2e-4)
    assert any(len(part) and not part.any() for part in parts)


def test_a_tone_of_a_telephone_line_stays_what_it_is():
    at_8k, at_16k = (np.sin(2 * np.pi * 1000 * np.arange(rate) / rate) for rate in (8_000, 16_000))
    inner = slice(200, -200)  # the ends fade into the silence around
    difference = resample_sinc(at_8k.astype(np.float32), 8_000, 16_000) - at_16k
    assert np.abs(difference[inner]).max() < 0.01


def test_the_lag_is_under_half_a_millisecond():
    stream = SincResampler(48_000, 16_000)
    assert len(stream.push(noise(48_000))) >= 16_000 - 8


def test_a_copy_goes_its_own_way():
    samples = noise(900)
    stream = SincResampler(48_000, 16_000)
    stream.push(samples[:500])
    other = stream.copy()
    other.push(np.zeros(500, np.float32))
    rest = np.concatenate([stream.push(samples[500:]), stream.flush()])
    np.testing.assert_array_equal(rest, resample_sinc(samples, 48_000, 16_000)[-len(rest) :])


def test_nothing_is_nothing():
    assert len(resample_sinc(noise(0), 44_100, 16_000)) == 0


@pytest.mark.parametrize("rate", [0, -16_000, 999, 400_000])
def test_what_is_no_rate(rate: int):
    with pytest.raises(AudioError, match=f"{rate} Hz cannot be resampled"):
        SincResampler(rate, 16_000)
