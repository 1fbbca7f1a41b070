"""Audio as data: mono float32 with its rate and its place in a stream, and int16 at the edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
