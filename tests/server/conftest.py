"""The service on a free port: with fakes at the engine's edges, or the real small models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepaudio import config
from stepaudio.core.audio import AudioChunk
from stepaudio.engine import Engine
from stepaudio.server.app import Server, Service, create_app, uvicorn_config
from stepaudio.server.auth import Key
from stepaudio.server.encoders import encode
from stepaudio.tts import voices
from stepaudio.tts.base import Voice
from tests.fakes import FakeLLM, FakeRecognizer, FakeSpeaker


class FakeActivity:
    """Hears speech in nothing."""

    def stream(self) -> FakeActivity:
        return self

    def push(self, frame: AudioChunk) -> float:
        return 0.0


class Beeper(FakeSpeaker):
    """Beeps in the name of every real voice."""

    def find(self, id: str) -> Voice:
        return voices.named(id)


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    url: str
    service: Service
    server: Server

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", int(self.url.rpartition(":")[2])


@contextmanager
def running(engine: Engine, keys: Sequence[Key] = (), *, wait: bool = True) -> Iterator[Running]:
    """Serve an engine in a thread; waits until it is ready, or has failed."""
    address: Future[str] = Future()
    warmed: Future[int | None] = Future()
    app = create_app(engine, keys, on_ready=warmed.set_result)
    server = Server(uvicorn_config(app), app.state.service, address.set_result)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        url = address.result(timeout=60)
        if wait:
            warmed.result(timeout=120)
        yield Running(url, app.state.service, server)
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def fake_engine(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Engine]:
    """Builds engines with fakes at their edges; parts by name, settings by dotted name."""
    folder = tmp_path_factory.mktemp("server")

    def build(flags: dict[str, Any] | None = None, **parts: Any) -> Engine:
        settings = {
            "server.port": 0,
            "server.keys": folder / "keys.json",
            "server.sessions": 4,
            "models.root": folder / "models",
            "llm.model": "qwen2.5-0.5b",
            **(flags or {}),
        }
        engine = Engine(config.load(folder / "none.toml", {}, settings).config)
        engine.__dict__ |= {
            "llm": FakeLLM("It is ", "a test. ", "Really."),
            "recognizer": FakeRecognizer("what is it?"),
            "speaker": Beeper(),
            "vad": FakeActivity(),
            "endpointing": None,
            **parts,
        }
        return engine

    (folder / "none.toml").write_text("")
    return build


@pytest.fixture(scope="module")
def start(fake_engine: Callable[..., Engine]) -> Iterator[Callable[..., Running]]:
    """Starts services with fakes; they end with the module's tests."""
    with ExitStack() as stack:

        def begin(
            flags: dict[str, Any] | None = None, keys: Sequence[Key] = (), *, wait: bool = True, **parts: Any
        ) -> Running:
            return stack.enter_context(running(fake_engine(flags, **parts), keys, wait=wait))

        yield begin


@pytest.fixture(scope="module")
def fake(start: Callable[..., Running]) -> Running:
    """A service with fakes, without keys."""
    return start()


@pytest.fixture(scope="session")
def real(model_dir: Callable[[str], Path]) -> Iterator[Running]:
    """A service with the real small models."""
    for model in ("whisper-base", "silero-vad", "smart-turn-v3.2", "hibari", "kokoro-82m", "kokoro-voices"):
        model_dir(model)
    model_dir("qwen2.5-0.5b")
    flags = {"llm.model": "qwen2.5-0.5b", "tts.voice": "hibari", "server.port": 0, "server.sessions": 4}
    engine = Engine(config.load(None, {}, flags).config)
    with engine, running(engine) as service:
        yield service


@pytest.fixture(scope="session")
def question_wav() -> bytes:
    """A second of sound that the fake recogniser takes for a question."""
    return encode(AudioChunk(np.full(24_000, 0.1, np.float32), 24_000), "wav")
