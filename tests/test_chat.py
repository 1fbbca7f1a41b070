"""Talk in the terminal: typed lines, and a microphone and loudspeaker that are fakes."""

from __future__ import annotations

import io
import json
import sys
import types
from typing import Any, ClassVar

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from stepaudio import chat
from stepaudio.client import RealtimeClient
from stepaudio.core.errors import AudioError, BackendError, ConfigError
from tests.test_client import audio, gather, ones, say, talk


class Answers:
    """A server that answers every question with "Yes."; the last of ``ends`` is how each response ends."""

    def __init__(self, **ends: Any) -> None:
        self.ends = {"status": "completed", "timings_ms": {"first_audio": 412.3}} | ends

    async def __call__(self, socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        async for message in socket:
            received.append(json.loads(message))
            if received[-1]["type"] == "response.create":
                await socket.send(say(type="response.content_part.added"))
                await socket.send(say(type="response.output_text.delta", delta="Yes."))
                await socket.send(say(type="response.done", response=self.ends))


def typed(server: Any, lines: str) -> tuple[str, list[dict[str, Any]]]:
    out = io.StringIO()

    async def client(one: RealtimeClient) -> None:
        await chat.write(one, io.StringIO(lines), out)

    received = talk(server, client)
    return out.getvalue(), received


def test_typed_lines_are_answered_in_turn():
    shown, received = typed(Answers(), "First?\n\n  Second?\n")
    assert shown == "Yes.   [412 ms]\nYes.   [412 ms]\n"
    assert received[0]["session"]["output_modalities"] == ["text"]
    asked = [e["item"]["content"][0]["text"] for e in received if e["type"] == "conversation.item.create"]
    assert asked == ["First?", "Second?"]


def test_an_answer_that_failed_says_why_and_the_next_is_asked():
    error = {"error": {"message": "The answer failed; ask again."}}
    shown, received = typed(Answers(status="failed", status_details=error), "First?\nSecond?\n")
    assert shown.count("(The answer failed; ask again.)") == 2
    assert [event["type"] for event in received].count("response.create") == 2


def test_a_server_that_ends_the_talk_is_told_of():
    async def server(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await socket.recv()
        await socket.close(1001, "going away")

    with pytest.raises(BackendError, match="1001 going away"):
        typed(server, "First?\n")


# Microphone and loudspeaker


class PortAudioError(Exception):
    pass


class Stream:
    """Records half a second of ones, or plays a second, in blocks, as soon as it is opened."""

    played: ClassVar[list[float]] = []

    def __init__(self, *, callback: Any, samplerate: int, blocksize: int, channels: int, **_: Any) -> None:
        self.callback, self.blocksize = callback, blocksize
        assert (samplerate, channels) == (24_000, 1)

    def __exit__(self, *_: object) -> None:
        pass


class InputStream(Stream):
    def __enter__(self) -> None:
        for _ in range(25):
            self.callback(np.ones((self.blocksize, 1), np.float32), self.blocksize, None, None)


class OutputStream(Stream):
    def __enter__(self) -> None:
        self.out = np.zeros((self.blocksize, 1), np.float32)

    def __exit__(self, *_: object) -> None:
        self.callback(self.out, self.blocksize, None, None)
        Stream.played.append(float(self.out[0, 0]))


def test_what_the_microphone_hears_is_sent_and_the_answer_is_played(monkeypatch: pytest.MonkeyPatch):
    device = types.SimpleNamespace(
        InputStream=InputStream, OutputStream=OutputStream, PortAudioError=PortAudioError
    )
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    Stream.played.clear()
    out = io.StringIO()

    async def server(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        while sum(event["type"] == "input_audio_buffer.append" for event in received) < 25:
            received.append(json.loads(await socket.recv()))
        await socket.send(
            say(type="conversation.item.input_audio_transcription.completed", transcript=" Why? ")
        )
        await socket.send(say(type="response.content_part.added"))
        await socket.send(say(type="response.output_audio_transcript.delta", delta="Because."))
        await socket.send(audio("item_1", ones(100)))
        await socket.send(say(type="response.done", response={"status": "completed"}))
        await socket.close()

    async def client(one: RealtimeClient) -> None:
        await chat.talk(one, out)

    talk(server, client)
    assert out.getvalue() == "Speak; Ctrl-C ends the talk.\nYou: Why?\nBecause.\n"
    assert Stream.played == [0.5]


def test_without_the_extra_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    async def client(one: RealtimeClient) -> None:
        with pytest.raises(ConfigError, match=r"pip install 'stepaudio\[chat\]'.*--text"):
            await chat.talk(one, io.StringIO())

    talk(gather, client)


def test_without_a_device_one_is_told_to_type(monkeypatch: pytest.MonkeyPatch):
    def none(**_: Any) -> None:
        raise PortAudioError("Error querying device -1")

    device = types.SimpleNamespace(InputStream=none, OutputStream=none, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", device)

    async def client(one: RealtimeClient) -> None:
        with pytest.raises(AudioError, match=r"querying device.*--text"):
            await chat.talk(one, io.StringIO())

    talk(gather, client)
