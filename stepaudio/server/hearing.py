"""What the user's microphone heard, frame by frame: is it speech, and is it the agent's own voice?

The same for a live talk and for a recorded one that is replayed. Time is audio time.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.echo import EchoGuard
from stepaudio.core.resampling import SincResampler
from stepaudio.core.turns import FRAME_MS, Speech
from stepaudio.recognition.base import RATE, VoiceActivity, VoiceActivityStream

FRAME = FRAME_MS * RATE // 1000
"""Samples of a voice activity frame (512)."""
SILENT = 2 / 32768
"""Peak up to which a frame is digital silence: no model needs to be asked."""
ECHO_MS = 2000
"""How long after the last audio that was sent its echo is looked for."""


class Hearing:
    """The ears of one session, before anything is understood.

    Args:
        activity: the voice activity model, shared.
    """

    def __init__(self, activity: VoiceActivity) -> None:
        self._model = activity
        self._stream: VoiceActivityStream | None = None
        self._echo = EchoGuard(RATE)
        self._echo_until = -math.inf
        self._skipped = 0  # samples that the echo guard has not seen
        self._resampler: tuple[int, SincResampler] | None = None
        self._rest = np.zeros(0, np.float32)
        self._frames: deque[np.ndarray] = deque()
        self._first = 0  # number of the oldest frame kept
        self._next = 0  # of the frame that is heard next
        self.now_ms = 0
        """Audio time: the end of the last frame that was heard."""

    def push(self, chunk: AudioChunk) -> None:
        """More of the stream, at any rate."""
        if self._resampler is None or self._resampler[0] != chunk.rate:
            self._resampler = chunk.rate, SincResampler(chunk.rate, RATE)
        heard = np.concatenate([self._rest, self._resampler[1].push(chunk.samples)])
        whole = len(heard) // FRAME * FRAME
        self._frames.extend(np.array(heard[:whole], np.float32).reshape(-1, FRAME))
        self._rest = heard[whole:]

    def hear(self) -> tuple[Speech, np.ndarray] | None:
        """The next frame: what it is, and its samples at 16 kHz; None: there is none yet.

        Takes 0.1 ms, with echo about 1 ms.
        """
        at = self._next - self._first
        if at >= len(self._frames):
            return None
        samples = self._frames[at]
        frame = AudioChunk(samples, RATE, self._next * FRAME)
        self._next += 1
        self.now_ms = self._next * FRAME_MS
        prob = 0.0
        if np.abs(samples).max() > SILENT:
            self._stream = self._stream or self._model.stream()
            prob = self._stream.push(frame)
        return Speech(prob, self.now_ms, self._echo_in(frame)), samples

    def _echo_in(self, frame: AudioChunk) -> float:
        if self.now_ms > self._echo_until:  # nothing can come back
            self._skipped += FRAME
            return 0.0
        if self._skipped:
            self._echo.skip(self._skipped)
            self._skipped = 0
        return self._echo.likelihood(frame)

    def sent(self, chunk: AudioChunk) -> None:
        """Audio that goes to the user now, and may come back."""
        self._echo.sent(chunk, self.now_ms)
        self._echo_until = self.now_ms + ECHO_MS

    def between(self, start_ms: int, end_ms: int) -> np.ndarray:
        """Samples at 16 kHz between two moments, as far as they were kept."""
        base = self._first * FRAME
        start, end = (max(0, ms * RATE // 1000 - base) for ms in (start_ms, end_ms))
        frames = [self._frames[i] for i in range(start // FRAME, min(-(-end // FRAME), len(self._frames)))]
        if end > len(self._frames) * FRAME:
            frames.append(self._rest)
        if not frames:
            return np.zeros(0, np.float32)
        first = start // FRAME * FRAME
        return np.concatenate(frames)[start - first : end - first]

    def forget(self, before_ms: int) -> None:
        """Nobody will ask for what was heard before."""
        keep_from = min(before_ms // FRAME_MS, self._next)
        while self._first < keep_from:
            self._frames.popleft()
            self._first += 1
