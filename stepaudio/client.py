"""An asynchronous client of the Realtime protocol: talk with a running `stepaudio serve` in a few lines.

::

    import asyncio
    from stepaudio.client import connect

    async def main() -> None:
        async with await connect("http://127.0.0.1:8910") as talk:
            await talk.send_text("What is the capital of Australia?")
            async for event in talk:
                match event["type"]:
                    case "response.output_audio_transcript.delta":
                        print(event["delta"], end="", flush=True)
                    case "response.done":
                        break
            speech = talk.player.read(24_000)  # the first second of the answer, float32 at 24 kHz

    asyncio.run(main())

An event is the JSON object of the wire as a dict. The answer's audio goes to ``Player``, which knows to the
sample what was played; when the server says that the user interrupts, the client empties it and tells the
server what was heard. Nothing is decided here. It does not know microphones, loudspeakers or models.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np
import soxr
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket

from stepaudio.core.audio import AudioChunk, float_to_pcm16, pcm16_to_float
from stepaudio.core.errors import AudioError, BackendError, ConfigError

RATE = 24_000
"""Hz, of the audio in both directions."""

URL = "http://127.0.0.1:8910"
"""Where `stepaudio serve` listens."""

LONGEST_FRAME_S = 2.0
"""Longer audio is sent in several events, which keeps each far below the limits of any server."""

Event = dict[str, Any]


class Player:
    """What the listener hears: audio of one answer after another, and how much of each has been played.

    A loudspeaker's thread calls ``read``; the rest belongs to the event loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, np.ndarray]] = deque()
        self._read = 0  # samples of the first piece that were played
        self._played: dict[str, int] = {}
        self._open: str | None = None
        self.missed = 0
        """Samples that were asked for while an answer was not yet whole and had none: underruns."""

    def push(self, item: str, samples: np.ndarray) -> None:
        """Audio of the answer ``item`` to play after what is there; float32, mono, 24 kHz."""
        with self._lock:
            self._waiting.append((item, samples))
            self._played.setdefault(item, 0)
            self._open = item

    def finish(self, item: str) -> None:
        """No more audio of ``item`` will come: silence after it is no underrun."""
        with self._lock:
            if self._open == item:
                self._open = None

    def read(self, count: int) -> np.ndarray:
        """The next samples to play, float32, shape (count,); silence where there are none."""
        out = np.zeros(count, np.float32)
        filled = 0
        with self._lock:
            while filled < count and self._waiting:
                item, samples = self._waiting[0]
                piece = samples[self._read : self._read + count - filled]
                out[filled : filled + len(piece)] = piece
                filled += len(piece)
                self._read += len(piece)
                self._played[item] += len(piece)
                if self._read == len(samples):
                    self._waiting.popleft()
                    self._read = 0
            if self._open is not None and self._played[self._open]:
                self.missed += count - filled
        return out

    @property
    def waiting_s(self) -> float:
        """Seconds of audio that are there and not yet played."""
        with self._lock:
            return (sum(len(samples) for _, samples in self._waiting) - self._read) / RATE

    def played_ms(self, item: str) -> float:
        """How much of ``item`` has been played; 0 for one that is not known."""
        with self._lock:
            return self._played.get(item, 0) * 1000 / RATE

    def flush(self) -> list[tuple[str, float]]:
        """Forget what was not played.

        Returns:
            The answers that were cut short, each with the ms of it that were played.
        """
        with self._lock:
            cut = dict.fromkeys(item for item, _ in self._waiting)
            if self._open is not None:
                cut[self._open] = None
            self._waiting.clear()
            self._read, self._open = 0, None
            return [(item, self._played[item] * 1000 / RATE) for item in cut]


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended: the WebSocket's close code (1000 is normal) and the reason given."""

    code: int
    reason: str


