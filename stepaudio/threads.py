"""The only bridge between blocking generators (model code) and the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def iterate_in_thread(
    start: Callable[[], Iterator[T]], executor: Executor | None = None, ahead: int = 4
) -> AsyncGenerator[T, None]:
    """Run the blocking iterator that ``start()`` returns in a thread; yield its items here.

    At most ``ahead`` items are computed before they are asked for. Closing the async generator stops
    the thread at its next item, closes the blocking generator (its ``finally`` runs in that thread),
    and returns only then: nothing of it goes on afterwards. Use it within ``contextlib.aclosing``.

    Raises:
        Exception: whatever the blocking iterator raised, after the items that came before.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
    room = threading.Semaphore(ahead)
    stop = threading.Event()

    def work() -> None:
        iterator = start()
        try:
            for item in iterator:
                room.acquire()
                if stop.is_set():
                    return
                loop.call_soon_threadsafe(items.put_nowait, (item,))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    done = loop.run_in_executor(executor, work)
    done.add_done_callback(lambda _: items.put_nowait(None))
    try:
        while (item := await items.get()) is not None:
            yield item[0]
            room.release()
        await done  # raises what the thread raised
    finally:
        stop.set()
        room.release()
        # A second cancellation while we wait must not leave the thread behind unobserved.
        await asyncio.shield(asyncio.wait([done]))
        if not done.cancelled():
            done.exception()  # seen: no "exception was never retrieved" for an abandoned iterator
