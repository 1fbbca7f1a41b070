"""Log-mel features as Whisper and Smart Turn were trained on: 80 bands, 100 frames a second."""

from __future__ import annotations

from functools import cache

import numpy as np

RATE = 16_000
HOP = 160
"""Samples from one frame to the next (10 ms)."""

BANDS = 80
_WINDOW = 400  # samples (25 ms)


@cache
def hann(window: int) -> np.ndarray:
    """Hann window for spectra: the one that is periodic in ``window`` samples; float32."""
    return np.hanning(window + 1)[:-1].astype(np.float32)


@cache
def mel_filters(bands: int, window: int) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, each of unit area (shape (bands, window // 2 + 1), float32).

    The scale is linear up to 1 kHz (15 mel, 200/3 Hz each) and logarithmic above (27 mel to a factor of 6.4):
    Slaney, "Auditory Toolbox", Interval Research TR 1998-010, as Whisper's feature extractor uses it.
    """
    top_mel = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    mel = np.linspace(0, top_mel, bands + 2)
    hz = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    bins = np.fft.rfftfreq(window, 1 / RATE)
    rising = (bins - hz[:-2, None]) / np.diff(hz)[:-1, None]
    falling = (hz[2:, None] - bins) / np.diff(hz)[1:, None]
    area = 2 / (hz[2:] - hz[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


def log_mel(samples: np.ndarray, frames: int | None = None) -> np.ndarray:
    """Whisper's features (Radford et al. 2022, section 2.2; its reference code for the scaling).

    Args:
        samples: 16 kHz, shape (n,); float64 is worked on as such (what is nearly silent needs it).
        frames: how many frames to give; the audio is followed by zeros or cut. None: n // HOP of them.

    Returns:
        float32, shape (BANDS, frames), about -1..1.5, at most 2 below the loudest.
    """
    if frames is None:
        frames = len(samples) // HOP
    samples = samples[: frames * HOP + _WINDOW // 2]
    # All frames of zeros are alike: transform only as many as it takes to leave the audio behind.
    tail = frames * HOP - len(samples)
    heard = np.pad(samples, (0, max(min(tail, 2 * _WINDOW), _WINDOW - len(samples), 0)))
    heard = np.pad(heard, _WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(heard, _WINDOW)[::HOP][:frames]
    spectrum = np.fft.rfft(windows * hann(_WINDOW))
    power = (spectrum.real**2 + spectrum.imag**2).T
    log = np.full((BANDS, frames), -10, np.float32)
    # Not by BLAS: its threads wait for one another, 30 ms instead of 1 as soon as the cores have other work.
    mel = np.einsum("ij,jk->ik", mel_filters(BANDS, _WINDOW), power)
    log[:, : power.shape[1]] = np.log10(np.maximum(mel, 1e-10))
    np.maximum(log, log.max() - 8, out=log)
    return (log + 4) / 4
