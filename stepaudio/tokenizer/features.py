"""What the two halves of the tokenizer listen to: Kaldi's and Whisper's spectra, as they were trained on.

All at 16 kHz. Spectra are computed in float64: the reference numbers are float32, and of two float32
computations neither is the truth in quiet bands.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import ConfigError
from stepaudio.core.resampling import resample_sinc

RATE = 16_000
HOP = 160
"""Samples from one frame to the next (10 ms), of either spectrum."""
WINDOW = 400
"""Samples of one frame (25 ms), of either spectrum."""


# --- Kaldi's, for the linguistic half -----------------------------------------------------------------------

KALDI_BANDS = 80
STACKED = 7
"""Frames that are stacked into one (LFR m)."""
STRIDE = 6
"""Frames from one stack to the next (LFR n): 60 ms, 16.7 Hz."""
_CONTEXT = (STACKED - 1) // 2  # frames before the first of a stack's own, and after
_FFT = 512
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20
_FLOOR = float(np.finfo(np.float32).eps)  # of energies
_HAMMING = np.hamming(WINDOW)


def _kaldi_filters() -> np.ndarray:
    """Triangles on HTK's mel scale, 1127 ln(1 + f / 700), drawn in mel; shape (80, 257)."""
    mel = 1127 * np.log1p(np.fft.rfftfreq(_FFT, 1 / RATE) / 700)
    low, high = 1127 * np.log1p(np.array([_LOWEST_HZ, RATE / 2]) / 700)
    corners = np.linspace(low, high, KALDI_BANDS + 2)[:, None]
    rising = (mel - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - mel) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


_KALDI_FILTERS = _kaldi_filters()


def fbank(samples: np.ndarray) -> np.ndarray:
    """Kaldi's log mel energies without dither, of audio scaled to 16-bit integers (snip_edges: whole frames).

    Args:
        samples: -1..1, shape (n,).

    Returns:
        float32, shape (1 + (n - 400) // 160, 80); (0, 80) where n < 400.
    """
    if len(samples) < WINDOW:
        return np.empty((0, KALDI_BANDS), np.float32)
    scaled = samples.astype(np.float64) * 32768
    frames = np.lib.stride_tricks.sliding_window_view(scaled, WINDOW)[::HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)  # the first sample precedes itself
    spectrum = np.fft.rfft((frames - _PREEMPHASIS * before) * _HAMMING, _FFT)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(np.maximum(power @ _KALDI_FILTERS.T, _FLOOR)).astype(np.float32)


def stack(frames: np.ndarray, *, final: bool) -> tuple[np.ndarray, np.ndarray]:
    """Low frame rate: every sixth run of seven frames as one.

    Args:
        frames: shape (t, 80), of which the first three are context of the first stack's own.
        final: whether stacks that reach past the end are filled up with the last frame; else they wait.

    Returns:
        The stacks, shape (n, 560), and the frames that the next call has to begin with.
    """
    starts = range(0, len(frames) - _CONTEXT, STRIDE)
    if not final:
        starts = [start for start in starts if start + STACKED <= len(frames)]
    rows = np.minimum(np.add.outer(np.array(starts, int), np.arange(STACKED)), len(frames) - 1)
    rest = min(len(starts) * STRIDE, len(frames) - 1)
    return frames[rows].reshape(-1, STACKED * frames.shape[1]), frames[rest:]


def first_context(frames: np.ndarray) -> np.ndarray:
    """What stands before a recording: its first frame, three times; shape (3, 80)."""
    return np.repeat(frames[:1], _CONTEXT, axis=0)


class StackedFrames:
    """Stacked frames of a stream: 560 numbers every 60 ms.

    As the reference does it: audio that gives fewer than seven frames, those kept from before included, gives
    no stack even at the end. After whole pushes of 240 ms that is a rest under 55 ms.
    """

    def __init__(self) -> None:
        self._samples = np.empty(0, np.float32)
        self._frames: np.ndarray | None = None

    def push(self, samples: np.ndarray, *, final: bool = False) -> np.ndarray:
        """The next samples (``final``: the last); the stacks that are whole by now, shape (n, 560)."""
        self._samples = np.concatenate([self._samples, samples])
        new = fbank(self._samples)
        self._samples = self._samples[len(new) * HOP :]
        if not len(new):
            return np.empty((0, STACKED * KALDI_BANDS), np.float32)
        before = first_context(new) if self._frames is None else self._frames
        self._frames = np.concatenate([before, new])
        if len(self._frames) < STACKED:
            return np.empty((0, STACKED * KALDI_BANDS), np.float32)
        stacked, self._frames = stack(self._frames, final=final)
        return stacked

    def copy(self) -> StackedFrames:
        """A stream of its own that goes on from here."""
        other = StackedFrames()
        other._samples, other._frames = self._samples, self._frames
        return other


