"""``bench tts``: how fast the voices are, and whether the service's own ears understand them.

Speed: the fast voice in seconds of work for a second of speech; Kokoro, streamed, beside the stock ONNX
model run as a whole on the same phonemes, voice and threads, sentence by sentence in turn. What counts is the
ratio.

Understanding: sentences with numbers and names (``sentences_en.txt``, ``sentences_zh.txt``) are spoken by the
default voice and recognised in the accurate mode, as ``say`` and ``transcribe`` do it. The score has the
errors of both in it.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.bench.scores import Errors, errors
from stepaudio.config import Config
from stepaudio.core.audio import AudioChunk, join
from stepaudio.core.clauses import Clause
from stepaudio.engine import Engine
from stepaudio.tts.base import Voice
from stepaudio.tts.voices import HIBARI, find

if TYPE_CHECKING:
    from rich.console import RenderableType

TARGETS = {
    "realtime_hibari": 0.03,
    "kokoro_to_stock": 1.0,
    "first_audio": 0.25,
    "error_percent": {"en": 6.0, "zh": 12.0},
}
"""All of them upper bounds."""

TEN_SECONDS = (
    "The river rose slowly through the night, and by the time the first farmers came down to the bridge in "
    "the morning, the lower fields were already a wide and quiet lake."
)
"""About 10 s of speech; spoken as one clause, to see when its first audio comes."""
ROUNDS = 3
"""Times that the long sentence is spoken by either side."""
SPEED_SENTENCES = 10
"""Sentences of the English list whose time is taken."""


class StockKokoro:
    """The published Kokoro model as its users run it: a whole utterance at once, onnxruntime's own settings.

    Args:
        engine: where weights, phonemes, voice and the number of threads come from.
    """

    rate = 24_000

    def __init__(self, engine: Engine) -> None:
        import json

        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = engine.config.tts.threads
        folder = engine.store.path("kokoro-82m")
        self._model = onnxruntime.InferenceSession(
            str(folder / "kokoro-v1.0.int8.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        self._voices = engine.store.path("kokoro-voices")
        self._voice = find(engine.config.tts.voice_en)
        self._pronouncer = engine.pronouncer

    def say(self, text: str) -> np.ndarray:
        """Speak a text of at most 510 phonemes: float32 at ``rate``."""
        phonemes = "".join(word.phonemes for word in self._pronouncer.pronounce(text))
        return self.speak(phonemes, self._voice.id)

    def speak(self, phonemes: str, voice: str) -> np.ndarray:
        """Speak phonemes with a voice."""
        tokens = [self._vocabulary[symbol] for symbol in phonemes if symbol in self._vocabulary][:510]
        table = np.fromfile(self._voices / f"{voice}.bin", "<f4").reshape(-1, 1, 256)
        (samples,) = self._model.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]]),
                "style": table[min(len(tokens), len(table) - 1)],
                "speed": np.ones(1, np.float32),
            },
        )
        return np.ravel(np.asarray(samples))


def run(
    config: Config,
    data: Path | None = None,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure; at most ``limit`` sentences of each language. ``data`` is not used: the sentences are ours."""
    lists = {language: sentences(language)[:limit] for language in ("en", "zh")}
    timed = lists["en"][:SPEED_SENTENCES]
    total = 2 * len(timed) + ROUNDS + sum(map(len, lists.values()))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    with Engine(config) as engine:
        engine.warm(parts=("recognizer", "speaker"))
        stock = StockKokoro(engine)
        stock.say("Warm.")
        voice = find(config.tts.voice_en)
        return {
            "threads": config.tts.threads,
            "targets": TARGETS,
            "hibari": _hibari(engine, timed, step),
            "kokoro": _kokoro(engine, stock, voice, timed, step),
            "heard": {language: _heard(engine, language, of, step) for language, of in lists.items()},
        }


