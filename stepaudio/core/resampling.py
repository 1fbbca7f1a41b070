"""A streaming resampler with the filter that Step-Audio's networks were trained behind.

The filter is torchaudio's default ("sinc_interp_hann", lowpass_filter_width 6, rolloff 0.99): another moves
codes. An output sample is the sum of the inputs around it, each weighted by a sinc under a squared-cosine
window::

    w(t) = base / source * sinc(base * t) * cos(pi / 2 * base * t / 6)^2    where |base * t| < 6, else 0
    base = 0.99 * min(source, target)          t: distance in seconds

Every output sample is summed by itself: it comes out the same to the bit however the input was cut up.
"""

from __future__ import annotations

import copy
import math

import numpy as np

from stepaudio.core.errors import AudioError

MIN_RATE, MAX_RATE = 1_000, 384_000
"""Hz. Beyond them nobody records speech; the tables of the filter would grow without bound."""

_ZEROS = 6  # zero crossings of the sinc on either side
_ROLLOFF = 0.99
_BLOCK = 1 << 14  # output samples worked on at once


class SincResampler:
    """One stream at one rate turned into the same at another.

    The output is as long as the input, rounded up, and lags it by no more than seven of the slower rate's
    samples: 0.45 ms at 16 kHz.

    Args:
        source: Hz of what is pushed.
        target: Hz of what comes out.

    Raises:
        AudioError: a rate outside 1 to 384 kHz.
    """

    def __init__(self, source: int, target: int) -> None:
        for rate in (source, target):
            if not MIN_RATE <= rate <= MAX_RATE:
                raise AudioError(f"audio at {rate} Hz cannot be resampled: {MIN_RATE} to {MAX_RATE} Hz can")
        common = math.gcd(source, target)
        self._source, self._target = source // common, target // common
        base = min(self._source, self._target) * _ROLLOFF
        self._reach = math.ceil(_ZEROS * self._source / base)  # input samples on either side
        self._weights = self._table(base)
        self._seen = self._made = 0  # samples taken in, and given out
        self._held = np.zeros(self._reach, np.float32)  # what is still needed; silence comes before the start
        self._held_from = -self._reach

    def _table(self, base: float) -> np.ndarray:
        """Weights of the inputs floor(c) - reach .. floor(c) + reach + 1 about the place c of each phase.

        Computed in float32, step by step as torchaudio's functional form does for float32 audio (its module
        form works in float64): at 22.05 kHz the two differ by 1e-5, and only this one gives its numbers.
        """
        phases = np.arange(self._target)[:, None]
        inputs = phases * self._source // self._target - self._reach + np.arange(2 * self._reach + 2)
        zeros, pi, f32 = np.float32(_ZEROS), np.float32(np.pi), np.float32
        seconds = f32(inputs) / f32(self._source) - f32(phases) / f32(self._target)
        crossing = np.clip(seconds * f32(base), -zeros, zeros)
        window = np.cos(crossing * pi / zeros / f32(2)) ** 2
        return np.sinc(crossing) * window * f32(base / self._source)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next input samples, float32, shape (n,); returns the outputs that are certain by now."""
        if self._source == self._target:
            return samples
        self._seen += len(samples)
        self._held = np.concatenate([self._held, samples], dtype=np.float32)
        # The last output whose inputs are all here: floor(c) + reach + 1 < seen.
        certain = -(-(self._seen - self._reach - 1) * self._target // self._source)
        return self._until(certain)

    def flush(self) -> np.ndarray:
        """The rest, with silence after the end. The stream takes no more."""
        if self._source == self._target:
            return np.empty(0, np.float32)
        self._held = np.concatenate([self._held, np.zeros(2 * self._reach + 2, np.float32)])
        return self._until(-(-self._seen * self._target // self._source))

    def copy(self) -> SincResampler:
        """A stream of its own that goes on from here."""
        return copy.copy(self)  # its arrays are replaced, never changed

    def _until(self, end: int) -> np.ndarray:
        if end <= self._made:
            return np.empty(0, np.float32)
        made = np.zeros(end - self._made, np.float32)
        if self._held.any():  # silence stays silence: a muted microphone costs half as much
            windows = np.lib.stride_tricks.sliding_window_view(self._held, self._weights.shape[1])
            for begin in range(0, len(made), _BLOCK):
                outputs = np.arange(self._made + begin, min(self._made + begin + _BLOCK, end))
                first = outputs * self._source // self._target - self._reach - self._held_from
                weights = self._weights[outputs % self._target]
                made[begin : begin + _BLOCK] = (windows[first] * weights).sum(axis=1)
        self._made = end
        needed = end * self._source // self._target - self._reach
        self._held = self._held[needed - self._held_from :].copy()
        self._held_from = needed
        return made


def resample_sinc(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """A whole recording at another rate; float32, shape (n,) to (ceil(n * target / source),)."""
    stream = SincResampler(source, target)
    return np.concatenate([stream.push(samples.astype(np.float32, copy=False)), stream.flush()])
