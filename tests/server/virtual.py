"""Virtual time: an event loop whose clock stands still while there is work, and jumps when there is none."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from stepaudio.server.scheduler import Gate

T = TypeVar("T")


class _Jump(selectors.DefaultSelector):
    """Instead of waiting, moves the clock on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits for something that will not happen")
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing in it may wait for a thread or a socket."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


class InlineGate(Gate):
    """A gate whose work is done at once, in the loop; ``takes_s`` of virtual time go by for each piece."""

    def __init__(self, name: str, clock: Callable[[], float], takes_s: float = 0.0) -> None:
        super().__init__(1, name, clock)
        self.takes_s = takes_s

    async def run(
        self, work: Callable[[], T], deadline: float, on_wait: Callable[[float], None] = lambda seconds: None
    ) -> T:
        async with self.place(deadline) as waited:
            on_wait(waited)
            await asyncio.sleep(self.takes_s)
            return work()


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
