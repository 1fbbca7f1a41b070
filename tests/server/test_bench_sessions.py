"""The benchmark of talks: what it counts, and a short run of each part against a service with fakes."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from stepaudio import config
from stepaudio.bench import sessions
from stepaudio.bench.sessions import Utterance, units
from stepaudio.bench.talker import Server, _environment, talker
from stepaudio.client import RATE
from stepaudio.core.errors import ConfigError
from tests.fakes import FakeLLM
from tests.server.conftest import Running
from tests.server.test_clients import Loudness, Sure


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It's 9.45, isn't it?", 4),
        ("北京是中国的首都。", 8),
        ("我爱 jazz，真的！", 5),
        ("— …", 0),
    ],
)
def test_words_are_counted_and_chinese_characters(text: str, count: int):
    assert len(units(text)) == count


def test_spread_leaves_out_what_was_not_measured():
    assert sessions._spread([100.0, None, 300.0, 200.0]) == {"median": 200.0, "p95": 290.0, "max": 300.0}
    assert sessions._spread([None]) is None


def test_the_child_gets_the_whole_configuration(tmp_path: Path):
    folders = {"models.local": f"{tmp_path}:/b", "llm.model": "qwen2.5-0.5b", "llm.api_key": "secret"}
    loaded = config.load(None, {}, folders).config
    environment = _environment(loaded, {"server.port": 1234})
    again = config.load(None, environment).config
    assert again.model_copy(update={"server": loaded.server}) == loaded
    assert again.server.port == 1234


def test_an_unknown_section_is_named():
    with pytest.raises(ConfigError, match=r"no section 'x'; there are: turns"):
        sessions.run(config.load(None, {}).config, Path(), only=["x"])


RESULT = {
    "targets": sessions.TARGETS,
    "capacity": {"talks": {"talks": 3}},
    "idle": {"sessions": 1000, "memory_of_a_session_mb": 1.25, "cores": None},
    "load": {
        "talks": 2,
        "levels": [
            {"talks": 2, "turns": 9, "unanswered": 1, "refused": 0, "underruns": 0.0031,
             "voice_to_voice_ms": {"median": 612.0, "p95": 900.0, "max": 950.0}},
        ],
    },
}  # fmt: skip


def test_figures_stand_beside_what_was_wanted():
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(sessions.render(RESULT))
    text = console.export_text()
    assert "1.25" in text and "not measured" in text
    assert "0.31%; 612 / 900 / 950; 1 unanswered" in text
    assert "the server itself says that it holds 3 talks" in text


# Against a service (fakes at the engine's edges: `tests/server/conftest.py`)


@pytest.fixture(scope="module")
def loud(start: Callable[..., Running]) -> str:
    """A service that hears whatever is loud, and answers briefly."""
    return start(llm=FakeLLM("Well. ", "It is so."), vad=Loudness(), endpointing=Sure()).url


@pytest.fixture(scope="module")
def talkative(start: Callable[..., Running]) -> str:
    """One that has much to say."""
    story = FakeLLM(*(f"This is sentence number {n}, and not the last. " for n in range(12)))
    return start(llm=story, vad=Loudness(), endpointing=Sure()).url


@pytest.fixture(scope="module")
def said() -> Utterance:
    """Half a second of noise, after 0.2 s."""
    samples = np.zeros(RATE, np.float32)
    samples[RATE // 5 : RATE * 7 // 10] = np.random.default_rng(0).normal(0, 0.1, RATE // 2)
    return Utterance("plain", samples, 0.2, 0.7)


def test_a_turn_is_timed_from_the_end_of_the_speech(loud: str, said: Utterance):
    row = asyncio.run(sessions._turn(Server(loud), None, said))
    assert row["answered"] and not row["early"]
    assert 0 < row["silence_waited_ms"] <= row["voice_to_voice_ms"] < 5000
    assert row["receipt_ms"]


def test_an_interruption_is_timed_and_the_words_that_were_heard_are_counted(talkative: str, said: Utterance):
    async def interrupt() -> dict[str, Any] | None:
        async with talker(talkative) as person:
            return await sessions._interruption(person, "Tell me a long story.", said, random.Random(3))

    row = asyncio.run(interrupt())
    assert row is not None and row["stopped"]
    assert row["silence_ms"] > 0 and row["words_heard"] > 0
    assert abs(row["words_off"]) <= 1


def test_underruns_are_a_share_of_what_was_played(
    loud: str, said: Utterance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sessions, "TALK_S", 0.5)
    level = asyncio.run(sessions._level(Server(loud), None, [said], 1))
    assert level["turns"] >= 1 and level["refused"] == level["unanswered"] == 0
    assert level["underruns"] < 0.5
