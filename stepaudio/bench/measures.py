"""What is measured of a voice: pitch, quality, level, tilt, onsets, intelligibility, likeness.

Everything is measured on the audio, as a listener would have it: nothing is taken from what the voice was
asked for or says of itself. The pitch is tracked by WORLD's Harvest (Morise 2017), quality is judged by
DNSMOS P.835 (Reddy et al. 2022), words by the service's own recogniser, likeness by its speaker encoder.
DNSMOS was trained on noisy and denoised speech: it knows nothing of melody, takes music for noise, and cannot
tell whether an emotion is believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stepaudio.bench.scores import Errors, errors
from stepaudio.core.audio import AudioChunk, resample
from stepaudio.core.errors import ConfigError
from stepaudio.engine import Engine
from stepaudio.recognition.base import RATE
from stepaudio.recognition.features import hann, mel_filters
from stepaudio.recognition.speakers import similarity

STEP_S = 0.005
"""Seconds from one value of a pitch track to the next."""
PLAN_STEP_S = 0.0125
"""The same of a prosody plan."""
VOICED = 40.0
"""Hz; a plan asks for no voice below it."""

_FRAME = 400  # samples at 16 kHz (25 ms), half as many from one frame to the next
_FAINT = -30.0  # dB under the loud frames: pauses and breath, not speech
_EDGE = 2  # values of a track next to a change of voicing, which no tracker knows well (10 ms)


# --- pitch ------------------------------------------------------------------------------------------------


def pitch_track(audio: AudioChunk, low: float = 50.0, high: float = 800.0) -> np.ndarray:
    """The pitch every ``STEP_S``: float64, Hz, 0 where there is none.

    Harvest, then StoneMask's refinement. A singing voice may need a higher ``high``; one as low as can be
    keeps octave errors away.

    Raises:
        ConfigError: WORLD is not installed.
    """
    world = _world()
    samples = np.ascontiguousarray(audio.samples, np.float64)
    if len(samples) < audio.rate // 20:
        return np.zeros(0)
    rough, times = world.harvest(samples, audio.rate, f0_floor=low, f0_ceil=high, frame_period=1000 * STEP_S)
    return world.stonemask(samples, rough, times, audio.rate)


@cache
def _world() -> Any:
    try:
        import pyworld
    except ImportError as error:
        raise ConfigError(
            "pitch is measured with WORLD; install it with: pip install 'stepaudio[bench]'"
        ) from error
    return pyworld


def cents(hz: np.ndarray, reference: np.ndarray | float) -> np.ndarray:
    """Intervals in cents (a hundredth of a semitone)."""
    return 1200 * np.log2(hz / reference)


@dataclass(frozen=True, slots=True)
class PitchErrors:
    """How a realised pitch differs from the asked one, where both have one.

    Attributes:
        median: of the absolute difference, cents.
        percentile_90: the same.
        bias: median of the difference, cents; above 0: too high.
        voiced: share of the asked voiced values that are voiced.
    """

    median: float
    percentile_90: float
    bias: float
    voiced: float


def pitch_errors(track: np.ndarray, asked: np.ndarray, step_s: float = PLAN_STEP_S) -> PitchErrors:
    """Compare a track with an asked contour. Values within 10 ms of a change of voicing are left out.

    Args:
        track: of ``pitch_track``; begins at the same moment as ``asked``.
        asked: Hz, a value for each ``step_s``; below ``VOICED``: no voice.
        step_s: seconds.
    """
    wanted = on_track(asked, len(track), step_s)
    inner, heard = _inner(wanted > 0), _inner(track > 0)
    both = inner & heard
    if not both.any():
        return PitchErrors(float("nan"), float("nan"), float("nan"), 0.0)
    off = cents(track[both], wanted[both])
    return PitchErrors(
        float(np.median(np.abs(off))),
        float(np.percentile(np.abs(off), 90)),
        float(np.median(off)),
        float(np.mean(track[inner] > 0)),
    )


def on_track(asked: np.ndarray, length: int, step_s: float = PLAN_STEP_S) -> np.ndarray:
    """An asked contour at the moments of a track, 0 where it has no voice.

    A value of a plan stands for the span of time that begins with it, so its middle is half a step later.
    """
    times = np.arange(length) * STEP_S / step_s - 0.5
    low = np.clip(np.floor(times).astype(int), 0, len(asked) - 1)
    high = np.clip(low + 1, 0, len(asked) - 1)
    share = np.clip(times - low, 0, 1)
    voiced = (asked[low] > VOICED) & (asked[high] > VOICED)
    between = np.exp2(
        np.log2(np.maximum(asked[low], 1)) * (1 - share) + np.log2(np.maximum(asked[high], 1)) * share
    )
    return np.where(voiced, between, 0.0)


def _inner(mask: np.ndarray) -> np.ndarray:
    """What is left of the runs of a mask when ``_EDGE`` values are taken from both ends of each."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(mask, _EDGE), 2 * _EDGE + 1)
    return np.all(around, axis=1)


