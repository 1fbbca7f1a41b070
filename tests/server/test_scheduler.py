"""The gate before a shared model: order, cancellation, failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing

import pytest

from stepaudio.server.scheduler import Gate


def in_loop(main: Callable[[Gate], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        gate = Gate(1, "test")
        try:
            await main(gate)
        finally:
            gate.close()

    asyncio.run(run())


def test_the_most_urgent_goes_first():
    order: list[str] = []

    async def main(gate: Gate) -> None:
        async with asyncio.TaskGroup() as group, gate.place(0.0):
            for name, deadline in (("late", 9.0), ("soon", 1.0), ("sooner", 0.5), ("soon too", 1.0)):
                group.create_task(gate.run(lambda name=name: order.append(name), deadline))
            await asyncio.sleep(0)
            assert gate.waiting == 4

    in_loop(main)
    assert order == ["sooner", "soon", "soon too", "late"]


def test_between_two_pieces_of_one_the_other_gets_its_turn():
    order: list[str] = []

    async def main(gate: Gate) -> None:
        async def speak(name: str, deadline: float) -> None:
            async with aclosing(gate.iterate(lambda: iter(range(3)), lambda: deadline)) as pieces:
                async for piece in pieces:
                    order.append(f"{name}{piece}")

        async with asyncio.TaskGroup() as group:
            group.create_task(speak("a", 5.0))
            group.create_task(speak("b", 2.0))
            group.create_task(speak("c", 1.0))

    in_loop(main)
    assert order[:3] == ["a0", "c0", "b0"]  # the first came to an empty gate
    assert sorted(order) == [f"{name}{n}" for name in "abc" for n in range(3)]


def test_who_gives_up_while_waiting_leaves_no_hole():
    done: list[str] = []

    async def main(gate: Gate) -> None:
        async with gate.place(0.0):
            gone = asyncio.create_task(gate.run(lambda: done.append("gone"), 1.0))
            stays = asyncio.create_task(gate.run(lambda: done.append("stays"), 2.0))
            await asyncio.sleep(0)
            gone.cancel()
        await stays
        assert gate.waiting == 0
        await gate.run(lambda: done.append("next"), 0.0)

    in_loop(main)
    assert done == ["stays", "next"]


def test_a_place_given_in_the_moment_of_giving_up_is_passed_on():
    async def main(gate: Gate) -> None:
        async with gate.place(0.0):
            gone = asyncio.create_task(gate.run(lambda: None, 1.0))
            await asyncio.sleep(0)
        gone.cancel()  # its place was handed over, it has not run yet
        await asyncio.gather(gone, return_exceptions=True)
        await gate.run(lambda: None, 0.0)

    in_loop(main)


def test_cancelled_while_it_computes_the_place_is_taken_until_the_thread_is_done():
    go, began, done = threading.Event(), threading.Event(), []

    def work() -> None:
        began.set()
        go.wait(10)
        done.append("first")

    async def main(gate: Gate) -> None:
        first = asyncio.create_task(gate.run(work, 0.0))
        while not began.is_set():
            await asyncio.sleep(0)
        first.cancel()
        second = asyncio.create_task(gate.run(lambda: done.append("second"), 0.0))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not first.done()
        go.set()
        await second
        assert first.cancelled()

    in_loop(main)
    assert done == ["first", "second"]


def test_what_fails_in_the_thread_fails_here_and_frees_the_place():
    async def main(gate: Gate) -> None:
        with pytest.raises(ZeroDivisionError):
            await gate.run(lambda: 1 // 0, 0.0)
        assert await gate.run(lambda: 7, 0.0) == 7

    in_loop(main)


def test_leaving_early_closes_the_iterator():
    closed: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    async def main(gate: Gate) -> None:
        async with aclosing(gate.iterate(numbers, lambda: 0.0)) as items:
            async for item in items:
                if item == 2:
                    break

    in_loop(main)
    assert closed == [True]


def test_a_thread_that_hangs_is_noticed():
    now, let_go = [0.0], threading.Event()

    async def main() -> None:
        gate = Gate(2, "test", lambda: now[0])
        hung = asyncio.create_task(gate.run(let_go.wait, 0.0))
        await asyncio.sleep(0)
        now[0] = 100.0
        assert await gate.run(lambda: 7, 0.0) == 7  # others come and go beside it
        assert gate.busy_s == 100.0
        hung.cancel()  # nobody waits for it any more, and still it has the thread
        await asyncio.sleep(0)
        assert gate.busy_s == 100.0
        let_go.set()
        await asyncio.gather(hung, return_exceptions=True)
        assert gate.busy_s == 0.0
        gate.close()

    asyncio.run(main())
