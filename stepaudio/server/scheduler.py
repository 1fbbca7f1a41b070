"""Who computes next when sessions share a model: the one whose listener runs out of audio first.

A ``Gate`` stands before one kind of work (ears, voice). Whoever wants to compute says until when it is
needed; a place that comes free goes to the earliest deadline, not to whoever came first. Work is handed in as
pieces of a few hundred milliseconds, so nothing is ever interrupted: between two pieces the urgent one gets
its turn. Deadlines are moments, so those who wait become more urgent by waiting and nobody starves.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")

_END = object()


class Gate:
    """Lets so many pieces of work through at a time, the most urgent first. For one event loop.

    Args:
        places: pieces of work at the same time, each on a thread of the gate's own.
        name: of the gate, and of its threads.
        clock: seconds; deadlines are on it.
    """

    def __init__(self, places: int, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._free = places
        self._clock = clock
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._begun: dict[int, float] = {}  # when the pieces began that are under way
        self._threads = ThreadPoolExecutor(places, name)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return sum(not future.done() for _, _, future in self._waiting)

    @property
    def busy_s(self) -> float:
        """For how long the oldest piece under way has been computed; a thread that hangs never ends."""
        return max((self._clock() - begun for begun in self._begun.values()), default=0.0)

    @asynccontextmanager
    async def place(self, deadline: float) -> AsyncIterator[float]:
        """Hold a place for the length of an ``async with``; gives the seconds that were waited for it.

        Args:
            deadline: when the work is needed, seconds on the clock; infinite: whenever nobody else waits.
        """
        came = self._clock()
        if self._free:
            self._free -= 1
        else:
            future = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (deadline, next(self._arrivals), future))
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._leave()  # the place was given in the moment we were cancelled
                raise
        piece = next(self._arrivals)
        self._begun[piece] = self._clock()
        try:
            yield self._begun[piece] - came
        finally:
            del self._begun[piece]
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)  # the place goes over to it
                return
        self._free += 1

    async def run(
        self, work: Callable[[], T], deadline: float, on_wait: Callable[[float], None] = lambda seconds: None
    ) -> T:
        """Run blocking work in a thread, in its turn; ``on_wait`` is told the seconds waited for it.

        Cancelled while it computes, it waits for the end: the place is not free before the thread is.

        Raises:
            Exception: what ``work`` raises.
        """
        async with self.place(deadline) as waited:
            on_wait(waited)
            done = asyncio.get_running_loop().run_in_executor(self._threads, work)
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                await _settled(done)
                raise

    async def iterate(
        self,
        start: Callable[[], Iterator[T]],
        deadline: Callable[[], float],
        on_wait: Callable[[float], None] = lambda seconds: None,
    ) -> AsyncGenerator[T, None]:
        """The items of a blocking iterator, each computed in its turn; use it within ``aclosing``.

        Nothing is computed before it is asked for. Closing it closes the blocking iterator.

        Args:
            start: makes the iterator.
            deadline: when the next item is needed; asked before each.
            on_wait: told the seconds that each item waited for its turn.
        """
        iterator: Iterator[T] | None = None

        def step() -> object:
            nonlocal iterator
            if iterator is None:
                iterator = start()
            return next(iterator, _END)

        try:
            while (item := await self.run(step, deadline(), on_wait)) is not _END:
                yield item  # type: ignore[misc]
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def close(self) -> None:
        """Let the threads go; what is being computed ends first."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _settled(done: asyncio.Future[T]) -> None:
    """Wait for the end of a thread's work, whatever becomes of it, through further cancellations."""
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            continue
    if not done.cancelled():
        done.exception()  # seen
