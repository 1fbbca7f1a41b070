"""People to measure a server with: a microphone and a loudspeaker in real time, at the end of a socket.

Times are ``time.monotonic()`` seconds on the client's side. A sample of the microphone's stream happens at
its place on that line, and is sent when the 20 ms that hold it are over, as a real microphone does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stepaudio.client import RATE, Event, RealtimeClient, connect
from stepaudio.config import Config, names
from stepaudio.core.errors import BackendError

TICK = RATE // 50
TICK_S = TICK / RATE
LOADING_S = 300
"""Longest wait for a server's models."""


@dataclass
class Talker:
    """One person and what happened to them.

    Attributes:
        events: (when, event), oldest first; of audio only its length is kept, as ``samples``.
        first_audio: when the first audio of each response came.
        words: of each answer, (text, ms from its start): the captions.
        sound_until: when the loudspeaker was last not silent.
        spoken: samples played in answers.
    """

    client: RealtimeClient
    events: list[tuple[float, Event]] = field(default_factory=list)
    first_audio: dict[str, float] = field(default_factory=dict)
    words: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    sound_until: float = 0.0
    spoken: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    _began: float = 0.0
    _ticks: int = 0

    def say(self, samples: np.ndarray) -> float:
        """Speak these samples (24 kHz) from the next tick on; returns when the first of them happens."""
        self._waiting = samples
        return self._began + self._ticks * TICK_S

    async def until(self, what: Callable[[], Any], seconds: float) -> Any:
        """Wait until ``what()`` is true and return it; None when the time is over."""
        end = time.monotonic() + seconds
        while not (value := what()):
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(left, 0.1))
        return value

    def find(self, type: str, *, after: float = 0.0, **fields: Any) -> tuple[float, Event] | None:
        """The first event of this type that came after a moment and has these fields."""
        for at, event in self.events:
            if event["type"] == type and at > after and fields.items() <= event.items():
                return at, event
        return None

    def done(self, response_id: str) -> Event | None:
        """The ``response`` of a ``response.done``."""
        for _, event in self.events:
            if event["type"] == "response.done" and event["response"]["id"] == response_id:
                return event["response"]
        return None

    async def live(self) -> None:
        """Microphone and loudspeaker, tick by tick, and the server's events, until cancelled."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            while True:
                self._ticks += 1
                await asyncio.sleep(self._began + self._ticks * TICK_S - time.monotonic())
                frame, self._waiting = self._waiting[:TICK], self._waiting[TICK:]
                await self.client.send_audio(np.pad(frame, (0, TICK - len(frame))))
                heard = self.client.player.read(TICK)
                if heard.any():
                    self.sound_until = time.monotonic() + TICK_S
                    self.spoken += TICK

    async def _listen(self) -> None:
        async for event in self.client:
            now = time.monotonic()
            match event["type"]:
                case "response.output_audio.delta":
                    self.first_audio.setdefault(event["response_id"], now)
                    event["samples"] = len(base64.b64decode(event.pop("delta"))) // 2
                case "response.output_audio_transcript.delta" if "start_time" in event:
                    word = event["delta"], 1000 * event["start_time"]
                    self.words.setdefault(event["item_id"], []).append(word)
            self.events.append((now, event))
            self._news.set()
        raise BackendError(f"the server ended the talk: {self.client.closed}", retryable=True)


@asynccontextmanager
async def talker(url: str, key: str | None = None, **session: Any) -> AsyncIterator[Talker]:
    """A person who is connected and silent."""
    async with await connect(url, api_key=key, session=session) as client:
        one = Talker(client)
        living = asyncio.create_task(one.live())
        try:
            await one.until(lambda: living.done() or one.find("session.created"), 20)
            yield one
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)


class Server:
    """A `stepaudio serve`: one of our own, whose memory and time can be read, or another's address.

    Attributes:
        url: where it is.
        pid: its process, None for another's.
    """

    def __init__(self, url: str, pid: int | None = None) -> None:
        self.url, self.pid = url, pid

    def capacity(self) -> Event:
        """What it says of itself (``/v1/capacity``); {} where it does not."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/capacity", timeout=10) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return {}

    def memory_mb(self) -> float | None:
        """Resident memory in MB (1e6) without its decoders' processes; None where it cannot be read."""
        status = self._proc("status")
        line = next((line for line in status.splitlines() if line.startswith("VmRSS")), None)
        return int(line.split()[1]) * 1024 / 1e6 if line else None

    def cpu_s(self) -> float | None:
        """Processor time it has used, seconds; None where it cannot be read."""
        stat = self._proc("stat").rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") if stat else None

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text() if self.pid else ""
        except OSError:
            return ""


@contextmanager
def serving(
    config: Config, url: str | None = None, settings: Mapping[str, Any] | None = None
) -> Iterator[Server]:
    """A server with its models loaded; of our own, in a child process, unless ``url`` names another.

    Args:
        settings: dotted names and values on top of ``config``.

    Raises:
        BackendError: it does not come up; the message ends with what it said last.
    """
    if url is not None:
        yield Server(url.rstrip("/"))
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wanted = {"server.host": "127.0.0.1", "server.port": port} | dict(settings or {})
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "stepaudio", "serve"],
            env=os.environ | _environment(config, wanted),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _wait_ready(address, child, log)
            yield Server(address, child.pid)
        finally:
            child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_ready(address: str, child: subprocess.Popen[Any], log: Any) -> None:
    end = time.monotonic() + LOADING_S
    while time.monotonic() < end and child.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/ready", timeout=5):
                return
        except OSError:  # not open yet, or 503: not ready yet
            time.sleep(0.2)
    log.seek(0)
    raise BackendError("the server does not come up:\n" + log.read()[-2000:])


def _environment(config: Config, settings: Mapping[str, Any]) -> dict[str, str]:
    """The configuration as environment variables; what is as built in is left out."""
    plain, found = Config.model_validate({}), {}
    for name in names():
        *section, key = name.split(".")
        value, built_in = (getattr(getattr(c, section[0]) if section else c, key) for c in (config, plain))
        value = settings.get(name, value)
        if value is None or value == built_in:
            continue
        if isinstance(value, tuple):
            value = (os.pathsep if name == "models.local" else " ").join(map(str, value))
        elif hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        found[f"STEPAUDIO_{name.replace('.', '__').upper()}"] = str(value)
    return found
