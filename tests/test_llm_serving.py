"""stepaudio llm serve: the command that starts vLLM, where it is looked for, and what happens when it ends.

A real vLLM: tests/vllm.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from stepaudio.cli import main
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm import serving
from stepaudio.llm.serving import Server, find_python, plan
from stepaudio.llm.step1.folder import CONFIG, SINGLE, Folder, shapes

SIZES = {
    "model_type": "step1",
    "vocab_size": 8,
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_attention_groups": 1,
}


def planned(*flags: str, tied: bool = False, gpu: bool = False, **config: Any) -> serving.Plan:
    return plan(Folder(Path("Step-Audio-X"), config, (), tied, 0), flags, Path("python"), gpu)


def checkpoint(path: Path) -> Path:
    """A folder that is whole: heads of tensors, and zeros."""
    (path / CONFIG).write_text(json.dumps(SIZES))
    head, at = {}, 0
    for name, shape in shapes(path, SIZES).items():
        size = 4
        for part in shape:
            size *= part
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    (path / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    return path


def program(path: Path, body: str) -> Path:
    """What stands for the Python of vLLM's environment: it answers the question whether vLLM is there."""
    path.write_text(f"#!{sys.executable}\nimport sys\nif sys.argv[1] == '-c':\n    sys.exit({body}\n")
    path.chmod(0o755)
    return path


def test_it_listens_on_this_machine_and_is_called_as_its_folder():
    found = planned()
    assert found.command == (
        *("python", "-m", "vllm.entrypoints.openai.api_server", "--model", "Step-Audio-X"),
        *("--served-model-name", "Step-Audio-X", "--host", "127.0.0.1", "--port", "8000"),
    )
    assert (found.url, found.name) == ("http://127.0.0.1:8000/v1", "Step-Audio-X")


def test_flags_go_on_as_they_are_and_are_never_given_twice():
    flags = ("--host=0.0.0.0", "--port", "9", "--served-model-name", "chat", "--tensor-parallel-size", "4")
    found = planned(*flags)
    assert found.command[-len(flags) :] == flags
    assert found.command[3 : -len(flags)] == ("--model", "Step-Audio-X")
    assert (found.url, found.name) == ("http://127.0.0.1:9/v1", "chat")
    assert planned("--host", "::1").url == "http://[::1]:8000/v1"


@pytest.mark.parametrize(
    ("tied", "config", "override"),
    [
        (False, {}, None),
        (True, {"tie_word_embeddings": True}, None),
        (True, {}, '{"tie_word_embeddings": true}'),
        (False, {"tie_word_embeddings": True}, '{"tie_word_embeddings": false}'),
    ],
)
def test_vllm_is_told_what_the_files_hold(tied: bool, config: dict[str, Any], override: str | None):
    command = planned(tied=tied, **config).command
    assert (command[command.index("--hf-overrides") + 1] if "--hf-overrides" in command else None) == override


def test_on_a_gpu_the_one_attention_that_has_the_root():
    assert planned(gpu=True).command[-2:] == ("--attention-backend", "TRITON_ATTN")
    assert planned("--attention-backend=FLEX", gpu=True).command.count("--attention-backend") == 0


def test_where_vllm_is_not_the_message_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(ConfigError, match="make vllm"):
        find_python(tmp_path)
    with pytest.raises(ConfigError, match=r"vLLM is not installed for .*make vllm"):
        find_python(program(tmp_path / "a", "3)"))
    with pytest.raises(ConfigError, match=r"stepaudio, whose plug-in .* is not installed"):
        find_python(program(tmp_path / "b", "4)"))
    (tmp_path / "bin").mkdir()
    python = program(tmp_path / "bin" / "python", "0)")
    assert find_python(tmp_path) == find_python(python) == python


def test_a_vllm_that_ends_is_an_error_and_not_a_wait(tmp_path: Path):
    python = program(tmp_path / "python", "0)\nprint('no memory', flush=True)\nsys.exit(7)")
    log = tmp_path / "log"
    with (
        log.open("wb") as out,
        Server(checkpoint(tmp_path), ("--port", "9"), python, out) as server,
        pytest.raises(BackendError, match="ended with status 7"),
    ):
        server.wait_ready(60)
    assert log.read_text() == "no memory\n"


def test_one_that_never_answers_is_given_up_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    body = "0)\nimport signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up', flush=True)"
    python = program(tmp_path / "python", body + "\ntime.sleep(600)")
    monkeypatch.setattr(serving, "STOP_S", 0.1)
    log = tmp_path / "log"
    with log.open("wb") as out, Server(checkpoint(tmp_path), ("--port", "9"), python, out) as server:
        while not log.read_text():
            pass
        with pytest.raises(BackendError, match="did not answer") as caught:
            server.wait_ready(0.01)
        assert caught.value.retryable
        assert server._process is not None
        pid = server._process.pid
    assert not Path(f"/proc/{pid}").exists()


def test_the_command_refuses_a_folder_before_it_starts_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["llm", "serve", str(tmp_path), "--port", "9"]) == 1
    assert "config.json is missing" in capsys.readouterr().err
    (tmp_path / CONFIG).write_text('{"model_type": "step_audio_2"}')
    assert main(["llm", "serve", str(tmp_path), "--port", "9"]) == 2
    assert "is Step-Audio 2 or R1" in capsys.readouterr().err
