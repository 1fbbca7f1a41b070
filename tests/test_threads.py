"""The thread bridge: order, errors, bounded look-ahead, and a close that leaves nothing running."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest

from stepaudio.threads import iterate_in_thread


def test_items_come_in_order_from_another_thread():
    threads = set()

    def numbers():
        for n in range(20):
            threads.add(threading.get_ident())
            yield n

    async def main():
        return [n async for n in iterate_in_thread(numbers)]

    assert asyncio.run(main()) == list(range(20))
    assert threads and threading.get_ident() not in threads


def test_an_error_comes_after_the_items_before_it():
    def numbers():
        yield 1
        raise ValueError("broken")

    async def main():
        seen = []
        with pytest.raises(ValueError, match="broken"):
            async for n in iterate_in_thread(numbers):
                seen.append(n)
        return seen

    assert asyncio.run(main()) == [1]


def test_look_ahead_is_bounded():
    made = []
    waiting = threading.Event()

    def numbers():
        for n in range(100):
            made.append(n)
            if n == 3:
                waiting.set()  # ahead=3: the fourth item is made, then the thread waits for room
            yield n

    async def main():
        async with aclosing(iterate_in_thread(numbers, ahead=3)) as items:
            await anext(items)
            await asyncio.to_thread(waiting.wait, 10)
            return len(made)

    assert asyncio.run(main()) <= 5


def test_closing_runs_the_finally_of_the_generator_before_it_returns():
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.get_ident())

    async def main():
        async with aclosing(iterate_in_thread(endless)) as items:
            await anext(items)
        assert closed, "closed before aclosing returned"

    asyncio.run(main())


def test_cancelling_the_consumer_stops_the_generator():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    async def consume(started: asyncio.Event):
        async with aclosing(iterate_in_thread(endless)) as items:
            async for _ in items:
                started.set()

    async def main():
        started = asyncio.Event()
        task = asyncio.create_task(consume(started))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert closed.is_set()


def test_an_error_while_closing_is_not_raised_into_the_closer():
    def numbers():
        try:
            yield 1
            yield 2
        finally:
            raise RuntimeError("in finally")

    async def main():
        items = iterate_in_thread(numbers, ahead=1)
        assert await anext(items) == 1
        await items.aclose()

    asyncio.run(main())
