"""What is done to a voice's audio as it comes: whisper, brightness, loudness, tempo.

A network's own controls do not reach these: its energy changes loudness by 1.4 dB at most, the whisper that
it makes of unvoiced pitch buzzes, and it speaks no sound in less than 25 ms (docs/LOG.md).
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np

from stepaudio.tts.prosody import RATE, STEP, ProsodyPlan
from stepaudio.tts.sounds import Sounds

TILT_HZ = 1500.0
"""Where brightness begins."""
CEILING = 0.89
"""Loudest sample that is left as it is (-1 dB); beyond, loudness is bent to stay below 1."""
WHISPER_DB = -6.0
"""Loudness of breath beside the voice that it replaces."""
LPC_ORDER = 24
"""Enough for five formants below 12 kHz."""


class Effect(Protocol):
    """A stream: what comes out may come later than what went in, and all of it with ``flush``."""

    def push(self, samples: np.ndarray) -> np.ndarray: ...
    def flush(self) -> np.ndarray: ...


class Effects:
    """All that a plan wants done to the audio of its heard frames, in a row. Nothing to do changes no bit.

    Args:
        plan: whose audio will be pushed, from its first heard frame on.
    """

    def __init__(self, plan: ProsodyPlan) -> None:
        heard = slice(2 * plan.heard[0], 2 * plan.heard[1])
        self._row: list[Effect] = []
        if plan.breath[heard].any():
            self._row.append(Whisper(plan.breath[heard]))
        if plan.tilt[heard].any():
            self._row.append(Tilt(plan.tilt[heard]))
        if plan.gain[heard].any():
            self._row.append(Gain(plan.gain[heard]))
        if plan.sounds:
            self._row.append(Sounds([(frame - plan.heard[0], name) for frame, name in plan.sounds]))
        if plan.stretch != 1:
            self._row.append(Faster(plan.stretch))

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take audio; return what is ready."""
        for effect in self._row:
            samples = effect.push(samples)
        return samples

    def flush(self) -> np.ndarray:
        """The audio is over: return the rest."""
        rest = np.zeros(0, np.float32)
        for effect in self._row:
            rest = np.concatenate([effect.push(rest), effect.flush()])
        return rest


class _Curve:
    """A curve given for half frames, read sample by sample, from the first on."""

    def __init__(self, steps: np.ndarray) -> None:
        self._steps = steps.astype(np.float64)
        self._middles = (np.arange(len(steps)) + 0.5) * STEP
        self._at = 0

    def next(self, count: int) -> np.ndarray:
        places = np.arange(self._at, self._at + count) + 0.5
        self._at += count
        return np.interp(places, self._middles, self._steps)


class Gain:
    """Loudness in dB. What would be clipped is bent instead (a hyperbolic tangent above ``CEILING``)."""

    def __init__(self, db: np.ndarray) -> None:
        self._db = _Curve(db)

    def push(self, samples: np.ndarray) -> np.ndarray:
        louder = samples * 10 ** (self._db.next(len(samples)) / 20)
        over = np.abs(louder) > CEILING
        room = 1 - CEILING
        bent = np.sign(louder) * (CEILING + room * np.tanh((np.abs(louder) - CEILING) / room))
        return np.where(over, bent, louder).astype(np.float32)

    def flush(self) -> np.ndarray:
        return np.zeros(0, np.float32)


