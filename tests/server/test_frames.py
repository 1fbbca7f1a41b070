"""WebSocket frames as no library sends them (RFC 6455): the talk goes on, or ends with the code that is due.

The groups of the Autobahn test suite (which needs Python 2), on bare sockets: framing, pings, reserved bits,
opcodes, fragmentation, UTF-8, closing, limits.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.server.conftest import Running

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CLEAR = json.dumps({"type": "input_audio_buffer.clear"}).encode()


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True
) -> bytes:
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


class Peer:
    """Reads the server's frames."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream, self._data = stream, b""

    def send(self, *frames: bytes) -> None:
        self.stream.sendall(b"".join(frames))

    def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            more = self.stream.recv(65536)
            if not more:
                raise EOFError
            self._data += more
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def head(self) -> str:
        while b"\r\n\r\n" not in self._data:
            self._data += self.stream.recv(65536)
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return head.decode()

    def read(self) -> tuple[int, bytes]:
        first, size = self._take(2)
        assert not size & 0x80  # a server does not mask
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        return first & 0xF, self._take(size)

    def until(self, opcode: int) -> bytes:
        while True:
            kind, payload = self.read()
            if kind == opcode:
                return payload
            assert kind != CLOSE, payload

    def event(self, type: str) -> None:
        while json.loads(self.until(TEXT))["type"] != type:
            pass

    def closed_with(self) -> int:
        """The code of the close frame; the connection then ends."""
        while True:
            kind, payload = self.read()
            if kind == CLOSE:
                return int.from_bytes(payload[:2])


@contextmanager
def peer(running: Running) -> Iterator[Peer]:
    address = urlsplit(running.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=20) as stream:
        key = base64.b64encode(os.urandom(16)).decode()
        stream.sendall(
            f"GET /v1/realtime?model=m HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        connection = Peer(stream)
        assert " 101 " in connection.head()
        connection.event("session.created")
        yield connection


def test_frames_in_pieces_are_one_message(fake: Running):
    with peer(fake) as talk:
        half = len(CLEAR) // 2
        talk.send(frame(TEXT, CLEAR[:half], fin=False), frame(PING, b"between"))
        assert talk.until(PONG) == b"between"
        talk.send(frame(CONTINUATION, b"", fin=False), frame(CONTINUATION, CLEAR[half:]))
        talk.event("input_audio_buffer.cleared")
        for byte in frame(TEXT, CLEAR):
            talk.send(bytes([byte]))
        talk.event("input_audio_buffer.cleared")
        talk.send(frame(TEXT, CLEAR), frame(PONG, b"nobody asked"), frame(TEXT, CLEAR))
        talk.event("input_audio_buffer.cleared")
        talk.event("input_audio_buffer.cleared")


@pytest.mark.parametrize("payload", [b"", b"\x00\xff\xfe", b"x" * 125])
def test_a_ping_is_answered_with_what_was_in_it(fake: Running, payload: bytes):
    with peer(fake) as talk:
        talk.send(frame(PING, payload))
        assert talk.until(PONG) == payload


def test_characters_may_be_cut_between_frames(fake: Running):
    said = json.dumps({"type": "nö 你好 😀"}, ensure_ascii=False).encode()
    with peer(fake) as talk:
        *first, last = (said[i : i + 1] for i in range(len(said)))
        talk.send(frame(TEXT, first[0], fin=False), *(frame(CONTINUATION, b, fin=False) for b in first[1:]))
        talk.send(frame(CONTINUATION, last))
        talk.event("error")  # no event of that name: understood, and refused
        talk.send(frame(TEXT, CLEAR))
        talk.event("input_audio_buffer.cleared")


BAD = {
    "not masked": [frame(TEXT, CLEAR, masked=False)],
    "reserved bit": [frame(TEXT, CLEAR, reserved=4)],
    "reserved opcode": [frame(3, CLEAR)],
    "reserved control opcode": [frame(11)],
    "long ping": [frame(PING, b"x" * 126)],
    "ping in pieces": [frame(PING, b"x", fin=False)],
    "nothing to continue": [frame(CONTINUATION, CLEAR)],
    "text within text": [frame(TEXT, b"{", fin=False), frame(TEXT, CLEAR)],
    "close of one byte": [frame(CLOSE, b"\x03")],
    "close with a code that is none": [frame(CLOSE, struct.pack("!H", 999))],
    "close with a code that is never sent": [frame(CLOSE, struct.pack("!H", 1005))],
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_the_protocol_ends_the_talk(fake: Running, name: str):
    with peer(fake) as talk:
        talk.send(*BAD[name])
        assert talk.closed_with() == 1002
    with peer(fake) as talk:  # and no other
        talk.send(frame(TEXT, CLEAR))
        talk.event("input_audio_buffer.cleared")


@pytest.mark.parametrize(
    "frames",
    [
        [frame(TEXT, b"\xce\xba\xff")],
        [frame(TEXT, b"\xf0\x9f", fin=False), frame(CONTINUATION, b"\x98")],
        [frame(TEXT, b"\xed\xa0\x80")],  # half of a surrogate pair
        [frame(CLOSE, struct.pack("!H", 1000) + b"\xff")],
    ],
)
def test_text_that_is_no_utf8_ends_the_talk(fake: Running, frames: list[bytes]):
    with peer(fake) as talk:
        talk.send(*frames)
        assert talk.closed_with() == 1007


@pytest.mark.parametrize("payload", [b"", struct.pack("!H", 1000) + "再见".encode(), struct.pack("!H", 3001)])
def test_a_goodbye_is_returned(fake: Running, payload: bytes):
    with peer(fake) as talk:
        talk.send(frame(CLOSE, payload), frame(PING, b"too late"))
        assert talk.closed_with() == (int.from_bytes(payload[:2]) or 0)
        with pytest.raises(EOFError):
            talk.read()


def test_a_message_beyond_the_limit_ends_the_talk_when_its_size_is_known(fake: Running):
    with peer(fake) as talk:
        talk.send(b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"mask")
        assert talk.closed_with() == 1009


def test_pieces_that_are_too_much_together_end_the_talk(fake: Running):
    with peer(fake) as talk:
        talk.send(frame(TEXT, b" " * 1000, fin=False))
        piece = frame(CONTINUATION, b" " * (1 << 20), fin=False)
        with suppress(ConnectionError):
            for _ in range(64):
                talk.send(piece)
        assert talk.closed_with() == 1009
