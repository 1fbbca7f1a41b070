"""``bench llm``: what counts as right, and the figures, with a model that answers from a list."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stepaudio import config
from stepaudio.bench import llm as bench
from stepaudio.core.conversation import Message
from stepaudio.core.errors import ConfigError
from stepaudio.engine import Engine
from stepaudio.llm.base import Finished, LLMEvent, Sampling, TextDelta


@pytest.mark.parametrize(
    ("said", "reference", "language", "right"),
    [
        ("The Amazon River is the longest.", "Amazon", "en", True),
        ("It is the rupees, of course.", "Rupee", "en", True),
        ("There are 193 members.", "One hundred ninety three", "en", True),
        ("It has seven.", "7", "en", True),
        ("It has seventy.", "7", "en", False),
        ("The capital is Brasilia.", "Brasília", "en", True),
        ("Uranium has the symbol U.", "U", "en", True),
        ("Uranium has the symbol Ur.", "U", "en", False),
        ("He lived in Greece.", "Cee", "en", False),  # not within a word
        ("I do not know.", "Amazon", "en", False),
        ("", "Amazon", "en", False),
        ("一年有12个月。", "十二", "zh", True),
        ("首都是東京。", "东京", "zh", True),
        ("首都是大阪。", "东京", "zh", False),
    ],
)
def test_what_counts_as_right(said: str, reference: str, language: str, right: bool) -> None:
    assert bench.is_right(said, ["nothing of it", reference], language) is right


@pytest.mark.parametrize(
    ("text", "speakable"),
    [
        ("Rome is the capital.", True),
        ("**Rome**", False),
        ("1. Rome", False),
        ("- Rome", False),
        ("Rome 🎉", False),
    ],
)
def test_what_can_be_spoken(text: str, speakable: bool) -> None:
    assert (bench.UNSPEAKABLE.search(text) is None) is speakable


class Parrot:
    """Knows two answers."""

    reads = frozenset({"text"})
    warmed = 0

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, *tools: Any, **options: Any
    ) -> AsyncGenerator[LLMEvent, None]:
        known = {"Capital of Italy?": "It is Rome.", "中国的首都是哪里？": "是北京。"}
        text = known.get(messages[-1].text, "**No idea.**")
        yield TextDelta(text[:4])
        yield TextDelta(text[4:])
        yield Finished("stop", 20, 12, 4)

    async def warm(self, messages: Sequence[Message], *tools: Any, session: str = "") -> None:
        self.warmed += 1

    def close(self) -> None:
        pass


def test_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    rows = [("Capital of Italy?", "rome"), ("Capital of Mars?", "none"), ("Not asked?", "x")]
    (tmp_path / "text" / "llama_questions.jsonl").write_text(
        "".join(json.dumps({"question": question, "answers": [answer]}) + "\n" for question, answer in rows)
    )
    parrot = Parrot()
    monkeypatch.setattr(Engine, "llm", parrot)
    progress: list[tuple[float, float | None]] = []
    result = bench.run(
        config.load(None, {}).config, tmp_path, limit=2, on_progress=lambda *step: progress.append(step)
    )
    assert (result["questions"], result["right"], result["share"], result["as_written"]) == (2, 1, 0.5, 1)
    assert result["chinese"] == {"questions": 2, "right": 1}
    assert (result["prompt_tokens"], result["cached_tokens"], parrot.warmed) == (20, 12, 1)
    assert result["words"]["max"] == 3 and result["cut"] == 0
    assert result["wrong"][0] == {
        "question": "Capital of Mars?",
        "reference": ["none"],
        "answer": "**No idea.**",
    }
    assert result["unspeakable"] == ["**No idea.**"] * 2
    assert progress[-1] == (4, 4)
    json.dumps(result)
    bench.render(result)


def test_without_questions_the_message_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data"):
        bench.run(config.load(None, {}).config, tmp_path)
