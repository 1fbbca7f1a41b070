"""``bench voice``, watermark: found after what audio goes through, nowhere else, and not heard.

- *found again*: speech of several voices, each marked with keys of its own, is attacked as a whole; then
  windows of 3 s are cut out, at places that know nothing of how it was made, and each is judged alone.
- *false alarms*: recordings of real speech, music and noise. Each window of 3 s is judged with many keys that
  nobody has used; a false alarm is a verdict of "made here" (``FALSE_ALARM``).
- *not heard*: DNSMOS of each sentence with the mark and without it.
- *cost*: processor time of marking, for a second of speech in pieces as the voices make them.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from stepaudio.bench.measures import Judge
from stepaudio.bench.voice import Bound, Case
from stepaudio.bench.voice_rendering import models, spoken, texts
from stepaudio.core.audio import AudioChunk, float_to_g711, g711_to_float, join, resample
from stepaudio.core.errors import AudioError, ConfigError
from stepaudio.engine import Engine
from stepaudio.files import read_audio
from stepaudio.tts.voices import find
from stepaudio.tts.watermark import (
    FALSE_ALARM,
    KEY_BYTES,
    SPEEDS,
    WINDOW_S,
    Watermark,
    bounds_of,
    numbers,
    ripples,
)

VOICES = ("af_heart", "am_michael", "bf_emma", "zf_xiaobei", "zm_yunjian", "hibari")
SENTENCES = 10
"""Of each voice: about half a minute."""
EVERY_S = 0.97
"""From one window to the next; no multiple of anything in the mark."""
KEYS = 500
"""Keys that real audio is judged with."""

Attack = Callable[[AudioChunk], AudioChunk]


def _through(format: str, subtype: str | None, level: float) -> Attack:
    """Written to a compressed file and read again; ``level`` as libsndfile counts, 0 best and 1 smallest."""

    def attack(audio: AudioChunk) -> AudioChunk:
        data, _ = compressed(audio, format, subtype, level)
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        return AudioChunk(samples, rate)

    return attack


def compressed(audio: AudioChunk, format: str, subtype: str | None, level: float) -> tuple[bytes, float]:
    """A file, and its kbit/s."""
    file = io.BytesIO()
    mode = "CONSTANT" if format == "MP3" else None  # libsndfile has but one for Opus
    soundfile.write(
        file, audio.samples, audio.rate, subtype, format=format, bitrate_mode=mode, compression_level=level
    )
    return file.getvalue(), len(file.getvalue()) * 8 / 1000 / audio.seconds


MP3_64, OPUS_24 = ("MP3", "MPEG_LAYER_III", 0.6316), ("OGG", "OPUS", 0.928)
"""64 and 24 kbit/s (at 24 kHz); what came of it is printed."""


def _mu_law(audio: AudioChunk) -> AudioChunk:
    return AudioChunk(g711_to_float(float_to_g711(resample(audio, 8_000).samples, "mulaw"), "mulaw"), 8_000)


def _and_back(rate: int) -> Attack:
    return lambda audio: resample(resample(audio, rate), audio.rate)


def _noise(audio: AudioChunk) -> AudioChunk:
    power = np.mean(audio.samples**2) / 10  # 10 dB below
    hiss = np.random.default_rng(0).normal(0, math.sqrt(power), len(audio.samples))
    return AudioChunk((audio.samples + hiss).astype(np.float32), audio.rate)


def _faster(speed: float) -> Attack:
    def attack(audio: AudioChunk) -> AudioChunk:
        turned = resample(AudioChunk(audio.samples, round(audio.rate * speed)), audio.rate)
        return AudioChunk(turned.samples, audio.rate)

    return attack


ATTACKS: dict[str, Attack] = {
    "nothing": lambda audio: audio,
    "mu-law, 8 kHz": _mu_law,
    "MP3, 64 kbit/s": _through(*MP3_64),
    "16 kHz and back": _and_back(16_000),
    "22.05 kHz and back": _and_back(22_050),
    "44.1 kHz and back": _and_back(44_100),
    "white noise, 10 dB below": _noise,
    "34 dB softer, 16 bit": lambda a: AudioChunk(
        np.round(a.samples * 0.02 * 32768).astype(np.float32) / 32768, a.rate
    ),
    "12 dB louder, clipped": lambda a: AudioChunk(np.clip(4 * a.samples, -0.5, 0.5), a.rate),
    "Opus, 24 kbit/s": _through(*OPUS_24),
    "0.5 % faster": _faster(1.005),
    "mu-law, then noise": lambda audio: _noise(_mu_law(audio)),
}
EXTRA = ("Opus, 24 kbit/s", "0.5 % faster", "mu-law, then noise")
"""Attacks that are measured beside those that it must withstand."""


def cases(engine: Engine, data: Path, limit: int | None, step: Callable[[], None]) -> Iterator[Case]:
    """The group. ``limit``: sentences of each voice."""
    random = np.random.default_rng(0)
    made = models(engine)
    speech: dict[str, list[AudioChunk]] = {}
    for voice in map(find, VOICES):
        sentences = texts(voice, limit, SENTENCES)
        speech[voice.id] = [spoken(made[voice.engine], text, voice)[1] for text in sentences]
        step()
    keys = {voice: Watermark(random.bytes(KEY_BYTES)) for voice in VOICES}
    marked = {voice: [_marked(keys[voice], clause) for clause in speech[voice]] for voice in VOICES}
    yield from _found_again(marked, keys, step)
    yield from _false_alarms(data, limit, random, step)
    yield _unheard(engine, speech, marked, step)
    yield _cost(join(speech["af_heart"]))


def _marked(key: Watermark, audio: AudioChunk) -> AudioChunk:
    return AudioChunk(key.stream(audio.rate).push(audio.samples), audio.rate)


def _found_again(
    marked: dict[str, list[AudioChunk]], keys: dict[str, Watermark], step: Callable[[], None]
) -> Iterator[Case]:
    for name, attack in ATTACKS.items():
        scores, found = [], []
        for voice, clauses in marked.items():
            for window in windows(attack(join(clauses))):
                detection = keys[voice].detect(window)
                scores.append(detection.score)
                found.append(detection.found)
            step()
        share = "found, % of windows of 3 s"
        figures: dict[str, float | str] = {
            share: 100 * float(np.mean(found)),
            "windows": len(found),
            "score, median": float(np.median(scores)),
            "score, least": float(np.min(scores)),
        }
        if name.startswith(("MP3", "Opus")):
            kind = MP3_64 if name.startswith("MP3") else OPUS_24
            figures["kbit/s"] = compressed(join(marked[VOICES[0]]), *kind)[1]
        targets: dict[str, Bound] = {} if name in EXTRA else {share: (">=", 99.0)}
        yield Case(name, "watermark", attack(marked[VOICES[0]][0]), figures, targets)


def windows(audio: AudioChunk) -> Iterator[AudioChunk]:
    """Cut-outs of ``WINDOW_S``."""
    size, step = round(WINDOW_S * audio.rate), EVERY_S * audio.rate
    for number in range(int((len(audio.samples) - size) / step) + 1):
        begin = round(number * step)
        yield AudioChunk(audio.samples[begin : begin + size], audio.rate)


def _false_alarms(
    data: Path, limit: int | None, random: np.random.Generator, step: Callable[[], None]
) -> Iterator[Case]:
    files = sorted(
        path for path in (data / "audio").rglob("*") if path.suffix in (".wav", ".flac", ".ogg", ".mp3")
    )
    if not files:
        raise ConfigError(f"no recordings in {data / 'audio'}; name another folder with --data")
    signs = np.stack([Watermark(random.bytes(KEY_BYTES)).signs for _ in range(KEYS)], axis=1)
    seconds, count, alarms, top = 0.0, 0, 0, 0.0
    bounds = {0.1: 0, 0.01: 0}  # how often chance stays below what it is bounded by
    for path in files[:: 1 if limit is None else max(1, len(files) // (10 * limit))]:
        try:
            audio = read_audio(path, 8_000)
            found = ripples(audio)
        except AudioError:
            continue
        seconds += audio.seconds
        scores = np.stack([numbers(found, speed) @ signs for speed in SPEEDS], axis=2)
        chances = 2 * bounds_of(scores.reshape(-1, len(SPEEDS))).min(axis=1)  # of each window alone
        count += len(chances)
        alarms += int(np.count_nonzero(chances <= FALSE_ALARM))
        top = max(top, float(scores.max()))
        for bound in bounds:
            bounds[bound] += int(np.count_nonzero(chances <= bound))
        step()
    rate = "false alarms, share of windows"
    yield Case(
        "real speech, music, noise",
        "watermark",
        None,
        {
            rate: alarms / count,
            "false alarms": alarms,
            "windows times keys": count,
            "minutes": seconds / 60,
            "score, highest": top,
            **{f"share where the bound says {bound:g}": hits / count for bound, hits in bounds.items()},
        },
        {rate: ("<=", 1e-4)},
    )


def _unheard(
    engine: Engine,
    speech: dict[str, list[AudioChunk]],
    marked: dict[str, list[AudioChunk]],
    step: Callable[[], None],
) -> Case:
    judge, drops = Judge(engine), []
    for voice, clauses in speech.items():
        for plain, with_mark in zip(clauses, marked[voice], strict=True):
            drops.append(judge.mos(plain) - judge.mos(with_mark))
        step()
    error = float(np.std(drops, ddof=1) / math.sqrt(len(drops))) if len(drops) > 1 else math.nan
    return Case(
        "quality",
        "watermark",
        None,
        {"DNSMOS drop": float(np.mean(drops)), "standard error": error, "sentences": len(drops)},
        {"DNSMOS drop": ("<=", 0.02)},
    )


def _cost(audio: AudioChunk) -> Case:
    figures: dict[str, float | str] = {}
    for piece_s in (0.5, 0.1):
        stream, size = Watermark(bytes(KEY_BYTES)).stream(audio.rate), round(piece_s * audio.rate)
        stream.push(audio.samples[:size])
        began = time.process_time()
        for begin in range(0, len(audio.samples), size):
            stream.push(audio.samples[begin : begin + size])
        figures[f"work, s for a second in pieces of {piece_s:g} s"] = (
            time.process_time() - began
        ) / audio.seconds
    figures["added delay, ms"] = 0
    return Case("cost", "watermark", None, figures, dict.fromkeys(list(figures)[:2], ("<=", 0.01)))
