"""The codes of a turn while it is spoken, so that they are there when it ends.

A recording is brought to a peak of 0.999 before it is tokenized; how loud a turn will get is known only at
its end. So the gain of the turn before it serves, and a turn that came out much louder or softer is tokenized
again, whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.codes import AudioCodes, join
from stepaudio.tokenizer.features import RATE, peak_gain

if TYPE_CHECKING:
    from stepaudio.tokenizer.dual import DualTokenizer

STEP = 240 * RATE // 1000
"""Samples that are worth a pass: the stride of the linguistic half."""
OFF = 2.0
"""By so much the gain may be off (6 dB) before a turn is tokenized again."""


class GrowingCodes:
    """One turn. Passes are made here and run elsewhere, one at a time, in order.

    Args:
        tokenizer: shared.
        gain: that the turn before asked for.
    """

    def __init__(self, tokenizer: DualTokenizer, gain: float = 1.0) -> None:
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream(gain=gain)
        self._used = gain
        self._whole: list[np.ndarray] = []
        self._new: list[np.ndarray] = []
        self._codes: list[AudioCodes] = []

    @property
    def gain(self) -> float:
        """What all of the turn so far asks for."""
        return peak_gain(np.concatenate([np.zeros(0, np.float32), *self._whole]))

    def push(self, samples: np.ndarray) -> None:
        """The next audio of the turn, float32 at 16 kHz."""
        self._whole.append(samples)
        self._new.append(samples)

    def due(self) -> Callable[[], None] | None:
        """The pass that is worth its time now, or None."""
        return self._pass() if sum(map(len, self._new)) >= STEP else None

    def last(self) -> Callable[[], AudioCodes]:
        """The pass that gives whole groups of all of the turn until now. The turn may go on after it.

        The pass raises ``AudioError`` where the turn is too short for a group.
        """
        step, gain = self._pass(), self.gain
        whole = np.concatenate(self._whole) if self._whole else np.zeros(0, np.float32)

        def run() -> AudioCodes:
            if max(gain / self._used, self._used / gain) > OFF:
                return self._tokenizer.encode(AudioChunk(whole, RATE), gain=gain).aligned()
            step()
            return join([*self._codes, self._stream.copy().flush()]).aligned()

        return run

    def _pass(self) -> Callable[[], None]:
        new, self._new = self._new, []

        def run() -> None:
            if new:
                self._codes.append(self._stream.push(AudioChunk(np.concatenate(new), RATE)))

        return run
