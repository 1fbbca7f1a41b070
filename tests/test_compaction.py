"""``compact``: what the model is asked, and what becomes of the talk."""

from __future__ import annotations

import asyncio

import pytest

from stepaudio.core.conversation import SUMMARY_HEAD, Message, is_summary
from stepaudio.llm.base import Finished
from stepaudio.llm.compaction import INSTRUCTION, compact
from tests.fakes import FakeLLM

TALK = [Message("system", "be brief")]
for n in range(8):
    TALK += [Message("user", f"question {n}"), Message("assistant", f"answer {n}")]


def compacted_by(llm: FakeLLM, budget: int = 20) -> list[Message] | None:
    return asyncio.run(compact(llm, TALK, budget, count=lambda message: 1, session="s"))


def test_old_turns_become_a_summary_that_is_in_the_cache() -> None:
    llm = FakeLLM("They talked\n", " of questions.")
    shorter = compacted_by(llm)
    assert shorter == [TALK[0], *TALK[-6:], Message("system", SUMMARY_HEAD + "They talked of questions.")]
    assert llm.asked == [[*TALK, Message("user", INSTRUCTION)], shorter]  # asked, then warmed
    assert llm.options["tools"] == ((), "none") and llm.options["session"] == "s"


def test_a_short_talk_is_left_alone() -> None:
    llm = FakeLLM("never asked")
    assert compacted_by(llm, 100) is None and llm.asked == []


@pytest.mark.parametrize(
    ("said", "kept"), [("One. 二。And the", "One. 二。"), ("never ends", None), ("", None)]
)
def test_a_summary_that_was_cut_ends_with_its_last_sentence(said: str, kept: str | None) -> None:
    shorter = compacted_by(FakeLLM(said, Finished("length")))
    summary = shorter and next(message.text for message in shorter if is_summary(message))
    assert summary == (kept and SUMMARY_HEAD + kept)
