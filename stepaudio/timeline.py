"""The stamps of one response, and the latency numbers that come of them."""

from __future__ import annotations

import time
from collections.abc import Callable

STAGES = (
    # stage, from, to
    ("recognition", "speech_end", "transcript"),
    ("first_token", "transcript", "first_token"),
    ("first_clause", "first_token", "first_clause"),
    ("voice", "first_clause", "first_audio"),
)
"""What lies between the end of the speech and the first audio of the answer, in order, without gaps."""

TOTALS = (
    ("first_audio", "speech_end", "first_audio"),
    ("written", "speech_end", "written"),
    ("spoken", "speech_end", "spoken"),
)
"""Measured from the end of the speech: first audio, the answer all written, the answer all spoken."""


class Timeline:
    """Moments of one response by name; the first of each name counts.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stamps: dict[str, float] = {}

    def stamp(self, name: str, at: float | None = None) -> None:
        """Remember now (or another moment, on the clock) as the moment of ``name``, unless it has one."""
        self._stamps.setdefault(name, self._clock() if at is None else at)

    def at(self, name: str) -> float | None:
        """The moment of ``name``, on the clock; None: it has none."""
        return self._stamps.get(name)

    def numbers_ms(self) -> dict[str, float]:
        """Every stage and total whose both ends were stamped, in ms."""
        stamps = self._stamps
        return {
            name: round((stamps[end] - stamps[start]) * 1000, 1)
            for name, start, end in STAGES + TOTALS
            if start in stamps and end in stamps
        }
