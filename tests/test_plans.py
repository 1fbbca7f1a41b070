"""Plans in files: exact, and nonsense is told where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stepaudio.core.clauses import Clause
from stepaudio.core.errors import TextError
from stepaudio.tts import plans
from stepaudio.tts.plans import PlannedClause
from tests.test_performance import VOICE, FakeModel, plan


def clause(text: str = "ab cd") -> PlannedClause:
    return PlannedClause(text, VOICE.id, tuple(plan(Clause(0, text))))


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    plain = json.loads(plans.to_json([clause()]))
    change(plain)
    return json.dumps(plain).encode()


def first(plain: dict[str, Any]) -> dict[str, Any]:
    return plain["clauses"][0]["plans"][0]


def test_what_is_written_is_read_exactly():
    (read,) = plans.from_json(plans.to_json([clause()]).encode())
    (before,), (after,) = clause().plans, read.plans
    assert (read.text, read.voice) == ("ab cd", VOICE.id)
    for name in ("lengths", "pitch", "energy", "gain", "tilt", "breath"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert (before.symbols, before.words, before.heard) == (after.symbols, after.words, after.heard)
    spoken = [list(plans.perform(c, FakeModel(), VOICE)) for c in (clause(), read)]
    assert [piece.marks for piece in spoken[0]] == [piece.marks for piece in spoken[1]]


def test_a_change_is_heard():
    def longer(plain: dict[str, Any]) -> None:
        one = first(plain)
        one["lengths"][1] += 10
        for name in ("pitch", "energy", "gain", "tilt", "breath"):
            at = 2 * one["lengths"][0]
            one[name][at:at] = one[name][at : at + 1] * 20
        one["heard"][1] += 10

    (read,) = plans.from_json(changed(longer))
    samples = [
        sum(len(piece.audio.samples) for piece in plans.perform(c, FakeModel(), VOICE))
        for c in (clause(), read)
    ]
    assert samples[1] - samples[0] == 10 * 600


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.update(format="x"), "stepaudio plan 1"),
        (lambda p: p.update(rate=16_000), "rate: the voices speak at 24000 Hz"),
        (lambda p: p.update(clauses=[]), "at least one clause"),
        (lambda p: p.update(clauses=[1]), "clauses[0]: an object"),
        (lambda p: p["clauses"][0].update(voice=7), "clauses[0].voice"),
        (lambda p: p["clauses"][0].update(text=7), "clauses[0].text"),
        (lambda p: p["clauses"][0].update(plans={}), "clauses[0].plans: a list"),
        (lambda p: p["clauses"][0].update(plans=[3]), "clauses[0].plans[0]: a plan is an object"),
        (lambda p: first(p).pop("heard"), "clauses[0].plans[0]: the plan lacks heard"),
        (lambda p: first(p).update(lengths=[0] * 7), "every symbol lasts at least one frame"),
        (lambda p: first(p).update(lengths=[1.5] * 7), "whole numbers"),
        (lambda p: first(p)["pitch"].pop(), "pitch: 40 frames of 25 ms want 80 numbers"),
        (lambda p: first(p).update(pitch=[9e9] * 80), "pitch: numbers must lie between"),
        (lambda p: first(p).update(gain=["loud"] * 80), "list of numbers"),
        (lambda p: first(p).update(stretch=100), "stretch"),
        (lambda p: first(p).update(heard=[5, 5]), "heard"),
        (lambda p: first(p).update(words=[["x", 5, 2]]), "words"),
    ],
)
def test_nonsense_is_told_where_it_stands(change, says):
    with pytest.raises(TextError) as told:
        plans.from_json(changed(change))
    assert says in str(told.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_plan_is_told(data):
    with pytest.raises(TextError, match="the plan"):
        plans.from_json(data)


def test_a_voice_that_does_not_know_the_symbols():
    (read,) = plans.from_json(changed(lambda p: first(p).update(symbols="ab qz")))
    with pytest.raises(TextError, match="v does not know 'qz'"):
        list(plans.perform(read, FakeModel(), VOICE))
    small = FakeModel()
    small.limit = 2
    with pytest.raises(TextError, match="at most 2"):
        list(plans.perform(clause(), small, VOICE))
