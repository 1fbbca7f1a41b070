"""Talk in the terminal: microphone and loudspeaker of this machine, or typed lines, and a Realtime server.

A client like any other: the server decides who speaks. It needs the extra ``chat`` (sounddevice) but for
typed talk.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from stepaudio.client import RATE, Event, Player, RealtimeClient
from stepaudio.core.errors import AudioError, BackendError, ConfigError

BLOCK = RATE // 50
"""Samples that the microphone hands over at once: 20 ms."""

WAITING = 250
"""Blocks that may wait for the network; older ones are dropped, as nobody answers what was said 5 s ago."""


async def talk(client: RealtimeClient, out: IO[str] = sys.stdout) -> None:
    """Speak and listen until the server ends the talk.

    Raises:
        ConfigError: the extra ``chat`` is not installed.
        AudioError: there is no microphone or no loudspeaker.
        BackendError: the server ended the talk.
    """
    heard: asyncio.Queue[np.ndarray] = asyncio.Queue(WAITING)
    loop = asyncio.get_running_loop()

    def put(samples: np.ndarray) -> None:
        if heard.full():
            heard.get_nowait()
        heard.put_nowait(samples)

    async def send() -> None:
        while True:
            await client.send_audio(await heard.get())

    await client.update(audio={"input": {"transcription": {"model": "whisper-base"}}})

    def on_heard(samples: np.ndarray) -> None:
        loop.call_soon_threadsafe(put, samples)

    with _sound(client.player, on_heard):
        print("Speak; Ctrl-C ends the talk.", file=out, flush=True)
        await _both(send(), _print(client, out))


async def write(client: RealtimeClient, lines: IO[str] = sys.stdin, out: IO[str] = sys.stdout) -> None:
    """Answer typed lines in writing, until there are no more.

    Raises:
        BackendError: the server ended the talk.
    """
    typed = _lines(lines)
    answered = asyncio.Event()

    async def ask() -> None:
        while True:
            if out.isatty():
                print("> ", end="", file=out, flush=True)
            line = await typed.get()
            if line is None:
                break
            if line.strip():
                answered.clear()
                await client.send_text(line.strip())
                await answered.wait()
        await client.close()

    await client.update(output_modalities=["text"])
    await _both(ask(), _print(client, out, on_answered=answered.set))


async def _both(says: Any, hears: Any) -> None:
    """Both sides until the server's ends; what one raises ends the other."""
    speaking = asyncio.ensure_future(says)
    try:
        await hears
        if speaking.done():
            speaking.result()
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def _print(
    client: RealtimeClient, out: IO[str], on_answered: Callable[[], None] = lambda: None
) -> None:
    """Show the talk as it goes."""
    open_line = False

    def show(text: str, *, new: bool) -> None:
        nonlocal open_line
        print(("\n" if new and open_line else "") + text, end="", file=out, flush=True)
        open_line = True

    async for event in client:
        match event["type"]:
            case "conversation.item.input_audio_transcription.completed" if event["transcript"].strip():
                show(f"You: {event['transcript'].strip()}", new=True)
            case "response.content_part.added":
                show("", new=True)
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                show(event["delta"], new=False)
            case "response.done":
                show(_end_of(event["response"]) + "\n", new=False)
                open_line = False
                on_answered()
            case "error" if event["error"]["code"] != "response_cancel_not_active":
                show(f"({event['error']['message']})\n", new=True)
                open_line = False
                on_answered()
    if client.closed is not None and client.closed.code != 1000:
        raise BackendError(
            f"the server ended the talk: {client.closed.code} {client.closed.reason}".strip(), retryable=True
        )


def _end_of(response: Event) -> str:
    first_audio = (response.get("timings_ms") or {}).get("first_audio")
    match response["status"]:
        case "cancelled":
            return " — (interrupted)"
        case "failed":
            return f"({response['status_details']['error']['message']})"
    return f"   [{first_audio:.0f} ms]" if first_audio else ""


def _lines(source: IO[str]) -> asyncio.Queue[str | None]:
    """The lines of a file as they come, None at its end. The thread is a daemon: a read cannot be stopped."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            for line in source:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)
        except RuntimeError:
            pass  # the loop is closed: nobody asks any more

    threading.Thread(target=read, name="typed lines", daemon=True).start()
    return lines


@contextmanager
def _sound(player: Player, on_heard: Callable[[np.ndarray], None]) -> Iterator[None]:
    """Microphone and loudspeaker, open for as long as the block lasts."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio, which it needs, is not there
        raise ConfigError(
            "the microphone needs the extra `chat`: pip install 'stepaudio[chat]' (on Linux also "
            "`apt install libportaudio2`); or type instead: stepaudio chat --text"
        ) from error

    def play(out: np.ndarray, frames: int, *_: object) -> None:
        out[:, 0] = player.read(frames)

    def record(samples: np.ndarray, *_: object) -> None:
        on_heard(samples[:, 0].copy())

    form = {"samplerate": RATE, "blocksize": BLOCK, "channels": 1, "dtype": "float32", "latency": "low"}
    try:
        with (
            sounddevice.OutputStream(callback=play, **form),
            sounddevice.InputStream(callback=record, **form),
        ):
            yield
    except sounddevice.PortAudioError as error:
        raise AudioError(
            f"no microphone or no loudspeaker can be opened ({error.args[0]}); "
            f"choose them in the system's settings, or type instead: stepaudio chat --text"
        ) from error
