"""Voice activity with Silero VAD through onnxruntime, and its probabilities as spans of speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from stepaudio.core.audio import AudioChunk
from stepaudio.recognition.base import RATE, VoiceActivity

FRAME = 512
"""Samples of one frame (32 ms): what Silero VAD was trained on at 16 kHz."""

_CONTEXT = 64  # samples of the frame before that the model sees again

# Music and long noise leave the recurrent state unable to hear the speech that follows: after 60 s of music
# no frame of a clear sentence scored over 0.5; with this remedy (pipecat's) as many as without the music. The
# state starts afresh every 2 s, but only in a run of low frames: no soft sound within a word makes one.
_FRESH_AFTER = 2 * RATE // FRAME  # frames
_CLEARLY_SILENT = 0.1  # probability
_SILENT_RUN = 5  # frames


class SileroVAD:
    """Silero VAD (ONNX, v5 and later). Stateless and shared; ``stream()`` holds the state of one stream.

    Args:
        path: the ``silero_vad.onnx`` file.
    """

    def __init__(self, path: Path | str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one frame is too small to share: 0.1 ms on one thread
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def stream(self) -> SileroStream:
        """A new stream, which has heard nothing yet."""
        return SileroStream(self._session)


class SileroStream:
    """Voice activity over one stream, frame by frame."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._rate = np.array(RATE, np.int64)
        self._input = np.zeros((1, _CONTEXT + FRAME), np.float32)
        self._state = np.zeros((2, 1, 128), np.float32)
        self._age = 0  # frames since the state was fresh
        self._silent = 0  # frames in a row that were clearly silent

    def push(self, frame: AudioChunk) -> float:
        """Probability 0..1 that the next 512 samples hold speech.

        Raises:
            ValueError: the frame is not 512 samples at 16 kHz.
        """
        if frame.rate != RATE or len(frame.samples) != FRAME:
            raise ValueError(
                f"a frame is {FRAME} samples at {RATE} Hz, not {len(frame.samples)} at {frame.rate}"
            )
        self._input[0, :_CONTEXT] = self._input[0, -_CONTEXT:]
        self._input[0, _CONTEXT:] = frame.samples
        feeds = {"input": self._input, "state": self._state, "sr": self._rate}
        output, self._state = map(np.asarray, self._session.run(None, feeds))
        probability = float(output[0, 0])
        self._age += 1
        self._silent = self._silent + 1 if probability < _CLEARLY_SILENT else 0
        if self._age >= _FRESH_AFTER and self._silent >= _SILENT_RUN:
            self._state = np.zeros_like(self._state)
            self._age = 0
        return probability


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of speech, in samples from the start of the recording."""

    start: int
    end: int


def probabilities(vad: VoiceActivity, audio: AudioChunk) -> list[float]:
    """Speech probability of every frame of ``audio``, the last one filled up with zeros."""
    stream = vad.stream()
    samples = np.pad(audio.samples, (0, -len(audio.samples) % FRAME))
    frames = samples.reshape(-1, FRAME)
    return [stream.push(AudioChunk(frame, audio.rate, i * FRAME)) for i, frame in enumerate(frames)]


def speech_spans(
    probs: Sequence[float],
    *,
    start_at: float = 0.5,
    stop_below: float = 0.35,
    min_speech_ms: int = 100,
    min_silence_ms: int = 300,
    padding_ms: int = 200,
) -> list[Span]:
    """Frame probabilities as spans of speech, in order and apart from one another.

    Speech starts where a frame reaches ``start_at`` and lasts until frames stay under ``stop_below`` for
    ``min_silence_ms`` (two thresholds, so that a probability that wavers around one does not chop a word).
    Spans shorter than ``min_speech_ms`` are clicks and dropped; ``padding_ms`` is added on both sides, since
    soft consonants score low, and spans that then touch are one.

    Args:
        probs: one probability for each frame of 512 samples at 16 kHz.
    """
    frame_ms = FRAME * 1000 / RATE
    spoken: list[tuple[int, int]] = []  # frames, end exclusive
    start = end = None
    for i, prob in enumerate([*probs, *[0.0] * (int(min_silence_ms / frame_ms) + 1)]):
        if prob >= (stop_below if start is not None else start_at):
            start, end = i if start is None else start, i + 1
        elif start is not None and end is not None and (i + 1 - end) * frame_ms >= min_silence_ms:
            if (end - start) * frame_ms >= min_speech_ms:
                spoken.append((start, end))
            start = end = None

    padding = padding_ms * RATE // 1000
    spans: list[Span] = []
    for first, last in spoken:
        span = Span(max(0, first * FRAME - padding), min(len(probs) * FRAME, last * FRAME + padding))
        if spans and span.start <= spans[-1].end:
            span = Span(spans.pop().start, span.end)
        spans.append(span)
    return spans
