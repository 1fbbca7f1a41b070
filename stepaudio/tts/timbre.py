"""What of a voice is measured on its audio: melody, mean spectrum; and the filter between two spectra."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.tts.prosody import RATE

BANDS = 40
LOWEST_HZ, HIGHEST_HZ = 80.0, 7600.0
"""Of the bands: what recordings of 16 kHz hold."""
FAINT = -30.0
"""dB under the loud frames: pauses."""

_MOST_DB = 4.0  # that a filter changes
_TAPS = 511  # 21 ms; shorter than what is computed beside each piece of audio
_LOW_HZ, _HIGH_HZ = 65.0, 400.0  # of speech; the hum of mains is below
_VOICED = 0.6  # of the normalised autocorrelation
_NEARLY = 0.93  # of its greatest peak: a shorter period that is nearly as good is the true one
_CLOSURE = 20  # values of 10 ms
_STEADY = 2.0  # semitones from one value to the next; what jumps farther was tracked wrongly


@dataclass(frozen=True, slots=True)
class Melody:
    """How high a voice speaks, and how widely.

    Attributes:
        median_hz: of what is voiced.
        spread: semitones from the median to its 16th and 84th percentile, on average.
        speech_s: seconds that are no pause.
    """

    median_hz: float
    spread: float
    speech_s: float = 0.0

    @classmethod
    def of(cls, pitch: np.ndarray, speech_s: float = 0.0) -> Melody:
        """Of a pitch track, Hz; 40 and below is unvoiced."""
        low, median, high = np.percentile(pitch[pitch > 40], [16, 50, 84])
        return cls(float(median), float(6 * np.log2(high / low)), speech_s)


def melody_of(audio: AudioChunk) -> Melody:
    """The melody of a recording, by autocorrelation of 40 ms every 10 ms.

    Raises:
        ValueError: nothing in it is voiced.
    """
    size, hop = round(0.04 * audio.rate), round(0.01 * audio.rate)
    frames = _frames(audio.samples, size, hop)
    loud = _loud(np.mean(frames**2, axis=1))
    frames = frames - frames.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(frames, 2 * size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:, :size]
    # Fewer samples overlap at longer lags; their powers say by how much less they can correlate.
    power = np.cumsum(frames**2, axis=1)
    whole = power[:, -1:]
    lags = np.arange(round(audio.rate / _HIGH_HZ), round(audio.rate / _LOW_HZ))
    overlap = np.sqrt(power[:, size - lags - 1] * (whole - power[:, lags - 1])) + 1e-9
    found = correlation[:, lags] / overlap
    peak = np.zeros(found.shape, bool)
    peak[:, 1:-1] = (found[:, 1:-1] >= found[:, :-2]) & (found[:, 1:-1] > found[:, 2:])
    best = np.where(peak, found, 0).max(axis=1)
    first = np.argmax(peak & (found >= _NEARLY * best[:, None]), axis=1)
    pitch = np.where(loud & (best > _VOICED), audio.rate / lags[first], 0.0)
    jumps = np.abs(np.diff(12 * np.log2(np.maximum(pitch, 1)))) > _STEADY
    pitch[1:][jumps] = pitch[:-1][jumps] = 0
    if not pitch.any():
        raise ValueError("nothing is voiced")
    return Melody.of(pitch, float(_without_pauses(loud).sum()) * hop / audio.rate)


def spectrum_of(samples: np.ndarray, rate: int) -> np.ndarray:
    """The long-term spectrum of speech: mean dB of ``BANDS`` bands without pauses, 0 on average; float32."""
    size = round(0.025 * rate)
    frames = _frames(samples, size, size // 2) * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2 @ bands(rate, size).T
    decibels = 10 * np.log10(power[_loud(power.sum(axis=1))] + 1e-10).mean(axis=0)
    return (decibels - decibels.mean()).astype(np.float32)


@cache
def bands(rate: int, size: int) -> np.ndarray:
    """Triangles, evenly spaced in mel (2595 log10(1 + f / 700)), each of sum 1: (BANDS, size // 2 + 1)."""
    hz = np.fft.rfftfreq(size, 1 / rate)
    edges = _edges()
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    nearest = np.abs(hz - edges[1:-1, None]).argmin(axis=1)  # a band may be narrower than a bin
    triangles[np.arange(BANDS), nearest] += 1e-3
    return (triangles / triangles.sum(axis=1, keepdims=True)).astype(np.float32)


def equaliser(wanted: np.ndarray, own: np.ndarray) -> np.ndarray:
    """A filter at 24 kHz that brings one mean spectrum nearer to another: (511,) float32, symmetric.

    The difference is smoothed over five bands and limited to 4 dB either way; above the bands it stays
    what it is at their end.

    Args:
        wanted: of ``spectrum_of``.
        own: the same of what will be filtered.
    """
    difference = np.convolve(np.pad(wanted - own, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    difference = np.clip(difference, -_MOST_DB, _MOST_DB)
    hz = np.fft.rfftfreq(4096, 1 / RATE)
    gains = 10 ** (np.interp(hz, _edges()[1:-1], difference) / 20)
    taps = np.fft.fftshift(np.fft.irfft(gains))
    middle = len(taps) // 2
    return (taps[middle - _TAPS // 2 :][:_TAPS] * np.hanning(_TAPS + 2)[1:-1]).astype(np.float32)


@cache
def _edges() -> np.ndarray:
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    return 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)


def _frames(samples: np.ndarray, size: int, hop: int) -> np.ndarray:
    padded = np.pad(samples.astype(np.float64), (0, max(0, size - len(samples))))
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]


def _without_pauses(loud: np.ndarray) -> np.ndarray:
    """Closures of stops and soft sounds are speech, too: what is silent for 0.2 s and less counts."""
    filled = loud.copy()
    edges = np.flatnonzero(np.diff(loud.astype(int)))
    for end, begin in pairwise(edges):
        if loud[end] and begin - end <= _CLOSURE:
            filled[end : begin + 1] = True
    return filled


def _loud(power: np.ndarray) -> np.ndarray:
    """What is no pause: not far below the loud, and above what the pauses are (8 dB, where that is noise)."""
    silent, loud = (float(value) for value in np.percentile(power, [5, 95]))
    noise = min(silent * 10**0.8, loud * 10**-1.5)
    return power > max(loud * 10 ** (FAINT / 10), noise, 1e-12)
