"""The step profile around its networks: the toy folder, what serves it, what the machine lacks."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepaudio import config
from stepaudio.cli import main
from stepaudio.core.errors import ConfigError, ModelMissing
from stepaudio.engine import STEP_CHAT, STEP_TTS, Engine, choose_llm, diagnose, open_store, served_chat

pytest.importorskip("torch", reason="the step profile needs torch: pip install stepaudio[step]")
pytest.importorskip("transformers", reason="the step profile needs them: pip install stepaudio[step]")

from stepaudio import tiny


def step(**flags: object) -> config.Config:
    flags = {name.replace("__", "."): value for name, value in flags.items()}
    return config.load(environment={}, flags={"profile": "step", **flags}).config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step") / "tiny"
    tiny.write(folder)
    return folder


@pytest.fixture
def server() -> Iterator[str]:
    """Lists a model by the name of the folder that is served."""

    class Lists(http.server.BaseHTTPRequestHandler):
        name = "Step-Audio-Chat"

        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": self.name}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lists) as site:
        threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{site.server_address[1]}"
        site.shutdown()


def test_a_toy_is_the_same_for_the_same_seed_and_never_written_over(folder: Path, tmp_path: Path):
    tiny.write(tmp_path / "again")
    tiny.write(tmp_path / "other", seed=1)
    weights = f"{tiny.CHAT}/model-00001.safetensors"
    same, other = ((tmp_path / name / weights).read_bytes() for name in ("again", "other"))
    assert same == (folder / weights).read_bytes() != other
    with pytest.raises(ConfigError, match="not an empty folder"):
        tiny.write(folder)
    assert "noise" in (folder / "README.md").read_text()


def test_a_toy_has_the_layout_of_the_public_checkpoints(folder: Path, tmp_path: Path):
    settings = {"models.local": (folder,), "models.root": tmp_path, "models.offline": True}
    store = open_store(config.load(environment={}, flags=settings).config)
    store.pull([id for id, spec in store.specs.items() if spec.layout])
    assert store.path(STEP_TTS).resolve() == (folder / tiny.TTS).resolve()
    with Engine(config.load(environment={}, flags={"profile": "step", **settings}).config) as engine:
        assert engine.voices()[0].id == "tingting"
        assert sum(len(piece.audio.samples) for piece in engine.say("hello")) > 2000


def test_a_server_is_used_where_one_serves_it(server: str, monkeypatch: pytest.MonkeyPatch):
    assert served_chat(server) == server
    monkeypatch.setattr("stepaudio.engine.served_chat", lambda: server)
    settings = step()
    assert choose_llm(settings, open_store(settings))[0] == f"openai:{server}"
    with Engine(settings) as engine:
        assert engine.llm.reads == {"text", "codes"}


def test_without_one_it_runs_in_process(server: str, monkeypatch: pytest.MonkeyPatch):
    closed = server.rpartition(":")[0] + ":1"
    assert served_chat(closed) is None
    monkeypatch.setattr("stepaudio.engine.served_chat", lambda: None)
    settings = step()
    assert choose_llm(settings, open_store(settings))[0] == STEP_CHAT


def test_the_doctor_says_what_memory_is_needed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stepaudio.engine.served_chat", lambda: None)
    monkeypatch.setattr("stepaudio.engine.available_memory", lambda: 9_000_000_000)
    said = {row["what"]: row for row in diagnose(step(models__root=tmp_path, tokenizer__device="cuda:7"))}
    assert said["memory for step-audio-tts-3b"]["good"]
    assert "needs 8.0 GB of memory, which has 9.0 GB free" in said["memory for step-audio-tts-3b"]["says"]
    chat = said["memory for step-audio-chat"]
    assert not chat["good"] and "needs 265.0 GB" in chat["says"] and "stepaudio llm serve" in chat["says"]
    gpu = said["memory for step-audio-tokenizer"]
    assert not gpu["good"] and "no GPU for 'cuda:7'" in gpu["says"]
    assert "stepaudio models pull step-audio-tts-3b" in said["model step-audio-tts-3b"]["says"]
    small = diagnose(config.load(folder / tiny.CONFIGURATION, {}, {"models.root": tmp_path}).config)
    assert all(row["good"] for row in small if row["what"].startswith("memory for"))
    default = diagnose(config.load(environment={}, flags={"models.root": tmp_path}).config)
    assert not any(row["what"].startswith("memory for") for row in default)


def test_weights_are_converted_once_and_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "tiny"
    tiny.write(folder)
    assert main(["models", "convert", str(folder)]) == 0
    converted = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(converted) == 5 and all(file.suffix == ".safetensors" for file in converted)
    with Engine(config.load(folder / tiny.CONFIGURATION, {}).config) as engine:
        before = engine.tokenizer.linguistic
    for file in folder.rglob("*.pt"):
        file.unlink()
    with Engine(config.load(folder / tiny.CONFIGURATION, {}).config) as engine:
        assert engine.voices() and engine.tokenizer.linguistic is not before
    assert main(["models", "convert", str(folder)]) == 2


@pytest.mark.parametrize(
    "change, says",
    [
        ("speakers", "has no speakers"),
        (f"{tiny.TTS}/CosyVoice-300M-25Hz-Music/flow.pt", r"flow\.pt is missing"),
        (f"{tiny.TTS}/tokenizer.model", r"tokenizer\.model is missing"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, change: str, says: str):
    folder = tmp_path / "tiny"
    tiny.write(folder)
    (folder / change).rename(folder / "gone")
    settings = config.load(folder / tiny.CONFIGURATION, {}).config
    with Engine(settings) as engine, pytest.raises(ModelMissing, match=says):
        engine.voices()
