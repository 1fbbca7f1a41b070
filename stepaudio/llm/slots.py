"""Who may use an engine next: a few slots, each with the cache of one talk, shared by many."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Waiting:
    deadline: float
    number: int  # of two with the same deadline, who came first
    session: str
    slot: int | None
    given: asyncio.Future[int]


class Slots:
    """Gives out slots by urgency.

    A session gets the slot that it had before, where its prompt is in the cache; for its own sake it waits
    while its last answer is being stopped there. A new session gets the slot that was left alone for longest.
    What has no deadline (summaries, reading ahead) leaves one of several places free: it takes seconds, and
    an answer must not wait for it.

    Args:
        count: slots.
        at_once: slots in use at the same time; None: all.
    """

    def __init__(self, count: int, at_once: int | None = None) -> None:
        self._at_once = at_once or count
        self._owners: dict[int, str | None] = dict.fromkeys(range(count))  # longest unused first
        self._busy: dict[int, float] = {}  # slots in use, and the deadlines of what uses them
        self._waiting: list[_Waiting] = []
        self._numbers = 0

    @property
    def busy(self) -> bool:
        """Whether any slot is in use."""
        return bool(self._busy)

    def unowned(self) -> list[int]:
        """Slots that no session has used yet."""
        return [slot for slot, owner in self._owners.items() if owner is None]

    @asynccontextmanager
    async def take(
        self, session: str, deadline: float = math.inf, slot: int | None = None
    ) -> AsyncGenerator[int, None]:
        """A slot for ``session``, as soon as there is one and nobody with an earlier ``deadline`` waits.

        With ``slot``, that one and no other, for nobody: its owner stays.
        """
        loop = asyncio.get_running_loop()
        self._numbers += 1
        waiting = _Waiting(deadline, self._numbers, session, slot, loop.create_future())
        self._waiting.append(waiting)
        self._give()
        try:
            given = await waiting.given
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif waiting.given.done() and not waiting.given.cancelled():
                self._free(waiting.given.result())
            raise
        try:
            yield given
        finally:
            self._free(given)

    def _free(self, slot: int) -> None:
        del self._busy[slot]
        self._owners[slot] = self._owners.pop(slot)  # last used: to the end
        self._give()

    def _give(self) -> None:
        for waiting in sorted(self._waiting, key=lambda waiting: (waiting.deadline, waiting.number)):
            if waiting.given.cancelled():
                self._waiting.remove(waiting)
                continue
            slot = self._choose(waiting.session) if waiting.slot is None else waiting.slot
            if slot is not None and slot not in self._busy and self._has_place(waiting.deadline):
                self._waiting.remove(waiting)
                self._busy[slot] = waiting.deadline
                if waiting.slot is None:
                    self._owners[slot] = waiting.session
                waiting.given.set_result(slot)

    def _has_place(self, deadline: float) -> bool:
        if len(self._busy) >= self._at_once:
            return False
        unhurried = sum(until == math.inf for until in self._busy.values())
        return deadline < math.inf or self._at_once == 1 or unhurried < self._at_once - 1

    def _choose(self, session: str) -> int | None:
        for slot, owner in self._owners.items():
            if owner == session:
                return slot
        idle = [slot for slot in self._owners if slot not in self._busy]
        return min(idle, key=lambda slot: self._owners[slot] is not None, default=None)