def sentences(language: str) -> list[str]:
    """The sentences of a language ("en" or "zh")."""
    text = (files("stepaudio.bench") / f"sentences_{language}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def _hibari(engine: Engine, texts: list[str], step: Callable[[], None]) -> dict[str, Any]:
    firsts, works, lengths = [], [], []
    for text in texts:
        first_s, work_s, length_s = _timed(engine, text, HIBARI)
        firsts.append(first_s)
        works.append(work_s / length_s)
        lengths.append(length_s)
        step()
    return {
        "sentences": len(texts),
        "realtime": round(statistics.median(works), 4),
        "first_audio_ms": round(1000 * statistics.median(firsts), 1),
        "mean_length_s": round(statistics.mean(lengths), 2),
    }


def _kokoro(
    engine: Engine, stock: StockKokoro, voice: Voice, texts: list[str], step: Callable[[], None]
) -> dict[str, Any]:
    def both(n: int, text: str) -> tuple[float, float, float, float]:
        """First audio, whole, and length of ours, and the stock model's whole, in seconds."""
        stock_s = 0.0
        first_s = work_s = length_s = 0.0
        for side in ("ours", "stock") if n % 2 else ("stock", "ours"):
            if side == "ours":
                first_s, work_s, length_s = _timed(engine, text, voice)
            else:
                began = time.perf_counter()
                stock.say(text)
                stock_s = time.perf_counter() - began
        step()
        return first_s, work_s, length_s, stock_s

    rows = np.array([both(n, text) for n, text in enumerate(texts)])
    _, work, length, stock_work = rows.sum(axis=0)
    long_rows = np.array([both(n, TEN_SECONDS) for n in range(ROUNDS)])
    first_s, _, long_s, whole_s = np.median(long_rows, axis=0)
    return {
        "voice": voice.id,
        "sentences": len(texts),
        "realtime": round(float(work / length), 3),
        "to_stock": round(float(np.median(rows[:, 1] / rows[:, 3])), 3),
        "to_stock_all": round(float(work / stock_work), 3),
        "long_sentence_s": round(float(long_s), 1),
        "first_audio_ms": round(1000 * float(first_s)),
        "stock_whole_ms": round(1000 * float(whole_s)),
        "first_to_stock": round(float(first_s / whole_s), 3),
        "long_to_stock": round(float(np.median(long_rows[:, 1] / long_rows[:, 3])), 3),
    }


def _timed(engine: Engine, text: str, voice: Voice) -> tuple[float, float, float]:
    """Seconds until the first audio of a clause, until its end, and how long it is."""
    began = time.perf_counter()
    first_s = length_s = 0.0
    for piece in engine.speaker.speak(Clause(0, text), voice=voice):
        first_s = first_s or time.perf_counter() - began
        length_s += piece.audio.seconds
    return first_s, time.perf_counter() - began, length_s


def _heard(engine: Engine, language: str, texts: list[str], step: Callable[[], None]) -> dict[str, Any]:
    sum_, failures, work_s, length_s = Errors(), [], 0.0, 0.0
    for text in texts:
        began = time.perf_counter()
        audio: AudioChunk = join(piece.audio for piece in engine.say(text))
        work_s, length_s = work_s + time.perf_counter() - began, length_s + audio.seconds
        heard = engine.transcribe(audio)
        # What was said can be written in several ways ("9:45", "9.45", "nine forty-five"): the best counts.
        references = (text, re.sub(r"(\d):(\d)", r"\1.\2", text), engine.show(text, "spoken"))
        found = min((errors(said, heard.text, language) for said in references), key=lambda e: e.rate)
        sum_ += found
        if found.edits:
            failures.append(
                {"said": text, "heard": heard.text, "language": heard.language, "edits": found.edits}
            )
        step()
    return {
        "voice": engine.config.tts.voice_en if language == "en" else engine.config.tts.voice_zh,
        "sentences": len(texts),
        "error_percent": round(100 * sum_.rate, 2),
        "realtime": round(work_s / length_s, 3),
        "failures": failures,
    }


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    targets, hibari, kokoro = result["targets"], result["hibari"], result["kokoro"]
    table = Table("figure", "measured", "at most", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_row(
        "Hibari: work for a second of speech", f"{hibari['realtime']} s", str(targets["realtime_hibari"])
    )
    table.add_row("Hibari: first audio of a sentence", f"{hibari['first_audio_ms']} ms", "")
    table.add_row(
        f"Kokoro ({kokoro['voice']}) / stock model, whole sentence (median of {kokoro['sentences']})",
        str(kokoro["to_stock"]),
        str(targets["kokoro_to_stock"]),
    )
    table.add_row(
        f"Kokoro / stock model, a sentence of {kokoro['long_sentence_s']} s",
        str(kokoro["long_to_stock"]),
        str(targets["kokoro_to_stock"]),
    )
    table.add_row("Kokoro: work for a second of speech", f"{kokoro['realtime']} s", "")
    table.add_row(
        f"Kokoro: first audio of a {kokoro['long_sentence_s']} s sentence / stock model's whole",
        f"{kokoro['first_to_stock']} ({kokoro['first_audio_ms']} of {kokoro['stock_whole_ms']} ms)",
        str(targets["first_audio"]),
    )
    for language, heard in result["heard"].items():
        score = "word error rate" if language == "en" else "character error rate"
        table.add_row(
            f"heard by own ears: {language}, {heard['voice']}, {heard['sentences']} sentences, {score}",
            f"{heard['error_percent']} %",
            f"{targets['error_percent'][language]} %",
        )
    lines = [f"{result['threads']} threads"]
    for heard in result["heard"].values():
        for failure in heard["failures"]:
            lines.append(f"said   {escape(failure['said'])}\nheard  {escape(failure['heard'])}")
    return Group(table, "\n".join(lines))
