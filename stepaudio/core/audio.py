"""Audio as data: mono float32 with its rate and its place in a stream, and int16 at the edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """A piece of mono audio.

    Attributes:
        samples: float32, shape (n,), nominally -1..1.
        rate: Hz.
        start: index of the first sample in its stream.
    """

    samples: np.ndarray
    rate: int
    start: int = 0

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


def float_to_pcm16(samples: np.ndarray) -> np.ndarray:
    """Float32 -1..1 to int16, rounded to nearest; what lies outside is clipped. Shape is kept."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def pcm16_to_float(samples: np.ndarray) -> np.ndarray:
    """Int16 to float32 -1..1 (the exact inverse of ``float_to_pcm16`` on its image)."""
    return samples.astype(np.float32) / 32768.0


def _mulaw_table() -> np.ndarray:
    """ITU-T G.711 (11/1988), table 2: what each of the 256 mu-law octets means, as 16-bit PCM."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 0x0F).astype(np.int32) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> np.ndarray:
    """ITU-T G.711 (11/1988), table 1: what each of the 256 A-law octets means, as 16-bit PCM."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment = ((code & 0x70) >> 4).astype(np.int32)
    magnitude = ((code & 0x0F).astype(np.int32) << 4) + 8
    magnitude = np.where(segment > 0, magnitude + 0x100 << np.maximum(segment - 1, 0), magnitude)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_G711 = {"mulaw": _mulaw_table(), "alaw": _alaw_table()}
Law = Literal["mulaw", "alaw"]


def g711_to_float(octets: bytes, law: Law) -> np.ndarray:
    """G.711 octets to float32 -1..1, shape (len(octets),)."""
    return pcm16_to_float(_G711[law][np.frombuffer(octets, np.uint8)])


def float_to_g711(samples: np.ndarray, law: Law) -> bytes:
    """Float32 -1..1 to G.711, to the nearest octet; what lies outside is clipped."""
    values = _G711[law].astype(np.int32)
    order = np.argsort(values, kind="stable")
    middles = (values[order][1:] + values[order][:-1]) / 2
    return order[np.searchsorted(middles, float_to_pcm16(samples), side="right")].astype(np.uint8).tobytes()


def join(chunks: Iterable[AudioChunk]) -> AudioChunk:
    """Chunks of one rate, one after another, as one chunk that starts where the first did.

    Raises:
        ValueError: no chunk, or chunks of different rates.
    """
    chunks = list(chunks)
    if len({chunk.rate for chunk in chunks}) != 1:
        raise ValueError("join needs at least one chunk, all of one rate")
    samples = np.concatenate([chunk.samples for chunk in chunks])
    return AudioChunk(samples, chunks[0].rate, chunks[0].start)


def resample(chunk: AudioChunk, rate: int) -> AudioChunk:
    """A whole recording at another rate in Hz (band-limited, soxr "HQ"); itself where nothing changes."""
    if chunk.rate == rate:
        return chunk
    samples = soxr.resample(chunk.samples, chunk.rate, rate).astype(np.float32, copy=False)
    return AudioChunk(samples, rate, round(chunk.start * rate / chunk.rate))
