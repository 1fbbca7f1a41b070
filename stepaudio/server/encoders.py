"""Speech as bytes while it is being spoken: what ``response_format`` names.

wav, pcm, mp3 and opus come out piece by piece. flac comes whole at its end: its header holds the length, and
a FLAC stream without one is refused by common readers (libsndfile among them). There is no AAC encoder here.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, cast

import numpy as np
import soundfile
import soxr

from stepaudio.core.audio import AudioChunk, float_to_pcm16
from stepaudio.server.errors import invalid

RATE = 24_000
"""Hz of all that is sent (OpenAI's ``pcm`` is defined so; the voices here are made at it)."""

MEDIA = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""The formats there are, and what they are called on the wire."""

_CODED = {  # container, coding, options
    # Of a constant bit rate (80 kbit/s), because readers guess the length of a file from its first frame.
    "mp3": ("MP3", "MPEG_LAYER_III", {"bitrate_mode": "CONSTANT", "compression_level": 0.5}),
    "opus": ("OGG", "OPUS", {}),
    "flac": ("FLAC", "PCM_16", {}),
}
_MP3_BIT_RATES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # kbit/s, MPEG-2 layer III


class Encoder:
    """Turns the pieces of one answer into bytes: ``push`` each, then ``finish``.

    Args:
        format: of ``MEDIA``.

    Raises:
        ApiError: 400, no such format.
    """

    def __init__(self, format: str) -> None:
        if format not in MEDIA:
            raise invalid(
                f"{format} cannot be made here; choose one of {', '.join(MEDIA)}",
                "response_format",
                code="unsupported_format",
            )
        self._format = format
        self._begun = False
        self._resampler: soxr.ResampleStream | None = None
        self._sink = _Sink()
        self._sound: soundfile.SoundFile | None = None

    def push(self, audio: AudioChunk) -> bytes:
        """The bytes that a piece makes; of coders that collect, later ones or none."""
        samples = audio.samples
        if audio.rate != RATE:
            if self._resampler is None:
                self._resampler = soxr.ResampleStream(audio.rate, RATE, 1, dtype="float32")
            samples = self._resampler.resample_chunk(samples)
        return self._encode(samples)

    def finish(self) -> bytes:
        """The bytes of the end."""
        rest = b""
        if self._resampler is not None:
            rest = self._encode(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        if self._sound is not None:
            self._sound.close()
            self._sound = None
            rest += self._taken(last=True)
        return rest

    def _encode(self, samples: np.ndarray) -> bytes:
        first, self._begun = not self._begun, True
        if self._format in ("wav", "pcm"):
            header = wav_header() if first and self._format == "wav" else b""
            return header + float_to_pcm16(samples).astype("<i2").tobytes()
        if self._sound is None:
            container, coding, options = _CODED[self._format]
            self._sound = soundfile.SoundFile(
                cast(BinaryIO, self._sink), "w", RATE, 1, coding, format=container, **options
            )
        for at in range(0, len(samples), RATE):  # libsndfile's Ogg encoders die on a minute at once
            self._sound.write(np.clip(samples[at : at + RATE], -1, 1))
        return self._taken()

    def _taken(self, last: bool = False) -> bytes:
        if self._format == "flac" and not last:
            return b""
        head = not self._sink.given
        data = self._sink.take()
        return _without_info(data) if head and self._format == "mp3" else data


def wav_header() -> bytes:
    """The 44 bytes before mono 16-bit samples whose number is not known yet: lengths of all ones."""
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    most = b"\xff\xff\xff\xff"
    return b"RIFF" + most + b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + most


def _without_info(data: bytes) -> bytes:
    """MP3 without its first frame, which LAME leaves empty to come back to when the length is known."""
    if len(data) < 4 or data[0] != 0xFF:
        return data
    size = 72 * 1000 * _MP3_BIT_RATES[min(data[2] >> 4, 14)] // RATE + (data[2] >> 1 & 1)
    return data if any(data[4:size]) else data[size:]


class _Sink:
    """A file that libsndfile writes, of which what was taken is gone: coming back to it changes nothing."""

    def __init__(self) -> None:
        self.given = 0
        self._held = bytearray()
        self._at = 0

    def take(self) -> bytes:
        data = bytes(self._held)
        self.given += len(data)
        self._held.clear()
        return data

    def write(self, data: bytes) -> int:
        data = bytes(data)
        start = self._at - self.given
        self._at += len(data)
        if start >= 0:
            self._held[start : start + len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.given + len(self._held))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        return b""


def encode(audio: AudioChunk, format: str) -> bytes:
    """A whole answer; a ``wav`` then says how long it is.

    Raises:
        ApiError: as ``Encoder``.
    """
    encoder = Encoder(format)
    data = encoder.push(audio) + encoder.finish()
    if format == "wav":
        size = len(data) - 44
        riff, count = struct.pack("<I", size + 36), struct.pack("<I", size)
        data = data[:4] + riff + data[8:40] + count + data[44:]
    return data
