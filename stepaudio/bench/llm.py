"""``bench llm``: what the language model knows, and how soon and how fast it says so.

Text in, text out, with the prompt of the product and nothing but it in the cache: the first 150 LLaMA
Questions in the order of the file (Nachmani et al. 2023, "Spoken Question Answering and Speech Continuation
Using Spectrogram-Powered LLM"), and ten Chinese ones of our own. For comparison, published for answers in
speech: Moshi 62.3 %, GLM-4-Voice 64.7 %, Qwen2-Audio 52.0 %.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepaudio.bench.scores import normalise
from stepaudio.config import Config
from stepaudio.core.conversation import Message
from stepaudio.core.errors import ConfigError
from stepaudio.engine import Engine, choose_llm
from stepaudio.llm.base import LLM, Finished, Sampling, TextDelta

if TYPE_CHECKING:
    from rich.console import RenderableType

QUESTIONS = 150
TARGET = 0.55

CHINESE = (
    ("中国的首都是哪里？", "北京"),
    ("水的化学式是什么？", "H2O"),
    ("《红楼梦》的作者是谁？", "曹雪芹"),
    ("一年有几个月？", "十二"),
    ("世界上最高的山峰是哪座？", "珠穆朗玛"),
    ("太阳系最大的行星是哪颗？", "木星"),
    ("中国最长的河流是哪条？", "长江"),
    ("谁发明了电灯泡？", "爱迪生"),
    ("日本的首都是哪里？", "东京"),
    ("《静夜思》是谁写的？", "李白"),
)

UNSPEAKABLE = re.compile(r"[*_#`|<>\[\]{}\n]|^\s*(-|\d+[.)])\s|[\u2600-\u27bf\U0001f000-\U0001faff]")
"""Markdown, lists, tags, line breaks, emoji."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and its times in seconds from the question; ``seconds`` until it ended."""

    text: str
    first_token: float
    seconds: float
    finished: Finished


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure on at most ``limit`` questions of each language.

    Raises:
        ConfigError: there are no questions in ``data``.
    """
    file = data / "text" / "llama_questions.jsonl"
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"no questions in {file}: name a folder that holds them with --data") from error
    english = [json.loads(line) for line in lines[: min(limit or QUESTIONS, QUESTIONS)]]
    asked = [(row["question"], row["answers"], "en") for row in english]
    asked += [(question, [answer], "zh") for question, answer in CHINESE[:limit]]

    with Engine(config) as engine:
        sampling = Sampling(max_tokens=config.llm.max_tokens, temperature=config.llm.temperature)
        questions = [question for question, _, _ in asked]
        replies = asyncio.run(_ask_all(engine.llm, engine.system, questions, sampling, on_progress))
        model, why = choose_llm(config, engine.store)

    wrong = [
        {"question": question, "reference": references, "answer": reply.text}
        for (question, references, language), reply in zip(asked, replies, strict=True)
        if not is_right(reply.text, references, language)
    ]
    failed = {row["question"] for row in wrong}
    right = sum(question not in failed for question, _, language in asked if language == "en")
    return {
        "llm": model,
        "why": why,
        "questions": len(english),
        "right": right,
        "share": round(right / len(english), 3),
        "target": TARGET,
        "as_written": sum(
            any(reference.casefold() in reply.text.casefold() for reference in references)
            for (_, references, _), reply in zip(asked[: len(english)], replies, strict=False)
        ),
        "chinese": {
            "questions": len(asked) - len(english),
            "right": sum(question not in failed for question, _, language in asked if language == "zh"),
        },
        **_speed(replies),
        **_length([reply.text for reply in replies[: len(english)]]),
        "unspeakable": [reply.text for reply in replies if UNSPEAKABLE.search(reply.text)],
        "cut": sum(reply.finished.reason == "length" for reply in replies),
        "wrong": wrong,
    }


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table."""
    from rich import box
    from rich.table import Table

    table = Table("", "", box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    first, words = result["first_token_ms"], result["words"]
    share = f"{result['share']:.1%} (at least {result['target']:.0%} wanted)"
    table.add_row("language model", f"{result['llm']} ({result['why']})")
    table.add_row("right answers", f"{result['right']} of {result['questions']}, {share}")
    table.add_row("  with numbers and accents as written", str(result["as_written"]))
    table.add_row(
        "right answers, Chinese", f"{result['chinese']['right']} of {result['chinese']['questions']}"
    )
    table.add_row("first token, cached prompt", f"{first['median']:.0f} ms, p90 {first['p90']:.0f} ms")
    table.add_row(
        "  prompt", f"{result['prompt_tokens']} tokens, {result['cached_tokens']} of them cached (medians)"
    )
    table.add_row("speed", f"{result['tokens_per_second']:.1f} tokens/s")
    table.add_row(
        "length", f"{words['median']:.0f} words, p90 {words['p90']:.0f}, longest {words['max']:.0f}"
    )
    table.add_row("cut by the length limit", str(result["cut"]))
    table.add_row("with signs that cannot be spoken", str(len(result["unspeakable"])))
    table.caption = "--json lists the wrong answers" if result["wrong"] else None
    return table


def is_right(said: str, references: Sequence[str], language: str) -> bool:
    """Whether an answer contains one of the references, both brought to one way of writing.

    In English at the beginning of a word ("rupee" is in "rupees"); references of one or two letters ("U", the
    sign of uranium) and numbers ("5") only as whole words.
    """
    said = normalise(said, language)
    for reference in references:
        wanted = normalise(reference, language)
        if language == "zh":
            found = wanted in said
        elif len(wanted) <= 2 or wanted[-1].isdigit():
            found = f" {wanted} " in f" {said} "
        else:
            found = f" {wanted}" in f" {said}"
        if found and wanted:
            return True
    return False


async def _ask_all(
    llm: LLM,
    system: Message,
    questions: Sequence[str],
    sampling: Sampling,
    on_progress: Callable[[float, float | None], None],
) -> list[Reply]:
    await llm.warm([system])
    replies = []
    for n, question in enumerate(questions, 1):
        replies.append(await _ask(llm, [system, Message("user", question)], sampling))
        on_progress(n, len(questions))
    return replies


async def _ask(llm: LLM, messages: list[Message], sampling: Sampling) -> Reply:
    text, first, finished = "", None, Finished("stop")
    start = time.perf_counter()
    async with aclosing(llm.generate(messages, sampling)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                first = first or time.perf_counter() - start
                text += event.text
            elif isinstance(event, Finished):
                finished = event
    seconds = time.perf_counter() - start
    return Reply(text.strip(), first or seconds, seconds, finished)


def _speed(replies: Sequence[Reply]) -> dict[str, Any]:
    first = sorted(1000 * reply.first_token for reply in replies)
    # The first token is of the prompt's making.
    tokens = sum(max(0, reply.finished.completion_tokens - 1) for reply in replies)
    seconds = sum(reply.seconds - reply.first_token for reply in replies)
    return {
        "first_token_ms": {"median": round(statistics.median(first), 1), "p90": round(_p90(first), 1)},
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
        "prompt_tokens": statistics.median(reply.finished.prompt_tokens for reply in replies),
        "cached_tokens": statistics.median(reply.finished.cached_tokens for reply in replies),
    }


def _length(texts: Sequence[str]) -> dict[str, Any]:
    words = sorted(len(text.split()) for text in texts)
    return {"words": {"median": statistics.median(words), "p90": _p90(words), "max": words[-1]}}


def _p90(ordered: Sequence[float]) -> float:
    return ordered[int(0.9 * (len(ordered) - 1))]
