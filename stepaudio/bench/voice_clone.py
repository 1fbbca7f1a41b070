"""``bench voice``, group "clone": voices made of real speakers' recordings, and how like them they are.

Of each speaker one half of the recordings is cloned from. All likeness is to the other half, of sentences
that the search never spoke. The speaker encoder that measures it is the one that the search climbs, so its
figure flatters; the long-term spectrum, which is only drawn to the first half, is the check beside it. The
ceiling is the likeness of the two halves, recorded in one session: no voice of other words can reach it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from stepaudio import cloning
from stepaudio.bench.measures import Judge
from stepaudio.bench.voice import Case
from stepaudio.core.audio import AudioChunk, join, resample
from stepaudio.core.errors import ConfigError
from stepaudio.engine import Engine
from stepaudio.files import read_audio
from stepaudio.recognition.base import RATE
from stepaudio.recognition.speakers import similarity
from stepaudio.tts.base import Voice
from stepaudio.tts.timbre import spectrum_of
from stepaudio.tts.voicebank import CONSENT, KeptVoice
from stepaudio.tts.voices import KOKORO

SPEAKERS = ("LibriSpeech-1998", "LibriSpeech-3080", "LibriSpeech-2414", "LibriSpeech-2609")
"""Those of the test data with most speech, two women and two men."""

SENTENCES = (
    "The weather turned cold in the evening, so we stayed at home and talked by the fire.",
    "She opened the letter slowly and read it twice before she said a word.",
    "Most of the people in the village had never seen the sea.",
    "You can take the first train in the morning and be back before dinner.",
    "He put the books on the table and asked where everybody had gone.",
    "There is nothing better than a long walk after a day of work.",
    "They wanted to know how much it would cost to repair the roof.",
    "The children were playing in the garden when it began to rain.",
)
"""Not those of the search."""

LIKENESS = Path(cloning.__file__).with_name("tts") / "likeness.npz"
LIKENESS_SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Please call Stella and ask her to bring these things from the store.",
)
_GAP = np.zeros(7200, np.float32)  # 0.3 s between sentences


def cases(engine: Engine, data: Path, limit: int | None, step: Callable[[], None]) -> Iterator[Case]:
    """A case for each speaker, and one for all."""
    judge = Judge(engine)
    closed = []
    with tempfile.TemporaryDirectory() as folder:
        tts = engine.config.tts.model_copy(update={"voices": Path(folder)})
        with Engine(engine.config.model_copy(update={"tts": tts})) as speaking:
            for speaker in SPEAKERS[:limit]:
                case = _case(judge, speaking, speaker, *halves(data, speaker))
                closed.append(float(case.figures["gap closed"]))
                yield case
                step()
    if closed:
        figures = {"gap closed, mean": float(np.mean(closed)), "speakers": float(len(closed))}
        yield Case("all speakers", "clone", None, figures, {"gap closed, mean": (">=", 0.5)})


def _case(judge: Judge, engine: Engine, speaker: str, first: AudioChunk, second: AudioChunk) -> Case:
    began = time.monotonic()
    recording = cloning.listen(engine, first)
    found = cloning.find(engine, recording)
    character = engine.kokoro.measured(found.character)
    minutes = (time.monotonic() - began) / 60
    voice = Voice(
        speaker.partition("-")[0].lower() + speaker.rpartition("-")[2],
        "kokoro",
        character.language,
        found.gender,
        CONSENT,
        "cloned",
    )
    engine.voice_bank.keep(KeptVoice(voice, f"the benchmark's, of {speaker}", character))
    own = judge.embedding(second)
    clone, stock = (_spoken(engine, name) for name in (voice.id, found.nearest))
    clone_like, stock_like = (similarity(judge.embedding(audio), own) for audio in (clone, stock))
    ceiling = similarity(judge.embedding(first), own)
    spectrum = spectrum_of(second.samples, second.rate)
    away = [float(np.abs(spectrum_of(a.samples, a.rate) - spectrum).mean()) for a in (clone, stock)]
    return Case(
        speaker,
        "clone",
        clone,
        {
            "likeness": clone_like,
            "likeness, best stock voice": stock_like,
            "best stock voice": found.nearest,
            "likeness, the speaker's own": ceiling,
            "gap closed": (clone_like - stock_like) / (ceiling - stock_like),
            "spectrum off, dB": away[0],
            "spectrum off, best stock voice, dB": away[1],
            "DNSMOS": judge.mos(clone),
            "DNSMOS, best stock voice": judge.mos(stock),
            "WER, %": 100 * judge.errors(clone, " ".join(SENTENCES), "en").rate,
            "minutes": minutes,
            "seconds of speech": recording.speech.seconds,
        },
        {"DNSMOS": (">=", 3.1), "WER, %": ("<=", 5.0), "minutes": ("<=", 10.0)},
        text=" ".join(SENTENCES),
    )


def _spoken(engine: Engine, voice: str) -> AudioChunk:
    parts = []
    for sentence in SENTENCES:
        parts.append(join([speech.audio for speech in engine.say(sentence, voice=voice)]).samples)
        parts.append(_GAP)
    return AudioChunk(np.concatenate(parts), 24_000)


def halves(data: Path, speaker: str) -> tuple[AudioChunk, AudioChunk]:
    """A speaker's read recordings, parted into two that are about as long; 16 kHz.

    Raises:
        ConfigError: the folder does not hold them.
    """
    try:
        rows = [json.loads(line) for line in (data / "MANIFEST.jsonl").read_text("utf-8").splitlines()]
    except OSError as error:
        raise ConfigError(
            f"{data} holds no MANIFEST.jsonl; name the folder of test data with --data"
        ) from error
    paths = sorted(row["path"] for row in rows if row.get("speaker") == speaker and row["kind"] == "asr_en")
    if len(paths) < 2:
        raise ConfigError(f"{data} holds no recordings of {speaker}")
    chunks = sorted((read_audio(data / path, RATE) for path in paths), key=lambda chunk: -len(chunk.samples))
    parts: tuple[list[AudioChunk], list[AudioChunk]] = ([], [])
    for chunk in chunks:
        min(parts, key=lambda part: sum(len(one.samples) for one in part)).append(chunk)
    first, second = (AudioChunk(np.concatenate([one.samples for one in part]), RATE) for part in parts)
    return first, second


def write_likeness(engine: Engine, path: Path = LIKENESS) -> None:
    """Write the embeddings of Kokoro's voices, which a search chooses its beginning by (float16, by name).

    They are of ``LIKENESS_SENTENCES``.
    """
    found = {}
    for voice in KOKORO:
        samples = np.concatenate(
            [
                speech.audio.samples
                for text in LIKENESS_SENTENCES
                for speech in engine.say(text, voice=voice.id)
            ]
        )
        embedding = engine.speakers.embed(resample(AudioChunk(samples, 24_000), RATE))
        found[voice.id] = embedding.astype(np.float16)
    np.savez_compressed(path, allow_pickle=False, **found)
