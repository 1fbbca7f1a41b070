"""``Slots``: who goes first, and who keeps which slot."""

from __future__ import annotations

import asyncio
import math

from stepaudio.llm.slots import Slots


class Talks:
    """Sessions that want a slot and give it back when told to."""

    def __init__(self, count: int, at_once: int | None = None) -> None:
        self.slots = Slots(count, at_once)
        self.given: list[tuple[str, int]] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}

    async def want(self, session: str, deadline: float = 1.0, slot: int | None = None) -> None:
        self.ends[session] = asyncio.Event()

        async def use() -> None:
            async with self.slots.take(session, deadline, slot) as given:
                self.given.append((session, given))
                await self.ends[session].wait()

        self.tasks[session] = asyncio.create_task(use())
        await settle()

    async def end(self, *sessions: str) -> None:
        for session in sessions:
            self.ends[session].set()
            await settle()

    async def cancel(self, session: str) -> None:
        self.tasks[session].cancel()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_most_urgent_goes_first_then_who_came_first() -> None:
    async def main() -> None:
        talks = Talks(1)
        for session, deadline in (("now", 9.0), ("late", 5.0), ("soon", 2.0), ("late too", 5.0)):
            await talks.want(session, deadline)
        await talks.end("now", "soon", "late", "late too")
        assert [session for session, _ in talks.given] == ["now", "soon", "late", "late too"]
        assert not talks.slots.busy

    asyncio.run(main())


def test_a_session_finds_its_slot_again_and_the_longest_silent_one_loses_its_own() -> None:
    async def main() -> None:
        talks = Talks(2)
        for session in ("a", "b", "a", "c", "a"):
            await talks.want(session)
            await talks.end(session)
        assert talks.given == [("a", 0), ("b", 1), ("a", 0), ("c", 1), ("a", 0)]

    asyncio.run(main())


def test_a_session_waits_for_its_own_slot_while_others_pass() -> None:
    async def main() -> None:
        talks = Talks(2)
        await talks.want("a")
        first = talks.ends["a"]
        await talks.want("a", 0.0)
        await talks.want("b", 5.0)
        assert talks.given == [("a", 0), ("b", 1)] and talks.slots.busy
        first.set()
        await settle()
        assert talks.given[2:] == [("a", 0)]
        await talks.end("a", "b")

    asyncio.run(main())


def test_who_gives_up_waiting_takes_nothing() -> None:
    async def main() -> None:
        talks = Talks(1)
        await talks.want("a")
        await talks.want("b")
        await talks.want("c")
        await talks.cancel("b")
        # Given and cancelled in the same moment: the slot goes on to the next.
        talks.ends["a"].set()
        await asyncio.sleep(0)
        talks.tasks["c"].cancel()
        await settle()
        await talks.want("d")
        assert talks.given == [("a", 0), ("d", 0)]
        await talks.end("d")
        assert not talks.slots.busy

    asyncio.run(main())


def test_a_slot_of_nobody_can_be_asked_for_and_stays_nobodys() -> None:
    async def main() -> None:
        talks = Talks(2)
        await talks.want("filler", slot=1)
        assert talks.slots.unowned() == [0, 1]
        await talks.want("again", slot=1)
        await talks.end("filler", "again")
        await talks.want("a")
        assert talks.given == [("filler", 1), ("again", 1), ("a", 0)] and talks.slots.unowned() == [1]
        await talks.end("a")

    asyncio.run(main())


def test_more_talks_are_kept_than_are_served_at_once() -> None:
    async def main() -> None:
        talks = Talks(3, at_once=1)
        for session, deadline in (("a", 1.0), ("b", 3.0), ("c", 2.0)):
            await talks.want(session, deadline)
        assert talks.given == [("a", 0)]
        await talks.end("a", "c", "b")
        assert talks.given[1:] == [("c", 1), ("b", 2)]
        await talks.want("a")
        assert talks.given[3:] == [("a", 0)]  # its past is still there
        await talks.end("a")
        assert not talks.slots.busy

    asyncio.run(main())


def test_what_nobody_waits_for_leaves_a_place_for_an_answer() -> None:
    async def main() -> None:
        talks = Talks(4, at_once=2)
        for session in ("a", "b"):
            await talks.want(session, math.inf)
        assert talks.given == [("a", 0)]
        await talks.want("c", 1.0)
        assert talks.given[1:] == [("c", 1)]
        await talks.end("c")
        assert len(talks.given) == 2  # the free place stays free
        await talks.end("a", "b")
        assert [session for session, _ in talks.given[2:]] == ["b"]
        assert not talks.slots.busy

    asyncio.run(main())
