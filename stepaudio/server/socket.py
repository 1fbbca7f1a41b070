"""``WS /v1/realtime``: one WebSocket, one talk.

Reads text frames into the talk and writes what the session sends. Nobody can make the server keep much: a
client that talks faster than twice real time is read more slowly, and one that does not read what it is sent
is dropped. Close codes: 1000 the session is over, 1001 the service ends, 1008 the client does not read,
1011 a bug.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from stepaudio.core import protocol as wire
from stepaudio.core.errors import ProtocolError
from stepaudio.core.realtime import RealtimeSession
from stepaudio.server.auth import Caller, answered_subprotocol
from stepaudio.server.errors import ApiError
from stepaudio.server.recorder import SUFFIX, Recorder, ids
from stepaudio.server.talk import Talk, places

if TYPE_CHECKING:
    from stepaudio.server.app import Service

log = logging.getLogger(__name__)

LIFETIME_S = 3600
"""Longest session (OpenAI's number)."""
UNREAD_BYTES = 4_000_000
"""Unread by the client, at most: over a minute of audio, or a long history."""
UNREAD_S = 10.0
"""A client that takes nothing for so long is gone."""
FAST = 2.0
"""Input that is read at most, seconds of audio a second, …"""
BURST_S = 30.0
"""… after so much at once."""
EVENT_S = 0.005
"""What any event counts for in this, at least: 400 a second."""
RETRIEVED_S = 0.1
"""What it counts for that an item is retrieved, which may hold 850 KB: 20 a second."""
WIRE_BYTES_A_SECOND = 24_000 * 2 * 4 / 3  # of base64
CLOSING_S = 2.0
"""For the last frames and the closing handshake."""


async def realtime(websocket: WebSocket, service: Service) -> None:
    """Hold a talk.

    Raises:
        ApiError: there is no place for it, or what it asks for is not here. The socket is not open yet.
    """
    caller: Caller = websocket.state.caller
    model = websocket.query_params.get("model")
    transcribes = websocket.query_params.get("intent") == "transcription"
    if model is not None and not transcribes:
        service.check_model(model)
    async with service.admission.talk(caller):
        settings = first_settings(service, model, caller, transcribes=transcribes)
        offered = websocket.scope.get("subprotocols", ())
        await websocket.accept(subprotocol=answered_subprotocol(offered))
        socket = Socket(websocket, service, settings)
        service.sockets.add(socket)
        try:
            await socket.run()
        finally:
            service.sockets.discard(socket)


def first_settings(
    service: Service, model: str | None, caller: Caller, *, transcribes: bool = False
) -> wire.Settings:
    """What a session begins with: the server's own settings, and over them those of a client secret.

    Raises:
        ApiError: a client secret's settings cannot be used.
    """
    given = dict(caller.session or {})
    id, expires_at = f"sess_{secrets.token_hex(12)}", int(time.time()) + LIFETIME_S
    if transcribes or given.get("type") == "transcription":
        settings: wire.Settings = wire.TranscriptionSettings(id=id, expires_at=expires_at)
    else:
        settings = wire.RealtimeSettings(
            id=id,
            expires_at=expires_at,
            model=model or given.get("model") or next(iter(service.models())),
            instructions=service.engine.system.text,
            audio=wire.Audio(output=wire.AudioOutput(voice=DEFAULT_VOICE)),
        )
    if transcribes and given.get("type") != "transcription":
        return settings
    try:
        return wire.updated(settings, given)
    except ProtocolError as error:
        raise ApiError(400, str(error), code=error.code, param=error.param) from None


DEFAULT_VOICE = "marin"
"""Of OpenAI's names; here it is the configured voice of the language that is spoken."""


class Socket:
    """A WebSocket at work. One for each connection.

    Args:
        websocket: accepted.
        service: what it belongs to.
        settings: of the session, at its start.
    """

    def __init__(self, websocket: WebSocket, service: Service, settings: wire.Settings) -> None:
        self._websocket, self._metrics = websocket, service.metrics
        self._lines: deque[str] = deque()
        self._unread = 0  # bytes
        self._written = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self._budget = _Budget(time.monotonic())
        seed = secrets.randbits(64)
        self._recorder = _recorder(service.settings.record, settings, seed)
        self.talk = Talk(
            RealtimeSession(settings, ids(seed)),
            service.engine,
            service.ears,
            service.voice,
            self._send,
            metrics=service.metrics,
            recorder=self._recorder,
        )

    async def run(self) -> None:
        """Until the talk is over; then everything of it is stopped."""
        loop = asyncio.get_running_loop()
        self.talk.start()
        tasks = [loop.create_task(self._read()), loop.create_task(self._write())]
        expiry = loop.call_later(LIFETIME_S, self.talk.expire)
        try:
            await self.talk.run()
            close = self._close or self.talk.ended or (1000, "")
        except Exception as error:
            id = self.talk.session.settings.id
            log.error("%s failed: %s\n%s", id, type(error).__name__, places(error))
            close = 1011, "internal error"
        finally:
            expiry.cancel()
            tasks[0].cancel()
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(CLOSING_S):
                while self._lines and not tasks[1].done():
                    await asyncio.sleep(0.01)
                tasks[1].cancel()
                await self._websocket.close(*close)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._recorder is not None:
            self._recorder.close()

    async def leave(self, deadline: float) -> None:
        """Let the answer under way end, until ``deadline`` (``time.monotonic()``); then close with 1001."""
        while self.talk.is_answering and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self._close = 1001, "the service ends"
        self.talk.close()

    def _send(self, event: wire.ServerEvent) -> None:
        """Take an event that is to be sent."""
        if self._unread > UNREAD_BYTES:
            self._drop()
            return
        line = wire.to_json(event)
        if isinstance(event, wire.ItemRetrieved):  # small to ask for, large to answer
            self._budget.wait_s(RETRIEVED_S, time.monotonic())
        self._metrics.events_total.labels(event.type).inc()
        if isinstance(event, wire.Error):
            self._metrics.errors_total.labels(event.error.code or "unknown").inc()
        self._lines.append(line)
        self._unread += len(line)
        self._written.set()

    def _drop(self) -> None:
        self._close = 1008, "the client does not read"
        self._lines.clear()
        self.talk.close()

    async def _write(self) -> None:
        try:
            while True:
                self._written.clear()
                while self._lines:
                    line = self._lines[0]
                    async with asyncio.timeout(UNREAD_S):
                        await self._websocket.send_text(line)
                    if self._lines:
                        self._lines.popleft()
                    self._unread -= len(line)
                await self._written.wait()
        except TimeoutError:
            self._drop()
        except (WebSocketDisconnect, RuntimeError):  # it is gone; the reader learns of it, too
            self.talk.close()

    async def _read(self) -> None:
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                frame: str | bytes = message.get("text") or message.get("bytes") or ""
                wait_s = self._budget.wait_s(len(frame) / WIRE_BYTES_A_SECOND, time.monotonic())
                await self.talk.receive(frame)
                if wait_s:
                    await asyncio.sleep(wait_s)
        except Exception as error:  # a bug: ``receive`` tells of the end by a message
            self.talk.fail(error)
        finally:
            self.talk.close()


def _recorder(folder: Path | None, settings: wire.Settings, seed: int) -> Recorder | None:
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Recorder(folder / f"{settings.id}{SUFFIX}", settings, seed)
    except OSError as error:
        log.error(
            "server.record: %s cannot be written to (%s); the talk is not recorded", folder, error.strerror
        )
        return None


class _Budget:
    """How fast a client may talk: ``FAST`` times real time, after ``BURST_S`` at once."""

    def __init__(self, now: float) -> None:
        self._level, self._at = BURST_S, now

    def wait_s(self, audio_s: float, now: float) -> float:
        """Seconds to wait before the next event is read, after one that holds so much audio."""
        self._level = min(BURST_S, self._level + FAST * (now - self._at)) - max(audio_s, EVENT_S)
        self._at = now
        return max(0.0, -self._level / FAST)