def read_cmvn(path: Path) -> np.ndarray:
    """Mean and variance normalisation in Kaldi's text format for networks (``am.mvn``).

    Returns:
        float32, shape (2, 560): what is added, then what is multiplied.

    Raises:
        ConfigError: the file is damaged or holds other numbers.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    found = [re.search(rf"<{name}>[^\[]*<LearnRateCoef>[^\[]*\[([^\]]*)\]", text) for name in _CMVN]
    try:
        vectors = [np.array(match[1].split(), np.float32) for match in found if match]
    except ValueError:
        vectors = []
    if len(vectors) != 2 or {len(v) for v in vectors} != {STACKED * KALDI_BANDS}:
        raise ConfigError(
            f"{path} is damaged: {' and '.join(_CMVN)} should have {STACKED * KALDI_BANDS} numbers each; "
            "fetch the checkpoint again"
        )
    return np.stack(vectors)


_CMVN = ("AddShift", "Rescale")


# --- Whisper's, for the semantic half -----------------------------------------------------------------------

WHISPER_BANDS = 128


def _slaney_filters() -> np.ndarray:
    """Triangles of unit area on Slaney's mel scale; shape (128, 201).

    The scale is linear up to 1 kHz (15 mel) and logarithmic above, 27 mel to a factor of 6.4 ("Auditory
    Toolbox", Interval Research TR 1998-010).
    """
    top_mel = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    mel = np.linspace(0, top_mel, WHISPER_BANDS + 2)[:, None]
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))
    hz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (corners[2:] - corners[:-2])


SLANEY_FILTERS = _slaney_filters()
_HANN = np.hanning(WINDOW + 1)[:-1]


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Whisper's features with 128 bands, of just the audio there is (Radford et al. 2022, section 2.2).

    What is more than 8 (80 dB) below the loudest place is raised to that: every frame depends on all others.

    Args:
        samples: shape (n,), n > 200.

    Returns:
        float32, shape (128, n // 160).
    """
    padded = np.pad(samples.astype(np.float64), WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: len(samples) // HOP]
    spectrum = np.fft.rfft(frames * _HANN)
    power = spectrum.real**2 + spectrum.imag**2
    log = np.log10(np.maximum(SLANEY_FILTERS @ power.T, 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).astype(np.float32)


# --- before either ------------------------------------------------------------------------------------------

_QUIET = 0.01  # peaks below are not raised further: silence stays silence
_PEAK = 0.999
_TRIM_DB = 20
_TRIM_WINDOW, _TRIM_HOP = 512, 128
_KEPT_BEFORE, _KEPT_AFTER = 800, 3520  # samples: 50 and 220 ms
_TRIM_UNIT = 240  # samples that the speech between is rounded up to


def prepare(audio: AudioChunk, *, level: bool = True, cut: bool = False) -> AudioChunk:
    """A whole recording as the published program prepares it: 16 kHz, its peak at 0.999.

    Args:
        audio: mono, at any rate from 1 to 384 kHz.
        level: whether to raise or lower its peak.
        cut: whether to ``trim`` it, as prompts of a voice are and questions are not.

    Raises:
        AudioError: a rate beyond those.
    """
    samples = resample_sinc(audio.samples, audio.rate, RATE)
    if level:
        samples = samples * np.float32(peak_gain(samples))
    return AudioChunk(trim(samples) if cut else samples, RATE)


def peak_gain(samples: np.ndarray) -> float:
    """What a recording is multiplied with to have its peak at 0.999; at most 99.9."""
    return _PEAK / max(float(np.abs(samples).max(initial=0)), _QUIET)


def speech_span(samples: np.ndarray) -> tuple[int, int]:
    """Where the first and the last window within 20 dB of the loudest lie: begin and end, in samples.

    As ``librosa.effects.trim(top_db=20, frame_length=512, hop_length=128)`` finds them.
    """
    padded = np.pad(samples.astype(np.float64), _TRIM_WINDOW // 2)
    energy = (np.lib.stride_tricks.sliding_window_view(padded, _TRIM_WINDOW)[::_TRIM_HOP] ** 2).mean(axis=1)
    energy = np.maximum(energy, 1e-10)
    loud = np.flatnonzero(10 * np.log10(energy / energy.max()) > -_TRIM_DB)
    return int(loud[0]) * _TRIM_HOP, min(int(loud[-1] + 1) * _TRIM_HOP, len(samples))


def trim(samples: np.ndarray) -> np.ndarray:
    """A prompt without the silence around its speech, of which 50 ms before and 220 ms after are kept.

    What is lacking there is filled with zeros. The language models saw prompts cut in this way.
    """
    begin, end = speech_span(samples)
    length = -(-(end - begin) // _TRIM_UNIT) * _TRIM_UNIT + _KEPT_BEFORE + _KEPT_AFTER
    kept = samples[max(begin - _KEPT_BEFORE, 0) :]
    kept = np.pad(kept, (max(_KEPT_BEFORE - begin, 0), 0))[:length]
    return np.pad(kept, (0, length - len(kept)))
