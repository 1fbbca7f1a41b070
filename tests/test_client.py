"""The client: what the player has played, and what goes over the socket (a real one, on the loopback)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from stepaudio.client import RATE, Player, RealtimeClient, connect
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError, BackendError, ConfigError

MS = RATE // 1000


def ones(ms: int) -> np.ndarray:
    return np.ones(ms * MS, np.float32)


# The player


def test_what_is_played_comes_in_order_and_then_silence():
    player = Player()
    player.push("a", ones(10))
    player.push("b", 0.5 * ones(10))
    heard = player.read(30 * MS)
    assert [heard[0], heard[15 * MS], heard[25 * MS]] == [1.0, 0.5, 0.0]
    assert (player.played_ms("a"), player.played_ms("b"), player.played_ms("c")) == (10, 10, 0)


def test_positions_are_exact_across_pieces():
    player = Player()
    for _ in range(3):
        player.push("a", ones(7))
    player.read(MS * 10 + 5)
    assert player.played_ms("a") == 10 + 5 / MS
    assert player.waiting_s == pytest.approx((11 * MS - 5) / RATE)


def test_flush_names_what_was_cut_and_how_far_it_was_heard():
    player = Player()
    player.push("a", ones(10))
    player.finish("a")
    player.push("b", ones(10))
    player.read(12 * MS)
    assert player.flush() == [("b", 2.0)]
    assert not player.read(5 * MS).any()
    assert player.flush() == []


def test_an_answer_not_yet_begun_is_cut_at_0():
    player = Player()
    player.push("a", ones(10))
    assert player.flush() == [("a", 0.0)]


def test_an_answer_whose_audio_has_all_been_played_so_far_is_cut_where_it_stands():
    player = Player()
    player.push("a", ones(10))
    player.read(20 * MS)
    assert player.flush() == [("a", 10.0)]  # more was to come


def test_only_silence_within_an_answer_is_missed():
    player = Player()
    player.read(10 * MS)  # nobody speaks
    player.push("a", ones(10))
    player.read(15 * MS)  # 5 ms too late
    player.push("a", ones(10))
    player.read(10 * MS)
    player.finish("a")
    player.read(10 * MS)  # it is over
    assert player.missed == 5 * MS


# The socket

Script = Callable[[ServerConnection, list[dict[str, Any]]], Awaitable[None]]


def talk(server: Script, client: Callable[[RealtimeClient], Awaitable[None]]) -> list[dict[str, Any]]:
    """Run both sides; returns what the server was sent."""
    received: list[dict[str, Any]] = []

    async def both() -> None:
        async def handle(socket: ServerConnection) -> None:
            await server(socket, received)

        async with serve(handle, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            async with asyncio.timeout(20), await connect(f"http://127.0.0.1:{port}") as one:
                await client(one)

    asyncio.run(both())
    return received


def say(**event: Any) -> str:
    return json.dumps(event)


def audio(item: str, samples: np.ndarray) -> str:
    pcm = base64.b64encode((samples * 16384).astype("<i2").tobytes()).decode()
    return say(type="response.output_audio.delta", item_id=item, delta=pcm)


async def gather(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
    async for message in socket:
        received.append(json.loads(message))


def test_a_typed_question_and_its_answer():
    async def server(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await socket.send(say(type="session.created", session={"id": "sess_1"}))
        received += [json.loads(await socket.recv()) for _ in range(2)]
        await socket.send(audio("item_1", ones(10)))
        await socket.send(say(type="response.output_audio.done", item_id="item_1"))
        await socket.send(say(type="response.done", response={"status": "completed"}))

    async def client(one: RealtimeClient) -> None:
        await one.send_text("Hello")
        types = [event["type"] async for event in one]
        assert types[0] == "session.created" and types[-1] == "response.done"
        assert one.session["id"] == "sess_1"
        assert one.player.read(MS)[0] == 0.5
        assert one.closed is not None and one.closed.code == 1000

    create, respond = talk(server, client)
    assert create["item"]["content"] == [{"type": "input_text", "text": "Hello"}]
    assert respond["type"] == "response.create" and "response" not in respond
    assert create["event_id"] != respond["event_id"]


@pytest.mark.parametrize(
    "interruption",
    [
        {"type": "input_audio_buffer.speech_started"},
        {"type": "response.done", "response": {"status": "cancelled"}},
    ],
    ids=["speech", "cancelled"],
)
def test_an_interruption_empties_the_player_and_tells_what_was_heard(interruption: dict[str, Any]):
    async def server(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await socket.send(audio("item_1", ones(100)))
        await socket.recv()  # the client has played some
        await socket.send(json.dumps(interruption))
        await socket.send(audio("item_1", ones(100)))  # was on its way
        received.append(json.loads(await socket.recv()))
        await socket.close()

    async def client(one: RealtimeClient) -> None:
        async for event in one:
            if event["type"] == "response.output_audio.delta" and one.player.waiting_s:
                one.player.read(42 * MS)
                await one.send("x")
        assert one.player.waiting_s == 0

    (truncate,) = talk(server, client)
    assert truncate["type"] == "conversation.item.truncate"
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("item_1", 42)


def test_audio_of_another_rate_is_resampled_without_seams():
    time_s = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 440 * time_s).astype(np.float32)

    async def client(one: RealtimeClient) -> None:
        for start in range(0, len(tone), 1000):
            await one.send_audio(AudioChunk(tone[start : start + 1000], 48_000, start))
        with pytest.raises(AudioError, match="keep one rate"):
            await one.send_audio(AudioChunk(tone, 16_000))
        await one.close()

    received = talk(gather, client)
    pcm = b"".join(base64.b64decode(event["audio"]) for event in received)
    heard = np.frombuffer(pcm, "<i2")[2400:21_600] / 32768
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(heard)) / RATE)
    # The stream's delay is a whole number of samples or not; a seam would stand out of any sine of 440 Hz.
    a = np.stack([wanted, np.cos(2 * np.pi * 440 * np.arange(len(heard)) / RATE)], axis=1)
    rest = heard - a @ np.linalg.lstsq(a, heard, rcond=None)[0]
    assert np.abs(rest).max() < 0.002


def test_a_long_recording_goes_in_several_events():
    async def client(one: RealtimeClient) -> None:
        await one.send_audio(ones(5000))
        await one.close()

    received = talk(gather, client)
    assert [len(base64.b64decode(event["audio"])) for event in received] == [96_000, 96_000, 48_000]


def test_a_closed_talk_says_so():
    async def server(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await socket.close(1001, "going away")

    async def client(one: RealtimeClient) -> None:
        assert [event async for event in one] == []
        assert one.closed is not None and (one.closed.code, one.closed.reason) == (1001, "going away")
        with pytest.raises(BackendError, match="1001 going away"):
            await one.send_text("Hello")
        await one.close()

    talk(server, client)


@pytest.mark.parametrize(
    ("status", "headers", "error", "message"),
    [
        (503, {"Retry-After": "7"}, BackendError, "try again in 7 s"),
        (401, {}, ConfigError, "key"),
        (404, {}, BackendError, "is it a Realtime server"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, headers: dict[str, str], error: type, message: str):
    async def gone(socket: ServerConnection) -> None:
        pass

    def refuse(socket: ServerConnection, request: Any) -> Any:
        response = socket.respond(HTTPStatus(status), "no\n")
        response.headers.update(headers)
        return response

    async def both() -> None:
        async with serve(
            lambda socket: asyncio.sleep(0), "127.0.0.1", 0, process_request=refuse
        ) as listening:
            port = listening.sockets[0].getsockname()[1]
            with pytest.raises(error, match=message):
                await connect(f"127.0.0.1:{port}", api_key="k")

    asyncio.run(both())


def test_no_server_and_no_address():
    with pytest.raises(BackendError, match="stepaudio serve"):
        asyncio.run(connect("http://127.0.0.1:1"))
    with pytest.raises(ConfigError, match="no address"):
        asyncio.run(connect("ftp://x"))