def note_errors(
    track: np.ndarray, notes: Sequence[tuple[float, float, float]], margin_s: float = 0.06
) -> np.ndarray:
    """For each note the difference of the median of its pitch from what is asked, in cents; nan: not heard.

    Args:
        track: of ``pitch_track``.
        notes: begin and end in seconds, pitch in Hz.
        margin_s: of each end of a note, where it glides, is left out (at most a quarter of it).
    """
    found = []
    for begin, end, hz in notes:
        margin = min(margin_s, (end - begin) / 4)
        inside = track[round((begin + margin) / STEP_S) : round((end - margin) / STEP_S)]
        voiced = inside[inside > 0]
        found.append(float(np.median(cents(voiced, hz))) if len(voiced) > len(inside) / 4 else float("nan"))
    return np.array(found)


def pitch_mean(track: np.ndarray) -> float:
    """The geometric mean of the pitch, Hz; nan where there is none."""
    voiced = track[_inner(track > 0)]
    return float(np.exp2(np.log2(voiced).mean())) if len(voiced) else float("nan")


def pitch_range(track: np.ndarray) -> float:
    """From the 10th to the 90th percentile of the pitch, semitones: octave errors of the tracker are rare
    enough not to be in it. nan where there is no pitch."""
    voiced = track[_inner(track > 0)]
    if not len(voiced):
        return float("nan")
    low, high = np.percentile(voiced, [10, 90])
    return float(12 * np.log2(high / low))


# --- level, tilt, time ------------------------------------------------------------------------------------


def level(audio: AudioChunk) -> float:
    """Mean power of what is spoken (pauses left out), dB of full scale; -120 in silence."""
    frames = _frames(audio)
    spoken = frames[_spoken(frames)]
    return _db(float(np.mean(spoken**2)) if len(spoken) else 0.0)


def tilt(audio: AudioChunk) -> float:
    """Power of 1 to 5 kHz over that of 50 Hz to 1 kHz, dB (the alpha ratio of GeMAPS, Eyben et al. 2016).

    It rises with vocal effort. Pauses are left out.
    """
    frames = _frames(audio)
    power = np.abs(np.fft.rfft(frames[_spoken(frames)] * hann(_FRAME))) ** 2
    hz = np.fft.rfftfreq(_FRAME, 1 / RATE)
    total = power.sum(axis=0)
    high, low = total[(hz >= 1000) & (hz < 5000)].sum(), total[(hz >= 50) & (hz < 1000)].sum()
    return _db(float(high)) - _db(float(low))


def spoken_span(audio: AudioChunk) -> tuple[float, float]:
    """Where speech begins and ends, seconds; (0, 0) in silence."""
    spoken = np.flatnonzero(_spoken(_frames(audio)))
    if not len(spoken):
        return 0.0, 0.0
    return spoken[0] * _FRAME / 2 / RATE, (spoken[-1] + 2) * _FRAME / 2 / RATE


def _frames(audio: AudioChunk) -> np.ndarray:
    samples = resample(audio, RATE).samples.astype(np.float64)
    samples = np.pad(samples, (0, max(0, _FRAME - len(samples))))
    return np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[:: _FRAME // 2]


def _spoken(frames: np.ndarray) -> np.ndarray:
    power = np.mean(frames**2, axis=1)
    return np.asarray(power) > max(float(np.percentile(power, 95)) * 10 ** (_FAINT / 10), 1e-12)


def _db(power: float) -> float:
    return float(10 * np.log10(max(power, 1e-12)))


_BAND = (80.0, 1000.0)  # Hz: where vowels have their power and most consonants little
_RISE_S = 0.15  # seconds around an expected onset in which it is looked for


def onsets(audio: AudioChunk, expected: Sequence[float]) -> np.ndarray:
    """When vowels begin, seconds: the envelope of 80 to 1000 Hz has risen half way; nan: it does not rise.

    Sound only for syllables that begin with a voiceless consonant or after silence: elsewhere the envelope
    has no edge.

    Args:
        audio: any rate.
        expected: about when, seconds; each is looked for within 0.15 s.
    """
    samples, rate = audio.samples.astype(np.float64), audio.rate
    spectrum, hz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / rate)
    band = np.fft.irfft(np.where((hz >= _BAND[0]) & (hz <= _BAND[1]), spectrum, 0), len(samples))
    hop = rate // 1000
    window = hann(20 * hop + 1)
    power = np.convolve(band**2, window / window.sum(), "same")[::hop]  # 1 ms
    envelope = np.sqrt(np.maximum(power, 0))
    floor = 0.02 * float(envelope.max(initial=0.0))
    found = []
    for time in expected:
        begin = max(0, round(1000 * (time - _RISE_S)))
        part = envelope[begin : round(1000 * (time + _RISE_S))]
        found.append((begin + _rise(part, 1000 * time - begin, floor)) / 1000)
    return np.array(found)


