"""The Realtime socket: real sockets, fakes at the engine's edges."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from stepaudio.core.realtime import RealtimeSession
from stepaudio.server.socket import BURST_S, FAST, UNREAD_BYTES, _Budget
from tests.server.conftest import Running


@contextmanager
def talk(running: Running, query: str = "?model=m", **options: Any) -> Iterator[ClientConnection]:
    address = running.url.replace("http", "ws") + "/v1/realtime" + query
    with connect(address, compression=None, max_size=None, **options) as client:
        yield client


def say(client: ClientConnection, type: str, **fields: Any) -> None:
    client.send(json.dumps({"type": type, **fields}))


def until(client: ClientConnection, type: str) -> list[dict[str, Any]]:
    """All events up to one of this type."""
    events = []
    while not events or events[-1]["type"] != type:
        events.append(json.loads(client.recv(timeout=20)))
    return events


def ask(client: ClientConnection, text: str = "hello") -> None:
    content = [{"type": "input_text", "text": text}]
    say(client, "conversation.item.create", item={"type": "message", "role": "user", "content": content})
    say(client, "response.create")


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold, within seconds."""
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_it_greets_and_answers_a_typed_question_aloud(fake: Running):
    with talk(fake) as client:
        (created,) = until(client, "session.created")
        assert created["session"]["model"] == "m"
        assert created["session"]["expires_at"] > time.time() + 3000
        ask(client)
        events = until(client, "response.done")
        deltas = [base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta"]
        assert sum(map(len, deltas)) == 5 * 4800  # five words of 0.1 s
        assert events[-1]["response"]["status"] == "completed"
        assert events[-1]["response"]["output"][0]["content"][0]["transcript"] == "It is a test. Really."


def test_the_subprotocol_of_browsers_is_answered_without_the_key(fake: Running):
    with talk(fake, subprotocols=["realtime", "openai-insecure-api-key.sk-1"]) as client:
        assert client.subprotocol == "realtime"


def test_for_transcription_alone(fake: Running):
    with talk(fake, "?intent=transcription&other=1") as client:
        (created,) = until(client, "session.created")
        assert created["session"]["type"] == "transcription"


def test_whatever_comes_the_talk_goes_on(fake: Running):
    with talk(fake) as client:
        until(client, "session.created")
        for frame in (
            "",
            "{",
            "[]",
            '"text"',
            "\ud83d".encode("utf-8", "replace"),
            b"\xff\x00",
            '{"type":7}',
        ):
            client.send(frame)
            until(client, "error")
        ask(client)
        assert until(client, "response.done")[-1]["response"]["status"] == "completed"


def test_a_client_that_does_not_read_is_dropped_before_memory_grows(fake: Running):
    assert eventually(lambda: not fake.service.sockets)  # those of the tests before
    with talk(fake, max_queue=1, close_timeout=0.1) as client:
        until(client, "session.created")
        content = [{"type": "input_text", "text": "x" * 100_000}]
        item = {"id": "item_long", "type": "message", "role": "user", "content": content}
        say(client, "conversation.item.create", item=item)
        (socket,) = fake.service.sockets
        with pytest.raises(ConnectionClosed):
            for _ in range(2000):
                say(client, "conversation.item.retrieve", item_id="item_long")
                assert socket._unread < UNREAD_BYTES + 200_000  # type: ignore[attr-defined]
            while True:
                client.recv(timeout=20)
        assert eventually(lambda: not fake.service.sockets)
    with talk(fake) as client:  # and nobody else is the worse for it
        ask(client)
        assert until(client, "response.done")[-1]["response"]["status"] == "completed"


def test_who_talks_faster_than_twice_real_time_is_read_more_slowly():
    budget = _Budget(0.0)
    assert budget.wait_s(BURST_S, 0.0) == 0
    assert budget.wait_s(4.0, 0.0) == 4.0 / FAST
    assert budget.wait_s(4.0, 2.0) == 4.0 / FAST  # the 2 s paid for what came before
    assert budget.wait_s(1.0, 100.0) == 0


def test_when_the_service_ends_talks_are_told(start: Callable[..., Running]):
    running = start()
    with talk(running) as client:
        until(client, "session.created")
        (socket,) = running.service.sockets
        loop = socket.talk._over._loop or asyncio.new_event_loop()  # type: ignore[attr-defined]
        asyncio.run_coroutine_threadsafe(socket.leave(0.0), loop)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


def test_a_bug_ends_one_talk_and_tells_nothing_of_itself(fake: Running, monkeypatch: pytest.MonkeyPatch):
    with talk(fake) as client:
        until(client, "session.created")

        def bug(self: RealtimeSession, text: str) -> list[Any]:
            raise RuntimeError("secret")

        monkeypatch.setattr(RealtimeSession, "receive_text", bug)
        say(client, "response.create")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "internal error")


def test_two_hundred_talks_leave_nothing_behind(fake: Running):
    for n in range(200):
        with talk(fake) as client:
            until(client, "session.created")
            if n % 4 == 0:
                ask(client)  # and leaves without hearing the answer
        eventually(lambda: fake.service.admission.open_talks < 4)
    assert eventually(lambda: not fake.service.sockets)
    assert eventually(lambda: fake.service.admission.open_talks == 0)
    assert fake.service.voice.waiting == 0
