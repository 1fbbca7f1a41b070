"""``bench turn``: from the end of a spoken question to the first audio of its answer.

Beside it, in the same run, question by question, the stock chain: faster-whisper (beam 1, language
given), then the same language model, then the whole answer through the stock Kokoro model in one
piece. Both sides begin every question with nothing but the system prompt in the model's cache.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepaudio.bench import samples
from stepaudio.config import Config
from stepaudio.core.audio import AudioChunk
from stepaudio.core.conversation import Message
from stepaudio.engine import SMALL, Engine, choose_llm
from stepaudio.llm.base import Sampling, TextDelta
from stepaudio.timeline import STAGES

if TYPE_CHECKING:
    from rich.console import RenderableType

ROUNDS = 3
STOCK_STAGES = ("recognition", "first_token", "rest_of_answer", "voice")
TARGET = 0.45
"""Of the stock chain's time, at most (median against median)."""


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure; the plain questions of ``data``, each ``ROUNDS`` times.

    Raises:
        ConfigError: the stock program is not installed (extra ``bench``), or no questions in ``data``.
    """
    questions = samples.clips(data, "question_fact")[:limit]
    ours: list[Mapping[str, float]] = []
    stock: list[Mapping[str, float]] = []
    answers: dict[str, str] = {}
    with Engine(config) as engine:
        chain = StockChain(engine)
        engine.warm()
        engine.ask(questions[0].audio)  # both warm, once, uncounted
        chain.ask(questions[0].audio)
        total = ROUNDS * len(questions)
        for n in range(total):
            clip = questions[n % len(questions)]
            for side in ("ours", "stock") if n % 2 else ("stock", "ours"):
                engine.warm(parts=("llm",))  # the system prompt alone in the cache
                if side == "ours":
                    answer = engine.ask(clip.audio)
                    ours.append(answer.timings_ms)
                    answers[clip.text] = answer.text
                else:
                    stock.append(chain.ask(clip.audio))
            on_progress(n + 1, total)
        model, _ = choose_llm(config, engine.store)
    result = {
        "questions": len(questions),
        "rounds": ROUNDS,
        "llm": model,
        "ours_ms": _medians(ours, [name for name, _, _ in STAGES] + ["first_audio"]),
        "stock_ms": _medians(stock, [*STOCK_STAGES, "first_audio"]),
        "answers": answers,
    }
    pairs = [a["first_audio"] / b["first_audio"] for a, b in zip(ours, stock, strict=True)]
    result["ratio"] = round(result["ours_ms"]["first_audio"] / result["stock_ms"]["first_audio"], 3)
    result["ratio_of_pairs"] = {"min": round(min(pairs), 3), "max": round(max(pairs), 3)}
    result["target"] = TARGET
    result["memory_mb"] = {
        name: _memory_mb(questions[0].path, name) for name in dict.fromkeys((model, SMALL))
    }
    return result


class StockChain:
    """What one gets by putting the stock programs one after another, with the engine's own weights."""

    def __init__(self, engine: Engine) -> None:
        from stepaudio.bench.asr import StockWhisper
        from stepaudio.bench.tts import StockKokoro

        self._engine = engine
        self._whisper = StockWhisper(engine.store.path("whisper-base"), engine.config.recognition.threads)
        self._voice = StockKokoro(engine)

    def ask(self, audio: AudioChunk) -> dict[str, float]:
        """Stage times in ms; ``first_audio`` is their sum, as the first audio is the whole audio."""
        stamps = [time.monotonic()]
        question = self._whisper.transcribe(audio, language="en", beam=1)
        stamps.append(time.monotonic())
        answer = asyncio.run(self._write(question, stamps))
        self._voice.say(answer)
        stamps.append(time.monotonic())
        stages = [1000 * (b - a) for a, b in pairwise(stamps)]
        return dict(zip(STOCK_STAGES, stages, strict=True)) | {"first_audio": sum(stages)}

    async def _write(self, question: str, stamps: list[float]) -> str:
        text = ""
        messages = [self._engine.system, Message("user", question)]
        settings = self._engine.config.llm
        sampling = Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature)
        async for event in self._engine.llm.generate(messages, sampling):
            if isinstance(event, TextDelta):
                if not text:
                    stamps.append(time.monotonic())
                text += event.text
        stamps.append(time.monotonic())
        return text


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    table = Table(
        "stage", "ours, ms", "share", "stock chain, ms", "share", box=box.SIMPLE_HEAD, pad_edge=False
    )
    ours, stock = result["ours_ms"], result["stock_ms"]
    names = list(dict.fromkeys([*ours, *stock]))
    names.append(names.pop(names.index("first_audio")))
    for name in names:
        table.add_row(name.replace("_", " "), *_cells(ours, name), *_cells(stock, name))
    spread = result["ratio_of_pairs"]
    lines = [
        f"end of speech to first audio, ours / stock: {result['ratio']} (at most {result['target']} wanted;"
        f" {result['questions']} questions x {result['rounds']}, pairs {spread['min']} to {spread['max']})",
        f"language model: {result['llm']}",
        *(f"resident memory of `ask` with {name}: {mb} MB" for name, mb in result["memory_mb"].items()),
    ]
    return Group(table, "\n".join(lines))


def _cells(side: Mapping[str, float], name: str) -> tuple[str, str]:
    if name not in side:
        return "", ""
    return f"{side[name]:.0f}", f"{side[name] / side['first_audio']:.0%}"


def _medians(rows: list[Mapping[str, float]], names: list[str]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 1) for name in names}


# A child's peak begins with that of the process that started it, so a small one stands between.
_MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def _memory_mb(question: Path, model: str) -> int | None:
    """Largest resident memory of a whole ``stepaudio ask``, in MB (1e6); None where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        ask = ["-m", "stepaudio", "ask", str(question), "-o", f"{folder}/a.wav", "--llm", model]
        command = [sys.executable, "-c", _MEASURE, sys.executable, *ask]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(int(done.stdout) * unit / 1e6)
