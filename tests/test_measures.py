"""Measures of a voice, on signals whose measure is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepaudio.bench import measures
from stepaudio.core.audio import AudioChunk

RATE = 24_000


def tone(hz: float | np.ndarray, seconds: float, gain: float = 0.3, rate: int = RATE) -> AudioChunk:
    """Eight harmonics, each half as loud as the one before."""
    n = int(seconds * rate)
    cycles = np.cumsum(np.broadcast_to(hz, n) / rate)
    parts = sum(0.5**k * np.sin(2 * np.pi * (k + 1) * cycles) for k in range(8))
    return AudioChunk((gain * np.asarray(parts)).astype(np.float32), rate)


def joined(*parts: AudioChunk) -> AudioChunk:
    return AudioChunk(np.concatenate([part.samples for part in parts]), parts[0].rate)


def silence(seconds: float, rate: int = RATE) -> AudioChunk:
    return AudioChunk(np.zeros(int(seconds * rate), np.float32), rate)


# Pitch


@pytest.mark.parametrize("hz", [90.0, 220.0, 440.0])
def test_pitch_of_a_tone(hz):
    pytest.importorskip("pyworld", reason="the extra bench is not installed")
    track = measures.pitch_track(joined(silence(0.3), tone(hz, 0.7), silence(0.3)))
    assert len(track) in (260, 261)
    middle = track[80:180]
    assert np.abs(measures.cents(middle, hz)).max() < 5
    assert not track[:50].any() and not track[-45:].any()


def test_too_short_audio_has_no_pitch():
    pytest.importorskip("pyworld", reason="the extra bench is not installed")
    assert len(measures.pitch_track(silence(0.01))) == 0


def test_errors_against_a_contour():
    # Asked: 200 Hz for 0.5 s (40 values of 12.5 ms), then no voice, then 300 Hz.
    asked = np.array([200.0] * 40 + [5.0] * 40 + [300.0] * 40)
    track = np.concatenate([np.full(100, 202.0), np.zeros(100), np.full(100, 303.0)])
    found = measures.pitch_errors(track, asked)
    assert (found.median, found.bias, found.percentile_90) == pytest.approx([17.23] * 3, abs=0.01)
    assert found.voiced == 1
    low = measures.pitch_errors(np.where(np.arange(300) < 250, track, 0) * 0.9, asked)
    assert low.bias == pytest.approx(17.23 - 182.4, abs=0.01) and low.median == -low.bias
    assert 0.7 < low.voiced < 0.8


def test_errors_where_nothing_is_voiced():
    found = measures.pitch_errors(np.zeros(100), np.full(40, 200.0))
    assert math.isnan(found.median) and found.voiced == 0


def test_an_asked_contour_is_read_at_the_middle_of_its_steps():
    asked = np.array([100.0, 200.0, 0.0, 100.0, 100.0])
    found = measures.on_track(asked, 13)
    # 0 ms: the first value. 6.25 ms: its middle. 18.75 ms: the middle of the second.
    assert found[:2] == pytest.approx([100, 100])
    assert found[2] == pytest.approx(100 * 2 ** (3.75 / 12.5))
    assert found[4:8] == pytest.approx([0, 0, 0, 0]) and found[9:] == pytest.approx([100] * 4)


def test_note_errors_are_of_medians_within_notes():
    track = np.concatenate([np.full(100, 220.0), np.full(100, 226.0), np.zeros(100)])
    found = measures.note_errors(track, [(0, 0.5, 220.0), (0.5, 1.0, 220.0), (1.0, 1.5, 220.0)])
    assert found[0] == 0 and found[1] == pytest.approx(46.6, abs=0.1) and math.isnan(found[2])


def test_mean_and_range_of_the_pitch():
    track = np.concatenate([np.zeros(20), np.geomspace(100, 200, 1001), np.zeros(20)])
    assert measures.pitch_mean(track) == pytest.approx(100 * math.sqrt(2), rel=1e-3)
    assert measures.pitch_range(track) == pytest.approx(0.8 * 12, abs=0.1)
    assert math.isnan(measures.pitch_mean(np.zeros(50))) and math.isnan(measures.pitch_range(np.zeros(50)))


# Level, tilt, time


def test_level_leaves_pauses_out():
    loud = tone(200, 1.0)
    exact = 10 * math.log10(float(np.mean(loud.samples.astype(float) ** 2)))
    assert measures.level(loud) == pytest.approx(exact, abs=0.1)
    assert measures.level(joined(loud, silence(2.0))) == pytest.approx(exact, abs=0.3)
    softer = AudioChunk(loud.samples / 2, RATE)
    assert measures.level(loud) - measures.level(softer) == pytest.approx(6.02, abs=0.01)
    assert measures.level(silence(1)) == -120


def test_tilt_is_the_power_above_1_khz_over_that_below():
    low, high = (np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32) for hz in (500, 2500))
    assert measures.tilt(AudioChunk(0.5 * low + 0.05 * high, RATE)) == pytest.approx(-20, abs=0.2)
    assert measures.tilt(AudioChunk(0.1 * low + 0.1 * high, RATE)) == pytest.approx(0, abs=0.2)


def test_span_of_speech():
    begin, end = measures.spoken_span(joined(silence(0.5), tone(150, 1.0), silence(0.7)))
    assert begin == pytest.approx(0.5, abs=0.03) and end == pytest.approx(1.5, abs=0.03)
    assert measures.spoken_span(silence(1.0)) == (0.0, 0.0)


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_onsets(rate):
    # Three syllables at 0.30, 0.60 and 0.85 s, each 0.15 s, risen within 10 ms; hiss before the second.
    audio = np.zeros(int(1.3 * rate))
    for begin in (0.30, 0.60, 0.85):
        part = tone(160, 0.15, rate=rate).samples
        ramp = np.minimum(1, np.arange(len(part)) / (0.010 * rate))
        audio[round(begin * rate) :][: len(part)] += part * ramp
    hiss = 0.3 * np.sin(2 * np.pi * 4000 * np.arange(int(0.08 * rate)) / rate)
    audio[round(0.52 * rate) :][: len(hiss)] += hiss
    chunk = AudioChunk(audio.astype(np.float32), rate)
    found = measures.onsets(chunk, [0.31, 0.57, 0.85])
    assert found == pytest.approx([0.305, 0.605, 0.855], abs=0.004)
    assert np.isnan(measures.onsets(chunk, [1.2])).all()
    assert np.isnan(measures.onsets(silence(1.0), [0.5])).all()


def test_differences_of_mel_spectra():
    one = AudioChunk(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), RATE)
    assert not measures.mel_differences(one, one).any()
    other = AudioChunk(one.samples.copy(), RATE)
    other.samples[12_000:] *= 2
    found = measures.mel_differences(one, other)
    assert found[:40].max() == 0 and found[60:].max() == pytest.approx(6.02, abs=0.01)


# Quality


def test_quality_falls_with_noise(model_dir):
    dnsmos = measures.Dnsmos(model_dir("dnsmos"), threads=1)
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    voice = tone(np.repeat([140.0, 170.0, 120.0, 150.0], RATE // 2), 2.0)
    clean, noisy = dnsmos(voice), dnsmos(AudioChunk(voice.samples + noise, RATE))
    assert 1 <= noisy.overall < clean.overall <= 5 and noisy.background < clean.background
    # Longer than one window: still one score; audio too loud is judged as it would be clipped.
    assert 1 <= dnsmos(joined(*[voice] * 6)).overall <= 5
    assert dnsmos(AudioChunk(voice.samples * 9, RATE)).speech < 5
    with pytest.raises(ValueError, match="no audio"):
        dnsmos(AudioChunk(np.zeros(0, np.float32), RATE))