class Tilt:
    """A high shelf in dB that may move: what a symmetric filter finds above ``TILT_HZ`` is louder."""

    def __init__(self, db: np.ndarray) -> None:
        self._db = _Curve(db)
        self._filter = _high_pass()
        self._before = np.zeros(len(self._filter) - 1)
        self._skip = len(self._filter) // 2  # the delay of the filter

    def push(self, samples: np.ndarray) -> np.ndarray:
        whole = np.concatenate([self._before, samples])
        self._before = whole[len(whole) - len(self._filter) + 1 :]
        if len(whole) < len(self._filter):
            return np.zeros(0, np.float32)
        high = np.convolve(whole, self._filter, mode="valid")
        plain = whole[len(self._filter) // 2 :][: len(high)]
        skip, self._skip = min(self._skip, len(high)), max(0, self._skip - len(high))
        high, plain = high[skip:], plain[skip:]
        return (plain + (10 ** (self._db.next(len(plain)) / 20) - 1) * high).astype(np.float32)

    def flush(self) -> np.ndarray:
        return self.push(np.zeros(len(self._filter) // 2, np.float32))


@cache
def _high_pass(taps: int = 97) -> np.ndarray:
    places = np.arange(taps) - taps // 2
    low = np.sinc(2 * TILT_HZ / RATE * places) * np.hanning(taps + 2)[1:-1]
    low /= low.sum()
    high = -low
    high[taps // 2] += 1
    return high


class Whisper:
    """Breath in the place of the voice: each 25 ms, noise is given the sound's formants (linear prediction).

    Args:
        breath: for every half frame, 0 (the voice) to 1 (only breath).
    """

    _SIZE, _HOP = 2 * STEP, STEP

    def __init__(self, breath: np.ndarray) -> None:
        self._breath = _Curve(breath)
        self._noise = np.random.default_rng(0)
        self._waiting = np.zeros(self._HOP)  # input not yet analysed, half a window before it
        self._tail = np.zeros(self._HOP)  # output of the last window that the next one overlaps
        self._skip = self._HOP
        self._window = np.sqrt(np.hanning(self._SIZE + 1)[:-1])
        self._taken = self._given = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        self._taken += len(samples)
        waiting = np.concatenate([self._waiting, samples])
        count = (len(waiting) - self._HOP) // self._HOP
        if count < 1:
            self._waiting = waiting
            return np.zeros(0, np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(waiting, self._SIZE)[:: self._HOP][:count]
        self._waiting = waiting[count * self._HOP :]
        breath = self._breathe(frames * self._window) * self._window
        out = breath[:, : self._HOP].copy()
        out[0] += self._tail
        out[1:] += breath[:-1, self._HOP :]
        self._tail = breath[-1, self._HOP :]
        whispered, voice = out.reshape(-1), waiting[: count * self._HOP]
        skip, self._skip = min(self._skip, len(voice)), max(0, self._skip - len(voice))
        share = self._breath.next(len(voice) - skip)
        self._given += len(share)
        return ((1 - share) * voice[skip:] + share * whispered[skip:]).astype(np.float32)

    def _breathe(self, frames: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(frames, 2 * self._SIZE)
        power = np.fft.irfft(np.abs(spectrum) ** 2)[:, : LPC_ORDER + 1]
        power[:, 0] = power[:, 0] * 1.0001 + 1e-9
        places = np.abs(np.subtract.outer(np.arange(LPC_ORDER), np.arange(LPC_ORDER)))
        predictor = np.linalg.solve(power[:, places], power[:, 1:, None])[..., 0]
        left = np.maximum(
            power[:, 0] - (predictor * power[:, 1:]).sum(axis=1), 1e-12
        )  # energy of the residual
        whitener = np.fft.rfft(np.concatenate([np.ones((len(frames), 1)), -predictor], axis=1), self._SIZE)
        noise = np.fft.rfft(self._noise.standard_normal(frames.shape) * self._window)
        level = np.sqrt(left / (self._window**2).sum()) * 10 ** (WHISPER_DB / 20)
        return np.fft.irfft(level[:, None] * noise / whitener)

    def flush(self) -> np.ndarray:
        left = self._taken - self._given
        return self.push(np.zeros(2 * self._SIZE, np.float32))[:left]


class Faster:
    """The same pitch in less time (WSOLA, Verhelst & Roelands 1993): windows of 30 ms, laid where they fit.

    Args:
        factor: times as fast, 0.5 to 2.
    """

    _HOP = 360  # samples between windows of the output
    _SEARCH = 180  # samples by which a window may be moved to fit

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._input = np.zeros(0)
        self._dropped = 0  # samples of the input that are gone from ``_input``
        self._count = 0  # windows laid
        self._end = np.zeros(0)  # second half of the last window, faded out
        self._follow = 0  # where the input goes on after the last window, unfaded
        self._fade = np.hanning(2 * self._HOP + 1)[: self._HOP]
        self._taken = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        self._taken += len(samples)
        self._input = np.concatenate([self._input, samples])
        return self._lay(final=False)

    def flush(self) -> np.ndarray:
        pad = 3 * self._HOP + 2 * self._SEARCH + int(self._HOP * self._factor)
        want = round(self._taken / self._factor) - self._count * self._HOP
        self._input = np.concatenate([self._input, np.zeros(pad)])
        return self._lay(final=True)[: max(0, want)]

    def _lay(self, *, final: bool) -> np.ndarray:
        out = []
        hop = self._HOP
        while True:
            ideal = round(self._count * hop * self._factor)
            low = max(0, ideal - self._SEARCH)
            last = max(ideal + self._SEARCH, self._follow) + 2 * hop
            if last > self._dropped + len(self._input) or (final and ideal >= self._taken):
                break
            begin = ideal
            if self._count:
                natural = self._part(self._follow, hop)
                around = self._part(low, ideal + self._SEARCH - low + hop)
                begin = low + _best(around, natural)
            window = self._part(begin, 2 * hop)
            first = window[:hop]
            if self._count:
                first = first * self._fade + self._end
            out.append(first)
            self._end = window[hop:] * (1 - self._fade)
            self._follow = begin + hop
            self._count += 1
            keep = min(self._follow, max(0, round(self._count * hop * self._factor) - self._SEARCH))
            self._input = self._input[keep - self._dropped :]
            self._dropped = keep
        return np.concatenate(out).astype(np.float32) if out else np.zeros(0, np.float32)

    def _part(self, begin: int, count: int) -> np.ndarray:
        return self._input[begin - self._dropped :][:count]


def _best(around: np.ndarray, wanted: np.ndarray) -> int:
    """Where in ``around`` a stretch is most like ``wanted``: normalised cross-correlation."""
    match = np.correlate(around, wanted, mode="valid")
    power = np.convolve(around**2, np.ones(len(wanted)), mode="valid")
    return int(np.argmax(match / np.sqrt(power + 1e-9)))
