"""AudioChunk, int16 and back, joining."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.core.audio import (
    AudioChunk,
    float_to_g711,
    float_to_pcm16,
    g711_to_float,
    join,
    pcm16_to_float,
    resample,
)


def test_every_pcm16_value_survives_the_way_through_float():
    values = np.arange(-32768, 32768, dtype=np.int16)
    assert np.array_equal(float_to_pcm16(pcm16_to_float(values)), values)


def test_what_is_too_loud_is_clipped_not_wrapped():
    assert float_to_pcm16(np.array([1.0, 2.0, -1.0, -3.0])).tolist() == [32767, 32767, -32768, -32768]


def test_join_keeps_the_place_in_the_stream():
    a = AudioChunk(np.zeros(3, np.float32), 8000, 5)
    b = AudioChunk(np.ones(2, np.float32), 8000, 8)
    both = join([a, b])
    assert both.samples.tolist() == [0, 0, 0, 1, 1] and (both.rate, both.start) == (8000, 5)
    assert both.seconds == 5 / 8000


def test_join_needs_chunks_of_one_rate():
    with pytest.raises(ValueError):
        join([])
    with pytest.raises(ValueError):
        join([AudioChunk(np.zeros(1), 8000), AudioChunk(np.zeros(1), 16000)])


def test_resample_keeps_the_tone_and_its_place():
    tone = AudioChunk(np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000).astype(np.float32), 24_000, 48_000)
    lower = resample(tone, 16_000)
    assert (lower.rate, lower.start, len(lower.samples), lower.samples.dtype) == (
        16_000,
        32_000,
        16_000,
        np.float32,
    )
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(lower.samples - expected)[500:-500].max() < 1e-3
    assert resample(tone, 24_000) is tone


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_every_octet_of_telephone_audio_survives(law):
    octets = bytes(code for code in range(256) if (law, code) != ("mulaw", 0x7F))  # its other zero is 0xFF
    assert float_to_g711(g711_to_float(octets, law), law) == octets


@pytest.mark.parametrize(
    ("law", "octet", "value"),
    [  # ITU-T G.711: the ends, the smallest steps, and silence
        ("mulaw", 0x00, -32124),
        ("mulaw", 0x80, 32124),
        ("mulaw", 0xFF, 0),
        ("mulaw", 0xFE, 8),
        ("alaw", 0x2A, -32256),
        ("alaw", 0xAA, 32256),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
    ],
)
def test_telephone_audio_is_what_the_standard_says(law, octet, value):
    assert g711_to_float(bytes([octet]), law)[0] * 32768 == value


def test_telephone_audio_is_the_nearest_and_clipped():
    samples = np.linspace(-1.2, 1.2, 4001).astype(np.float32)
    back = g711_to_float(float_to_g711(samples, "mulaw"), "mulaw")
    assert np.abs(back - np.clip(samples, -0.98, 0.98)).max() < 0.02
    assert float_to_g711(np.zeros(2, np.float32), "mulaw") == b"\xff\xff"
