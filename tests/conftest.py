"""Fixtures that many tests share: real models and real speech, or a stated reason why not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from stepaudio import config
from stepaudio.core.errors import ModelMissing
from stepaudio.engine import Engine, open_store
from stepaudio.models import ModelStore

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

# What a script starts in the background ignores Ctrl-C, and so would all that is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def store() -> ModelStore:
    """The user's model store."""
    return open_store(config.load(None, os.environ).config)


@pytest.fixture(scope="session")
def model_dir(store: ModelStore) -> Callable[[str], Path]:
    """The folder of a model; skips the test when it is not on this machine (`make test` pulls all)."""

    def find(model: str) -> Path:
        try:
            return store.path(model)
        except ModelMissing as error:
            pytest.skip(str(error))

    return find


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real speech with transcripts, when the project stands beside it."""
    if not (SHARED / "MANIFEST.jsonl").is_file():
        pytest.skip(f"no {SHARED}: real speech is not beside the project")
    return SHARED


@pytest.fixture(scope="session")
def engine(model_dir) -> Engine:
    """The real thing, with the small language model."""
    for model in ("whisper-base", "silero-vad", "kokoro-82m", "kokoro-voices", "qwen2.5-0.5b"):
        model_dir(model)
    return Engine(config.load(None, os.environ, {"llm.model": "qwen2.5-0.5b"}).config)
