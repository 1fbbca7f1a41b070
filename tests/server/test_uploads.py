"""Hostile uploads: each is decoded in a process that may take little, and none is more than a refusal."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
import soundfile

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError
from stepaudio.server.encoders import encode
from stepaudio.server.errors import ApiError
from stepaudio.server.uploads import Decoder, from_base64

SECOND = encode(AudioChunk(np.full(24_000, 0.1, np.float32), 24_000), "wav")


def decode(data: bytes, limit_s: float = 60, **bounds: Any) -> AudioChunk:
    async def once() -> AudioChunk:
        decoder = Decoder(limit_s, **bounds)
        try:
            return await decoder.decode(data)
        finally:
            await decoder.close()

    return asyncio.run(once())


def coded(samples: np.ndarray, container: str, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container)
    return file.getvalue()


def test_sound_is_decoded():
    audio = decode(SECOND)
    assert (audio.rate, audio.seconds) == (16_000, 1.0)
    assert np.abs(audio.samples[100:-100]).mean() == pytest.approx(0.1, abs=0.001)


def test_many_uploads_one_after_another_and_at_once():
    async def several() -> list[float]:
        decoder = Decoder(60)
        await decoder.start()
        try:
            return [
                audio.seconds for audio in await asyncio.gather(*(decoder.decode(SECOND) for _ in range(5)))
            ]
        finally:
            await decoder.close()

    assert asyncio.run(several()) == [1.0] * 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is no sound at all, it is text" * 100,
        SECOND[:20],
        b"RIFF" + bytes(4000),
        b"fLaC" + bytes(4000),
        b"OggS" + b"\xff" * 4000,
        b"\x1aE\xdf\xa3" + b"\xff" * 4000,
        b"\x00\x00\x00\x18ftypM4A " + b"\xff" * 4000,
    ],
    ids=["empty", "text", "cut", "riff", "flac", "ogg", "matroska", "mp4"],
)
def test_what_is_no_sound_is_refused(data):
    with pytest.raises(AudioError) as refused:
        decode(data)
    assert "Traceback" not in str(refused.value) and "stepaudio/" not in str(refused.value)


def test_a_bomb_is_stopped_by_its_length():
    bomb = coded(np.zeros(16_000 * 3600, np.int16), "FLAC")  # an hour of silence
    assert len(bomb) < 1_000_000
    with pytest.raises(AudioError, match="longer than 60 seconds"):
        decode(bomb)


def test_a_process_that_wants_too_much_memory_ends_alone():
    pytest.importorskip("resource")
    with pytest.raises(AudioError, match="memory or time"):
        decode(SECOND, memory_bytes=50_000_000)


def test_a_process_that_takes_too_long_is_ended():
    with pytest.raises(AudioError, match="too long to decode"):
        decode(SECOND, wall_s=0.0)


def test_after_a_bad_upload_the_next_is_decoded():
    async def both() -> float:
        decoder = Decoder(60)
        try:
            with pytest.raises(AudioError):
                await decoder.decode(b"fLaC" + bytes(100))
            return (await decoder.decode(SECOND)).seconds
        finally:
            await decoder.close()

    assert asyncio.run(both()) == 1.0


@pytest.mark.parametrize("text", ["aGVsbG8=", "data:audio/wav;base64,aGVsbG8="])
def test_base64(text):
    assert from_base64(text, "x") == b"hello"


@pytest.mark.parametrize(
    "text",
    ["/etc/passwd", "http://127.0.0.1/a.wav", "file:///a", "data:audio/wav,hello", "a", "é"],
)
def test_what_is_no_base64_is_not_opened(text):
    with pytest.raises(ApiError) as refused:
        from_base64(text, "messages[0]")
    assert (refused.value.status, refused.value.param) == (400, "messages[0]")
