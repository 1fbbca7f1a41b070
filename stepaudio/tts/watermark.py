"""A watermark that cannot be heard in what the voices say, and its detector.

The mark is an echo that nobody takes for one: 560 faint copies of the sound, 10 to 80 ms late, 15 dB below it
all together; the sign of each comes from the installation's key. Before 10 ms an echo would meddle with the
pitch that hides it, and after 80 ms it would be heard in pauses, so it fades on the way. This is
echo hiding (Gruhl, Lu & Bender 1996) with the echo spread over time (Ko, Nishimura & Suzuki 2005).

The detector does not know the sound without its echo. But a spectrum with an echo has ripples that it would
not have otherwise, the same in every frame; they are found where the logarithm of the spectrum, averaged over
frames, is taken for a signal itself (its cepstrum), as one number a copy. Each number times the sign that the
key gives the copy, all summed: that is the score. The mark does not change with time, so nothing need be
aligned: any cut-out does, and speech may be made piece by piece without delay.

How sure is it? A score is divided by the length of the vector of numbers, s = sum(sign * n) / sqrt(sum(n^2)).
Somebody else's audio knows nothing of the key, whose signs are independent coin tosses beside it. Then
Hoeffding's inequality (1963, theorem 2) bounds the chance of a false alarm, P(s >= z) <= exp(-z^2 / 2),
for any audio whatsoever: speech, music, noise, another installation's mark.

What it does not do. It says nothing of audio from other installations. It needs about 3 s of speech. It was
not made to withstand somebody who wants to be rid of it: with minutes of one installation's speech the echo
can be estimated, then taken away or forged. Speed changed by more than 1 % hides it. Noise weakens it: of
windows of 3 s, 100 % are known with white noise 10 dB below the speech, 89 % at 5 dB, 58 % at 0 dB. So does
Opus below 12 kbit/s (96 % at 8). Of two rooms that were tried, one cost more than half of the score, none hid
it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stepaudio.core.audio import AudioChunk, resample
from stepaudio.core.errors import AudioError, ConfigError
from stepaudio.files import data_folder
from stepaudio.tts.base import Speech

KEY_BYTES = 32

LEVEL_DB = -15.0
"""Of all copies together. At -14 dB DNSMOS begins to notice; at -16 dB a tenth of the score is gone."""
FIRST_MS, LAST_MS, STEP_MS, FADE_MS = 10.0, 80.0, 0.125, 80.0
"""Delays of the first and last copy, from one to the next, and within which they fade to 1/e."""
BAND_HZ = (120.0, 3500.0)
"""What telephones leave of speech, and some below; edges of 70 and 210 Hz."""

WINDOW_S = 3.0
"""Audio that is judged at once; the windows are a third of it apart."""
FALSE_ALARM = 1e-4
"""A file counts as ours where the chance that another one scores as high is at most this."""
SPEEDS = np.round(1 + np.arange(-10, 11) / 1000, 3)
"""How much faster the audio may have been played since."""
MIN_S = 0.5
"""Shortest audio that is looked at."""

_DELAYS_S = np.arange(FIRST_MS, LAST_MS, STEP_MS) / 1000
_FADE = np.exp(-1000 * _DELAYS_S / FADE_MS)

_RATE = 8_000  # Hz, of the detector
_FRAME, _HOP, _SIZE = 1536, 384, 2048  # samples: 192 ms, from frame to frame, and of the transform
_WINDOW = (round(WINDOW_S * _RATE) - _FRAME) // _HOP + 1  # frames
_STRIDE = _WINDOW // 3
_BATCH = 64  # windows worked on at once: a minute of audio
_LIFTER_MS = (8.0, 14.0)  # quefrencies below belong to the voice's timbre
_QUIET = 1e-5  # of the mean power: below, frames are pauses, whatever is in them
_OUTLIER = 3.0  # standard deviations at which a number is cut: beyond are multiples of the pitch
_NEAR = 30  # delays on either side that say how noisy a number is (4 ms)


class Watermark:
    """The mark of one key. Threads may share it.

    Args:
        key: ``KEY_BYTES`` secret bytes (``installation_key``).
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        bits = hashlib.shake_256(b"stepaudio watermark 1" + key).digest(-(-len(_DELAYS_S) // 8))
        self.signs = 1.0 - 2.0 * np.unpackbits(np.frombuffer(bits, np.uint8))[: len(_DELAYS_S)]
        self._echoes: dict[int, np.ndarray] = {}

    def stream(self, rate: int) -> WatermarkStream:
        """A stream of audio at a rate in Hz, from its beginning."""
        if rate not in self._echoes:
            self._echoes[rate] = _echo(self.signs, rate)
        return WatermarkStream(self._echoes[rate])

    def mark(self, pieces: Iterator[Speech]) -> Iterator[Speech]:
        """Speech with the mark in it, piece by piece as it comes."""
        stream = None
        for piece in pieces:
            stream = stream or self.stream(piece.audio.rate)
            yield replace(piece, audio=replace(piece.audio, samples=stream.push(piece.audio.samples)))

    def detect(self, audio: AudioChunk) -> Detection:
        """Look for the mark.

        Raises:
            AudioError: there is less than ``MIN_S`` of audio.
        """
        if audio.seconds < MIN_S:
            raise AudioError(
                f"{audio.seconds:.2f} s of audio are too few to find a watermark in: {WINDOW_S:g} s are "
                f"good, {MIN_S} s the least"
            )
        found = ripples(audio)
        scores = self.scores(np.vstack([found, found.sum(axis=0)]))
        bounds = bounds_of(scores)
        speeds = bounds.argmin(axis=1)
        rows = np.arange(len(scores))
        scores, chances = scores[rows, speeds], bounds[rows, speeds]
        count = len(found)
        chances[:-1] *= 2 * count  # half of what is allowed is for the best window,
        chances[-1] *= 2  # the other half for the whole
        best = int(chances.argmin())
        seconds = min(WINDOW_S, audio.seconds)
        begins = np.arange(count) * _STRIDE * _HOP / _RATE
        windows = tuple(
            Window(float(begin), float(begin + seconds), float(score), min(1.0, float(chance)))
            for begin, score, chance in zip(begins, scores[:-1], chances[:-1], strict=True)
        )
        speed = float(SPEEDS[speeds[best]])
        return Detection(float(scores[best]), min(1.0, float(chances[best])), speed, windows)

    def scores(self, ripples: np.ndarray) -> np.ndarray:
        """Score of each row of ``ripples`` (n, bins) at each of ``SPEEDS``: (n, speeds)."""
        return np.stack([numbers(ripples, speed) @ self.signs for speed in SPEEDS], axis=1)


class WatermarkStream:
    """Marks one stream of audio without delay: cut up in whatever way, the same comes out."""

    def __init__(self, echo: np.ndarray) -> None:
        self._echo = echo
        self._past = np.zeros(len(echo) - 1)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples, float32 (n,), with the mark in them: float32 (n,)."""
        if not len(samples):
            return samples
        heard = np.concatenate([self._past, samples])
        size = 1 << (len(heard) - 1).bit_length()  # what wraps around falls on the past
        made = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(self._echo, size), size)
        past = len(self._past)
        self._past = heard[len(samples) :]
        return (samples + made[past : past + len(samples)]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Window:
    """What was found in a part of some audio.

    Attributes:
        begin_s, end_s: where it is, in seconds.
        score: see the module; 4 is little, 10 is beyond doubt.
        false_alarm: at most so probable is it that any window of a foreign file this long scores as high.
    """

    begin_s: float
    end_s: float
    score: float
    false_alarm: float

    @property
    def found(self) -> bool:
        """Whether the mark is here."""
        return self.false_alarm <= FALSE_ALARM


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found in some audio, as a whole or in its best window, whichever says more.

    Attributes:
        score: see the module; 4 is little, 10 is beyond doubt.
        false_alarm: at most so probable is it that foreign audio scores as high.
        speed: how much faster it was played than it was made.
        windows: of ``WINDOW_S``, overlapping, in order.
    """

    score: float
    false_alarm: float
    speed: float
    windows: tuple[Window, ...]

    @property
    def found(self) -> bool:
        """Whether the key's mark is in the audio."""
        return self.false_alarm <= FALSE_ALARM

    def ranges(self) -> list[tuple[float, float]]:
        """Where it is, in seconds: the windows that have it, joined where they touch."""
        joined: list[tuple[float, float]] = []
        for window in self.windows:
            if window.found:
                begin, end = window.begin_s, window.end_s
                if joined and begin <= joined[-1][1]:
                    begin = joined.pop()[0]
                joined.append((begin, end))
        return joined


def _echo(signs: np.ndarray, rate: int) -> np.ndarray:
    """The faint copies as a filter at a rate: float64, from no delay to a little after the last copy."""
    length = math.ceil((LAST_MS + 5) * rate / 1000)
    size = 1 << (4 * length).bit_length()
    hz = np.fft.rfftfreq(size, 1 / rate)
    low, high = BAND_HZ
    edges = _rise((hz - low) / 70 + 0.5) * _rise((high - hz) / 210 + 0.5)
    inside = np.flatnonzero(edges)
    spectrum = np.zeros(len(hz), complex)
    delayed = np.exp(-2j * np.pi * np.outer(hz[inside], _DELAYS_S)) @ (_FADE * signs)
    spectrum[inside] = edges[inside] * delayed
    spectrum *= 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(np.abs(spectrum[edges == 1]) ** 2))
    return np.fft.irfft(spectrum, size)[:length]


def _rise(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, half a cosine between."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(x, 0, 1))


def _bins() -> np.ndarray:
    """Frequencies of the detector's spectra that are looked at, Hz."""
    hz = np.fft.rfftfreq(_SIZE, 1 / _RATE)
    return hz[(hz >= BAND_HZ[0]) & (hz <= BAND_HZ[1])]


def ripples(audio: AudioChunk) -> np.ndarray:
    """What is common to the log spectra of each window, beside timbre and level: (windows, bins).

    A bin counts by how far it is above the noise (the fifth of the window's frames that is softest): of a
    ripple in what the noise hides, nothing is left.
    """
    samples = resample(audio, _RATE).samples
    samples = np.pad(samples, (0, max(0, _FRAME - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP]
    size = min(_WINDOW, len(frames))
    count = (len(frames) - size) // _STRIDE + 1
    found = []
    for first in range(0, count, _BATCH):
        last = min(first + _BATCH, count)
        power, ripple = _spectra(frames[first * _STRIDE : (last - 1) * _STRIDE + size])
        for begin in range(0, (last - first) * _STRIDE, _STRIDE):
            heard, waves = power[begin : begin + size], ripple[begin : begin + size]
            noise = _smooth(3 * np.quantile(heard, 0.2, axis=0), 10) + _QUIET * heard.mean() + 1e-12
            weight = np.clip(1 - noise / np.maximum(heard, 1e-12), 0, 1) ** 2
            level = (waves * weight).sum(axis=1, keepdims=True)
            waves = waves - level / np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
            found.append((waves * weight).sum(axis=0))
    return np.stack(found)


def numbers(ripples: np.ndarray, speed: float) -> np.ndarray:
    """The numbers of a score, one a copy, for rows of ``ripples`` (n, bins): (n, copies), each row 1 long.

    They are weighted by how strong the copy is and how noisy the numbers near it are. Rows are 0 where
    nothing is heard.
    """
    found = _limited(ripples @ np.cos(2 * np.pi * np.outer(_bins(), _DELAYS_S / speed)))
    noise = np.apply_along_axis(_smooth, 1, found**2, _NEAR)
    found *= _FADE / np.where(noise > 0, noise, 1)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(length > 0, length, 1)


def _spectra(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power of frames, and their log spectrum less its envelope, softly limited: (frames, bins) each."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    power = np.abs(np.fft.rfft(frames * hann, _SIZE)) ** 2
    cepstrum = np.fft.irfft(np.log(power + 1e-12))
    ms = np.minimum(np.arange(_SIZE), _SIZE - np.arange(_SIZE)) * 1000 / _RATE
    cepstrum *= _rise((ms - _LIFTER_MS[0]) / (_LIFTER_MS[1] - _LIFTER_MS[0]))
    echoes = np.flatnonzero((ms >= FIRST_MS) & (ms <= LAST_MS))
    cepstrum[:, echoes] = _limited(cepstrum[:, echoes])
    hz = np.fft.rfftfreq(_SIZE, 1 / _RATE)
    inside = (hz >= BAND_HZ[0]) & (hz <= BAND_HZ[1])
    return power[:, inside], np.tanh(np.fft.rfft(cepstrum).real[:, inside])


def _limited(numbers: np.ndarray) -> np.ndarray:
    """Rows of (n, m), cut at ``_OUTLIER`` standard deviations as the median tells them (of a normal law)."""
    most = _OUTLIER * 1.4826 * np.median(np.abs(numbers), axis=1, keepdims=True)
    return np.clip(numbers, -most, most)


def _smooth(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean of each value of (n,) and ``reach`` on either side, mirrored at the ends."""
    padded = np.pad(values, reach, mode="reflect")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")


def bounds_of(scores: np.ndarray) -> np.ndarray:
    """Bounds of the chance of a false alarm for scores (n, speeds), speeds counted in: (n, speeds).

    Half of what is allowed is for audio at its own speed, the other half for all other speeds together.
    """
    own = SPEEDS == 1
    others = 2 * np.count_nonzero(~own)
    return np.exp(-0.5 * np.maximum(scores, 0) ** 2) * np.where(own, 2, others)


# The key


def default_file(environment: Mapping[str, str] = os.environ) -> Path:
    """``stepaudio/watermark.key`` in the user's data folder."""
    return data_folder(environment) / "watermark.key"


def new_key() -> bytes:
    """A key that nobody has."""
    return secrets.token_bytes(KEY_BYTES)


def read_key(path: Path) -> bytes | None:
    """The key in a file, None where there is no file.

    Raises:
        ConfigError: it cannot be read, or is no key.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: the watermark's key cannot be read: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path}: not a watermark's key ({KEY_BYTES} bytes); put a copy back, or move it away and speech "
            "gets a new one (what was marked with the old one is not recognised then)"
        )
    return key


def installation_key(path: Path) -> bytes:
    """The key in a file that only its owner may read; made, whole or not at all, where there is none.

    Raises:
        ConfigError: it cannot be read or written, or is no key.
    """
    key = read_key(path)
    if key is not None:
        return key
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")  # mode 0600
        try:
            with os.fdopen(made, "wb") as file:
                file.write(new_key())
            with contextlib.suppress(FileExistsError):  # another process was first: its key holds
                os.link(name, path)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise ConfigError(f"{path}: the watermark's key cannot be kept: {error.strerror}") from None
    key = read_key(path)
    assert key is not None
    return key