def _rise(part: np.ndarray, middle: float, floor: float) -> float:
    """Where an envelope has risen half way, nearest to ``middle``; positions in it; nan: nowhere.

    A rise goes from a trough to the next crest that is at least twice as high.
    """
    best = float("nan")
    trough = crest = 0
    for at in range(1, len(part) + 1):
        rising = at < len(part) and part[at] >= part[crest]
        if rising:
            crest = at
            continue
        fallen = at == len(part) or part[at] < 0.5 * part[crest]
        if fallen and crest > trough and part[crest] > max(2 * part[trough], floor):
            half = (part[trough] + part[crest]) / 2
            above = trough + int(np.argmax(part[trough : crest + 1] >= half))
            before = above - 1
            place = before + (half - part[before]) / (part[above] - part[before])
            if not abs(place - middle) > abs(best - middle):
                best = place
        if at < len(part) and (fallen or part[at] < part[trough]):
            trough = crest = at
    return best


def mel_differences(audio: AudioChunk, other: AudioChunk) -> np.ndarray:
    """How two recordings of equal length differ every 10 ms: mean absolute difference of 80 mel bands, dB.

    Below a power of 1e-4 a band counts as silent: what nobody hears makes no difference.
    """
    a, b = (resample(chunk, RATE).samples.astype(np.float64) for chunk in (audio, other))
    length = min(len(a), len(b))

    def bands(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples[:length], _FRAME // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::160]
        power = np.abs(np.fft.rfft(frames * hann(_FRAME))) ** 2 @ mel_filters(80, _FRAME).T
        return 10 * np.log10(np.maximum(power, 1e-4))

    return np.abs(bands(a) - bands(b)).mean(axis=1)


# --- quality ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quality:
    """Opinion scores as DNSMOS foretells them, 1..5: of all, of the speech, of the background (P.835)."""

    overall: float
    speech: float
    background: float


class Dnsmos:
    """DNSMOS P.835.

    Args:
        folder: holds ``sig_bak_ovr.onnx``.
        threads: CPU threads.
    """

    WINDOW = 144_160
    """Samples that the network hears at once (9.01 s); shorter audio is repeated."""
    # The network's raw scores to opinions: the polynomials that are published with it.
    _SPEECH = (-0.08397278, 1.22083953, 0.0052439)
    _BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
    _OVERALL = (-0.06766283, 1.11546468, 0.04602535)

    def __init__(self, folder: Path, threads: int = 2) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(folder / "sig_bak_ovr.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, audio: AudioChunk) -> Quality:
        """The mean over windows that begin a second apart."""
        samples = np.clip(resample(audio, RATE).samples, -1, 1)
        if not len(samples):
            raise ValueError("no audio to judge")
        while len(samples) < self.WINDOW:
            samples = np.concatenate([samples, samples])
        begins = range(0, len(samples) - self.WINDOW + 1, RATE)
        windows = np.stack([samples[begin : begin + self.WINDOW] for begin in begins])
        raw = np.concatenate([self._run(window[None]) for window in windows])
        speech, background, overall = (
            float(np.polyval(weights, raw[:, n]).mean())
            for n, weights in enumerate((self._SPEECH, self._BACKGROUND, self._OVERALL))
        )
        return Quality(overall, speech, background)

    def _run(self, window: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run(None, {"input_1": window})[0])


# --- what needs models ------------------------------------------------------------------------------------


class Judge:
    """The measures that need models, each loaded when first used.

    Args:
        engine: whose recogniser, speaker encoder and model store are used.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def quality(self, audio: AudioChunk) -> Quality:
        """DNSMOS. Raises ``ModelMissing``: the message is the command that gets it."""
        return self._dnsmos(audio)

    def mos(self, audio: AudioChunk) -> float:
        """DNSMOS, overall."""
        return self._dnsmos(audio).overall

    def embedding(self, audio: AudioChunk) -> np.ndarray:
        """Of the speaker encoder. Raises ``AudioError``: too little is heard."""
        return self.engine.speakers.embed(resample(audio, RATE))

    def similarity(self, audio: AudioChunk, other: AudioChunk) -> float:
        """Cosine of the embeddings of two voices."""
        return similarity(self.embedding(audio), self.embedding(other))

    def heard(self, audio: AudioChunk, language: str) -> str:
        """What the service's own recogniser understands, in its accurate mode."""
        return self.engine.transcribe(audio, language=language, mode="accurate").text

    def errors(self, audio: AudioChunk, text: str, language: str) -> Errors:
        """Words (English) or characters (Chinese) that the recogniser gets wrong.

        What is said can be written in several ways ("9:45", "nine forty-five"): the nearest counts.
        """
        return self.errors_of(self.heard(audio, language), text, language)

    def errors_of(self, heard: str, text: str, language: str) -> Errors:
        """The same of what was heard."""
        ways = (text, re.sub(r"(\d):(\d)", r"\1.\2", text), self.engine.show(text, "spoken"))
        return min((errors(way, heard, language) for way in ways), key=lambda found: found.rate)

    @cached_property
    def _dnsmos(self) -> Dnsmos:
        return Dnsmos(self.engine.store.path("dnsmos"), self.engine.config.recognition.threads)
