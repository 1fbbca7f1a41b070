"""``bench asr``: recognition beside stock faster-whisper, with the same weights and threads.

Every clip goes through all programs, one after another, in an order that turns from clip to clip, so that a
busy machine slows all of them alike. What counts is the ratio, not the milliseconds.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.bench import samples
from stepaudio.bench.scores import Errors, errors
from stepaudio.config import Config
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import ConfigError
from stepaudio.engine import Engine

if TYPE_CHECKING:
    from rich.console import RenderableType

KINDS = {"en": "asr_en", "zh": "asr_zh"}
SHORT_S = 6.0
TARGETS = {
    "fast": "on clips of at most 6 s at least 3 times as fast as stock, error at most 1 point worse",
    "accurate": "at least 2 times as fast as stock, Chinese character error rate at most 15.5 %",
}


class StockWhisper:
    """faster-whisper as its users have it, in int8.

    Raises:
        ConfigError: it is not installed.
    """

    def __init__(self, model_dir: Path, threads: int) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ConfigError(
                "the benchmark compares with faster-whisper; install it with: pip install 'stepaudio[bench]'"
            ) from error
        self._model = WhisperModel(str(model_dir), device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(self, audio: AudioChunk, *, language: str, beam: int = 1) -> str:
        """The transcript; ``audio`` at 16 kHz."""
        segments, _ = self._model.transcribe(audio.samples, language=language, beam_size=beam)
        return " ".join(segment.text.strip() for segment in segments)


@dataclass
class _Tally:
    """What one program did with the clips of one language."""

    seconds: list[float] = field(default_factory=list)
    errors: list[Errors] = field(default_factory=list)
    right_language: int = 0
    heard_again: int = 0


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure on the clips of ``data`` whose transcript is verified, at most ``limit`` of each language.

    Raises:
        ConfigError: the stock program is not installed, or there are no clips in ``data``.
    """
    clips = {language: samples.clips(data, kind, verified=True)[:limit] for language, kind in KINDS.items()}
    total = sum(map(len, clips.values()))
    result: dict[str, Any] = {"threads": config.recognition.threads, "targets": TARGETS, "languages": {}}
    done = 0
    with Engine(config) as engine, _Retries() as retries:
        ours = engine.recognizer
        stock = StockWhisper(engine.store.path("whisper-base"), config.recognition.threads)
        programs: dict[str, Callable[[AudioChunk, str], tuple[str, str]]] = {
            "stock": lambda audio, language: (stock.transcribe(audio, language=language), language),
            "fast": lambda audio, language: _ours(ours.transcribe(audio, language=language)),
            "fast, language detected": lambda audio, _: _ours(ours.transcribe(audio)),
            "accurate": lambda audio, language: _ours(
                ours.transcribe(audio, language=language, mode="accurate")
            ),
        }
        warm = AudioChunk(np.zeros(16_000, np.float32) + 0.01, 16_000)
        for program in programs.values():
            program(warm, "en")
        for language, of_language in clips.items():
            tallies = {name: _Tally() for name in programs}
            for clip in of_language:
                names = list(programs)
                turn = done % len(names)
                for name in names[turn:] + names[:turn]:
                    tally, before = tallies[name], retries.count
                    start = time.perf_counter()
                    heard, heard_language = programs[name](clip.audio, language)
                    tally.seconds.append(time.perf_counter() - start)
                    tally.errors.append(errors(clip.text, heard, language))
                    tally.right_language += heard_language == language
                    tally.heard_again += retries.count > before
                done += 1
                on_progress(done, total)
            result["languages"][language] = _summary(tallies, [clip.seconds for clip in of_language])
    return result


def _ours(transcript: Any) -> tuple[str, str]:
    return transcript.text, transcript.language


class _Retries(logging.Handler):
    """Counts the windows that the recogniser hears again, which it logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.count = 0
        self._logger = logging.getLogger("stepaudio.recognition.whisper")

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "heard again" in record.msg

    def __enter__(self) -> _Retries:
        self._level, self._propagate = self._logger.level, self._logger.propagate
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)
        self._logger.propagate = self._propagate


def _summary(tallies: dict[str, _Tally], lengths: list[float]) -> dict[str, Any]:
    short = [i for i, seconds in enumerate(lengths) if seconds <= SHORT_S]
    every = list(range(len(lengths)))
    stock = tallies["stock"].seconds
    programs: dict[str, Any] = {}
    for name, tally in tallies.items():
        row: dict[str, Any] = {}
        for group, clips in (("short", short), ("all", every)):
            if not clips:
                continue
            median_s = statistics.median(tally.seconds[i] for i in clips)
            row[group] = {
                "error_percent": round(100 * sum((tally.errors[i] for i in clips), Errors()).rate, 2),
                "median_ms": round(1000 * median_s, 1),
                "times_as_fast": round(statistics.median(stock[i] for i in clips) / median_s, 2),
                "times_as_fast_by_clip": round(
                    statistics.median(stock[i] / tally.seconds[i] for i in clips), 2
                ),
            }
        row["right_language"] = tally.right_language
        row["heard_again"] = tally.heard_again
        programs[name] = row
    return {"clips": len(every), "short_clips": len(short), "programs": programs}


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "program", "error %", "<= 6 s", "median ms", "<= 6 s", "x stock", "<= 6 s"):
        table.add_column(column, justify="left" if column in ("", "program") else "right")
    table.add_column("heard again", justify="right")
    table.add_column("language right", justify="right")
    for language, figures in result["languages"].items():
        label = f"{language} {'CER' if language == 'zh' else 'WER'}, {figures['clips']} clips"
        for name, row in figures["programs"].items():
            whole, short = row["all"], row.get("short", {})
            table.add_row(
                label,
                name,
                *(f"{group[key]}" if group else "" for key in _COLUMNS for group in (whole, short)),
                str(row["heard_again"]),
                str(row["right_language"]),
            )
            label = ""
        table.add_section()
    lines = [f"{result['threads']} threads, int8; stock: beam 1; x stock: ratio of medians"]
    lines += [f"target, {name}: {text}" for name, text in result["targets"].items()]
    return Group(table, "\n".join(lines))


_COLUMNS = ("error_percent", "median_ms", "times_as_fast")
