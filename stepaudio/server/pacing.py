"""How fast an answer is sent: as it is heard, and a little ahead.

A voice makes audio faster than it is heard. Sent at once, it would lie with the client, who would play on
for seconds after an interruption, and whom nobody tells how far it got. So the server keeps the audio and
sends it ``AHEAD_MS`` before it is heard: then it knows what was heard, silence follows soon after it stops
sending, and a client needs no logic of its own for either. Pure: the time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

AHEAD_MS = 300
"""Audio that a client has before it plays it: bridges the network, and is heard after an interruption."""
BLOCK_MS = 40
"""Audio sent at a time."""
FADE_MS = 15
"""From full to silent and back, where playing is held and goes on: shorter clicks, longer swallows sound."""


@dataclass(slots=True)
class Pacer:
    """The audio of one answer on its way to one listener.

    What the listener hears is computed, not reported: what was sent is played at once and without a stop
    until nothing is left, which is what players do.

    Args:
        rate: Hz of the audio.
        ahead_ms: see ``AHEAD_MS``.
        block_ms: see ``BLOCK_MS``.
    """

    rate: int
    ahead_ms: int = AHEAD_MS
    block_ms: int = BLOCK_MS
    sent: int = 0
    """Samples sent."""
    underruns: int = 0
    """How often the listener ran out of audio in the middle of the answer."""
    _queue: deque[np.ndarray] = field(default_factory=deque)
    _queued: int = 0  # samples
    _dry_at: float = 0.0  # when the listener will have heard all that was sent, seconds
    _ended: bool = False
    _held: bool = False
    _faded: bool = False

    def push(self, samples: np.ndarray) -> None:
        """More of the answer: float32, shape (n,)."""
        if len(samples):
            self._queue.append(samples)
            self._queued += len(samples)

    def end(self) -> None:
        """There will be no more."""
        self._ended = True

    def clear(self) -> None:
        """Drop what was not sent."""
        self._queue.clear()
        self._queued = 0
        self._ended = True

    def duck(self) -> None:
        """Hold: perhaps the user interrupts.

        Nothing more is sent until ``unduck``. What the listener still has bridges the time in which the
        interruption is confirmed or not; before it runs out, the sound fades to silence.
        """
        self._held = True

    def unduck(self) -> None:
        """Go on from the sample after the last one that was sent."""
        self._held = False

    @property
    def queued_s(self) -> float:
        """Seconds of audio that wait to be sent."""
        return self._queued / self.rate

    @property
    def is_done(self) -> bool:
        """Whether all of the answer was sent."""
        return self._ended and not self._queued

    def runs_dry_at(self, now: float) -> float:
        """When the listener has nothing more to hear, if nothing more is made."""
        return max(self._dry_at, now) + self.queued_s

    def is_heard(self, now: float) -> bool:
        """Whether the listener has heard all that was sent."""
        return now >= self._dry_at

    def heard_ms(self, now: float) -> int:
        """How much of the answer was heard."""
        return max(0, round(1000 * (self.sent / self.rate - max(0.0, self._dry_at - now))))

    def take(self, now: float) -> np.ndarray | None:
        """The next block, if it is due now."""
        if not self._queued or self.due_at(now) > now:
            return None
        fade = FADE_MS * self.rate // 1000
        if self._held:
            block = self._pop(fade)
            block = block * np.linspace(1, 0, len(block), dtype=np.float32)
            self._faded = True
        else:
            block = self._pop(self.block_ms * self.rate // 1000)
            if self._faded:
                block = block.copy()
                fade = min(fade, len(block))
                block[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
                self._faded = False
            elif self.sent and now > self._dry_at:
                self.underruns += 1
        self.sent += len(block)
        self._dry_at = max(self._dry_at, now) + len(block) / self.rate
        return block

    def due_at(self, now: float) -> float:
        """When ``take`` has a block: not after ``now`` if it has one, infinite until something changes."""
        if not self._queued or (self._held and (self._faded or not self.sent)):
            return float("inf")
        ahead_ms = self.block_ms if self._held else self.ahead_ms - self.block_ms
        return max(self._dry_at, now) - ahead_ms / 1000 if self.sent else now

    def _pop(self, count: int) -> np.ndarray:
        """The next ``count`` samples, or fewer: a block holds audio of one ``push`` alone."""
        piece = self._queue.popleft()
        if len(piece) > count:
            self._queue.appendleft(piece[count:])
            piece = piece[:count]
        self._queued -= len(piece)
        return piece
