"""The step profile over a real vLLM: speech goes in as codes, and comes out as sound. A minute or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepaudio import config
from stepaudio.core.errors import ConfigError
from stepaudio.engine import Engine
from stepaudio.files import read_audio
from stepaudio.llm.serving import Server, find_python
from stepaudio.recognition.base import RATE
from tests.fakes import FakeRecognizer

pytest.importorskip("torch", reason="the step profile needs torch: pip install stepaudio[step]")
pytest.importorskip("transformers", reason="the step profile needs them: pip install stepaudio[step]")

from stepaudio import tiny
from tests.vllm.test_serving import FLAGS, SETTINGS, free_port

QUESTION = Path(__file__).resolve().parents[2] / "stepaudio" / "samples" / "question.wav"


def test_a_question_asked_aloud_is_answered_aloud(tmp_path: Path):
    try:
        python = find_python()
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path / "tiny"
    tiny.write(folder)
    flags = (*FLAGS, "--port", str(free_port()))
    log = tmp_path / "vllm.log"
    with log.open("wb") as out, Server(folder / tiny.CHAT, flags, python, out, SETTINGS) as server:
        server.wait_ready(300)
        settings = {"llm.model": f"openai:{server.url}", "llm.reads": "codes", "llm.max_tokens": 24}
        with Engine(config.load(folder / tiny.CONFIGURATION, {}, settings).config) as engine:
            engine.__dict__["recognizer"] = FakeRecognizer("what is it?")
            answer = engine.ask(read_audio(QUESTION, RATE))
    assert answer.status in ("completed", "incomplete"), answer.error
    assert answer.text and answer.audio is not None
    assert answer.audio.seconds > 0.1 and np.isfinite(answer.audio.samples).all()
