"""``bench tokenizer``: seconds of work for a second of audio, with random weights of the public size.

Weights that mean nothing take as long as trained ones. Recorded speech, joined to lengths of 5 to 60 s, goes
through either half by itself (a stream, pushed in pieces of 100 ms) and through both at once. Three rounds
through all lengths, of which the best counts: others may be at work on the machine. What a second costs must
not grow with the length. One thread a half.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.bench.samples import clips
from stepaudio.config import Config
from stepaudio.core.audio import AudioChunk

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stepaudio.tokenizer.dual import DualTokenizer

LENGTHS_S = (5, 20, 60)
ROUNDS = 3
PIECE = 1600
"""Samples of one push (100 ms)."""
GROWTH = 1.25
"""Upper bound for what a second costs in the longest recording, beside the shortest."""
_RATE = 16_000


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure.

    Args:
        config: its tokenizer settings but for the model: device, and the window of the semantic half.
        data: folder with a ``MANIFEST.jsonl``.
        limit: at most so many lengths, the short ones first.
        on_progress: called with work done and all work.

    Raises:
        ConfigError: the extra ``stepaudio[step]`` is not installed, or there is no such device.
    """
    from stepaudio.engine import load_tokenizer
    from stepaudio.tokenizer import tiny
    from stepaudio.tokenizer.linguistic import EncoderConfig
    from stepaudio.tokenizer.semantic import NetworkConfig

    lengths = LENGTHS_S[:limit]
    speech = _speech(data, max(lengths))
    steps, done = ROUNDS * len(lengths) * len(_WORK) + 1, 0
    rows: list[dict[str, float]] = [{"seconds": seconds} for seconds in lengths]
    with tempfile.TemporaryDirectory(prefix="stepaudio-bench-") as folder:
        tiny.write(Path(folder), linguistic=EncoderConfig(), semantic=NetworkConfig())
        tokenizer = load_tokenizer(Path(folder), config.tokenizer.model_copy(update={"threads": 1}))
        tokenizer.encode(AudioChunk(speech[:_RATE], _RATE))  # memory is taken and threads begin
        on_progress(done := 1, steps)
        for row, (name, work) in product(ROUNDS * rows, _WORK.items()):
            samples = speech[: int(row["seconds"]) * _RATE]
            began = time.perf_counter()
            work(tokenizer, samples)
            cost = (time.perf_counter() - began) / row["seconds"]
            row[name] = round(min(row.get(name, cost), cost), 3)
            on_progress(done := done + 1, steps)
        tokenizer.close()
    return {
        "device": config.tokenizer.device,
        "window_s": config.tokenizer.window_s,
        "realtime_factor": rows,
        "growth": {name: round(rows[-1][name] / rows[0][name], 2) for name in _WORK},
        "targets": {"growth": GROWTH, "both": 1.0},
    }


def _speech(data: Path, seconds: int) -> np.ndarray:
    """Recordings one after another, and again from the start where they do not last."""
    pieces, samples = [], 0
    spoken = clips(data, "asr_en")
    while samples < seconds * _RATE:
        pieces.append(spoken[len(pieces) % len(spoken)].audio.samples)
        samples += len(pieces[-1])
    return np.concatenate(pieces)


def _half(name: str) -> Callable[[DualTokenizer, np.ndarray], None]:
    def work(tokenizer: DualTokenizer, samples: np.ndarray) -> None:
        stream = getattr(tokenizer, name).stream()
        for begin in range(0, len(samples), PIECE):
            stream.push(samples[begin : begin + PIECE])
        stream.flush()

    return work


def _both(tokenizer: DualTokenizer, samples: np.ndarray) -> None:
    tokenizer.encode(AudioChunk(samples, _RATE))


_WORK = {"linguistic": _half("linguistic"), "semantic": _half("semantic"), "both": _both}


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("audio, s", "linguistic stream", "semantic stream", "both at once, whole"):
        table.add_column(column, justify="right")
    for row in result["realtime_factor"]:
        table.add_row(str(row["seconds"]), *(f"{row[name]:.3f}" for name in _WORK))
    growth = ", ".join(f"{name} {times}" for name, times in result["growth"].items())
    return Group(
        table,
        f"work a second; {result['device']}, one thread a half, windows of {result['window_s']:g} s",
        f"longest beside shortest: {growth} (at most {GROWTH})",
    )