class RealtimeClient:
    """One talk. Made by ``connect``; use it in an ``async with`` and iterate it for the server's events.

    Attributes:
        player: where the answer's audio goes.
        session: the session as the server last described it.
        closed: how it ended, None while it is open.
    """

    def __init__(self, socket: ClientConnection, *, truncate: bool = True) -> None:
        self._socket = socket
        self._truncate = truncate
        self._numbers = itertools.count(1)
        self._resampler: tuple[int, soxr.ResampleStream] | None = None
        self._dropped: set[str] = set()
        self.player = Player()
        self.session: Event = {}
        self.closed: Closed | None = None

    async def __aenter__(self) -> RealtimeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the talk. Closing twice does no harm."""
        await self._socket.close()

    # What the client says

    async def send(self, type: str, **fields: Any) -> str:
        """Send any event of the protocol; fields that are None are left out.

        Returns:
            Its ``event_id``, which an ``error`` event that it causes will name.

        Raises:
            BackendError: the connection is closed.
        """
        id = f"event_{next(self._numbers)}"
        event = {"type": type, "event_id": id} | {k: v for k, v in fields.items() if v is not None}
        try:
            await self._socket.send(json.dumps(event, ensure_ascii=False))
        except websockets.ConnectionClosed as error:
            raise BackendError(f"the server ended the talk: {_why(error)}", retryable=True) from None
        return id

    async def update(self, **session: Any) -> str:
        """Change the session: ``update(instructions="Answer in one sentence.")``."""
        return await self.send("session.update", session={"type": "realtime"} | session)

    async def send_audio(self, audio: AudioChunk | np.ndarray) -> None:
        """What the microphone heard, in pieces of any length.

        Args:
            audio: a piece of one continuous stream at any rate (resampled here without seams), or float32
                samples at 24 kHz.

        Raises:
            AudioError: the rate changed within the stream.
            BackendError: the connection is closed.
        """
        samples = self._at_wire_rate(audio) if isinstance(audio, AudioChunk) else audio
        step = int(LONGEST_FRAME_S * RATE)
        for start in range(0, len(samples), step):
            pcm = float_to_pcm16(samples[start : start + step]).astype("<i2").tobytes()
            await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode("ascii"))

    async def send_text(self, text: str, *, respond: bool = True) -> None:
        """A typed message of the user; ``respond`` asks for the answer at once."""
        content = [{"type": "input_text", "text": text}]
        await self.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content}
        )
        if respond:
            await self.respond()

    async def respond(self, **response: Any) -> None:
        """Ask for an answer, with overrides: ``respond(output_modalities=["text"])``."""
        await self.send("response.create", response=response or None)

    async def commit(self) -> None:
        """The turn is over (only where the session has no ``turn_detection``)."""
        await self.send("input_audio_buffer.commit")

    async def truncate(self, item: str, played_ms: float) -> None:
        """Tell the server how much of the answer ``item`` was heard."""
        await self.send(
            "conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=int(played_ms)
        )

    async def stop(self) -> None:
        """Stop the answer that is being spoken, and say how much of it was heard."""
        await self.send("response.cancel")
        await self._interrupted()

    # What the server says

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The server's events until the connection ends; ``closed`` then says how."""
        try:
            async for message in self._socket:
                event = json.loads(message)
                await self._follow(event)
                yield event
        except websockets.ConnectionClosed:
            pass
        finally:
            if self._socket.close_code is not None:
                self.closed = Closed(self._socket.close_code, self._socket.close_reason or "")

    async def _follow(self, event: Event) -> None:
        """Keep the player in step with what the server says."""
        match event.get("type"):
            case "session.created" | "session.updated":
                self.session = event["session"]
            case "response.output_audio.delta" if event["item_id"] not in self._dropped:
                pcm = np.frombuffer(base64.b64decode(event["delta"]), "<i2")
                self.player.push(event["item_id"], pcm16_to_float(pcm))
            case "response.output_audio.done":
                self.player.finish(event["item_id"])
            case "input_audio_buffer.speech_started":
                await self._interrupted()
            case "response.done" if event["response"]["status"] == "cancelled":
                await self._interrupted()

    async def _interrupted(self) -> None:
        for item, played_ms in self.player.flush():
            self._dropped.add(item)
            if self._truncate:
                await self.truncate(item, played_ms)

    def _at_wire_rate(self, audio: AudioChunk) -> np.ndarray:
        if audio.rate == RATE:
            return audio.samples
        if self._resampler is None:
            self._resampler = audio.rate, soxr.ResampleStream(audio.rate, RATE, 1, dtype="float32")
        rate, stream = self._resampler
        if audio.rate != rate:
            raise AudioError(f"the stream began at {rate} Hz and goes on at {audio.rate}: keep one rate")
        return stream.resample_chunk(audio.samples)


async def connect(
    url: str = URL,
    *,
    api_key: str | None = None,
    model: str | None = None,
    truncate: bool = True,
    session: Mapping[str, Any] | None = None,
) -> RealtimeClient:
    """Begin a talk.

    Args:
        url: the server, ``http://host:port`` (https, ws and wss work too).
        api_key: key of a server that wants one.
        model: None leaves the choice to the server.
        truncate: tell the server by itself how much of an interrupted answer was played.
        session: first settings, as for ``update``.

    Raises:
        ConfigError: the address is none, or the server wants another key.
        BackendError: there is no server, or it is full (``retryable``; the message says when to try again).
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        socket = await open_socket(
            _socket_url(url, model), additional_headers=headers, max_size=None, compression=None
        )
    except websockets.InvalidURI as error:
        raise ConfigError(f"{url!r} is no address of a server: write http://host:port") from error
    except websockets.InvalidStatus as error:
        raise _refused(url, error.response) from None
    except websockets.InvalidHandshake as error:
        raise BackendError(f"{url} does not speak the Realtime protocol: {error}") from error
    except OSError as error:  # refused, or no answer in time
        raise BackendError(
            f"no server answers at {url}: start one with `stepaudio serve`, or name another with --url",
            retryable=True,
        ) from error
    client = RealtimeClient(socket, truncate=truncate)
    if session:
        await client.update(**session)
    return client


def _socket_url(url: str, model: str | None) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path += "/realtime" if path.endswith("/v1") else "/v1/realtime"
    query = "&".join(filter(None, [parts.query, model and f"model={quote(model)}"]))
    return urlunsplit((scheme, parts.netloc, path, query, ""))


def _refused(url: str, response: Any) -> ConfigError | BackendError:
    status = response.status_code
    if status in (401, 403):
        return ConfigError(f"{url} refuses this client ({status}): give it a key that it knows")
    if status == 503:
        wait = response.headers.get("Retry-After")
        when = f"try again in {wait} s" if wait else "try again later"
        return BackendError(f"{url} holds as many talks as it can: {when}", retryable=True)
    return BackendError(f"{url} answers {status} where a talk should begin: is it a Realtime server?")


def _why(error: websockets.ConnectionClosed) -> str:
    received = error.rcvd
    return f"{received.code} {received.reason}".strip() if received else "the connection was lost"
