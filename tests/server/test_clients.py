"""Programs written for OpenAI's service talk with ours, unchanged.

Each client is a script of its own in ``clients``, run with its own packages: they want older versions of what
we use. ``make clients`` installs them; a client that is not there is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepaudio.core.audio import AudioChunk, resample
from stepaudio.core.conversation import Message, ToolCall
from stepaudio.files import read_audio, write_audio
from stepaudio.llm.base import Finished, LLMEvent, TextDelta
from tests.fakes import FakeLLM
from tests.server.conftest import Running

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = Path(__file__).resolve().parent / "clients"
PYTHON = Path(os.environ.get("STEPAUDIO_CLIENTS", ROOT / ".cache" / "clients")) / "bin" / "python"
NODE = shutil.which("node")
ANSWER = "It is a test. Really."
HEARD = "what is it?"


class Loudness:
    """Voice activity: whatever is loud."""

    def stream(self) -> Loudness:
        return self

    def push(self, frame: AudioChunk) -> float:
        return float(np.sqrt(np.mean(frame.samples**2)) > 0.005)


class Sure:
    """End of turn: every pause is one."""

    def score(self, audio: AudioChunk) -> float:
        return 0.99


class Weather(FakeLLM):
    """Asks for the weather when it may and was not told it yet; else it says the script."""

    async def generate(
        self,
        messages: Sequence[Message],
        sampling: Any,
        tools: Sequence[Any] = (),
        *more: Any,
        **options: Any,
    ) -> AsyncGenerator[LLMEvent, None]:
        if tools and "tool" in messages[-1].text and messages[-1].role == "user":
            yield ToolCall("call_1", "weather", '{"city": "Paris"}')
            yield Finished("stop")
            return
        for piece in ("It is ", "a test. ", "Really."):
            yield TextDelta(piece)
        yield Finished("stop")


@pytest.fixture(scope="module")
def service(start: Callable[..., Running]) -> Running:
    return start({"server.sessions": 8}, llm=Weather(), vad=Loudness(), endpointing=Sure())


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample question at 24 kHz."""
    file = tmp_path_factory.mktemp("clients") / "question.wav"
    write_audio(file, [resample(read_audio(ROOT / "stepaudio" / "samples" / "question.wav"), 24_000)])
    return file


def run(*command: object) -> dict[str, Any]:
    """The object that a client prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_openai(service: Running, wav: Path):
    got = run(sys.executable, SCRIPTS / "openai_client.py", service.url, wav)
    assert got["errors"] == []
    assert got["text"] == got["after_call"] == got["answer"] == ANSWER
    assert got["call"] == ["function_call", "weather", {"city": "Paris"}]
    assert got["heard"] == HEARD and got["status"] == "completed"
    assert got["audio"] > 20_000 and got["spoken"] > 20_000


@pytest.fixture(scope="module")
def python() -> Path:
    if not PYTHON.is_file():
        pytest.skip(f"no {PYTHON}: `make clients` installs the clients")
    return PYTHON


def test_openai_agents(service: Running, wav: Path, python: Path):
    got = run(python, SCRIPTS / "agents_client.py", service.url, wav)
    assert got["errors"] == []
    assert got["tools"] == ["sunny in Paris"]
    assert got["audio"] > 40_000
    assert ["user", HEARD] in got["items"]
    assert [role for role, said in got["items"] if said == ANSWER] == ["assistant", "assistant"]


def test_pipecat(service: Running, wav: Path, python: Path):
    got = run(python, SCRIPTS / "pipecat_llm.py", service.url, wav)
    assert got["errors"] == []
    assert got["tools"] == [{"city": "Paris"}]
    assert got["heard"] == [HEARD]
    assert got["text"].count("Really") == 2
    assert got["audio"] > 40_000


def test_pipecat_recognition(service: Running, wav: Path, python: Path):
    assert run(python, SCRIPTS / "pipecat_stt.py", service.url, wav) == {"errors": [], "heard": [HEARD]}


def test_livekit(service: Running, wav: Path, python: Path):
    got = run(python, SCRIPTS / "livekit_client.py", service.url, wav)
    assert got["errors"] == []
    assert got["text"] == [ANSWER] * 3
    assert [call[:2] for call in got["calls"]] == [["weather", '{"city": "Paris"}']]
    assert got["heard"] == [HEARD]
    assert got["audio"] > 30_000


def test_agents_realtime_on_node(service: Running, wav: Path):
    if NODE is None or not (SCRIPTS / "node" / "node_modules").is_dir():
        pytest.skip("no Node, or no packages: `make clients` installs them (npm ci)")
    got = run(NODE, SCRIPTS / "node" / "agents.mjs", service.url, wav)
    assert got["errors"] == []
    assert got["tools"] == ["sunny in Paris"]
    assert got["said"] == [ANSWER, ANSWER] and got["heard"] == [HEARD]
    assert got["audio"] > 40_000
