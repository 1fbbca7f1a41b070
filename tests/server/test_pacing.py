"""The pacer: what is sent when, and what was heard. Time is a number."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.server.pacing import FADE_MS, Pacer

RATE = 1000  # a sample a millisecond


def pacer(ms: int) -> Pacer:
    made = Pacer(RATE, ahead_ms=300, block_ms=40)
    made.push(np.arange(1, ms + 1, dtype=np.float32))
    return made


def drain(made: Pacer, now: float) -> list[np.ndarray]:
    blocks = []
    while (block := made.take(now)) is not None:
        blocks.append(block)
    return blocks


def test_at_first_only_what_bridges_the_network_is_sent():
    made = pacer(1000)
    assert sum(map(len, drain(made, 5.0))) == 280  # whole blocks within 300 ms
    assert made.due_at(5.0) == pytest.approx(5.02)
    assert made.heard_ms(5.0) == 0


def test_then_a_block_as_often_as_one_is_heard():
    made = pacer(1000)
    drain(made, 0.0)
    sent = [len(block) for now in range(20, 200, 10) for block in drain(made, now / 1000)]
    assert sent == [40] * 5
    assert made.heard_ms(0.1) == 100


def test_all_of_it_arrives_in_order_whatever_the_pieces():
    made = Pacer(RATE)
    whole = np.arange(977, dtype=np.float32)
    for part in np.array_split(whole, [3, 50, 51, 700]):
        made.push(part)
    made.end()
    got = np.concatenate([block for now in range(200) for block in drain(made, now / 100)])
    assert np.array_equal(got, whole)
    assert made.is_done
    assert made.underruns == 0
    assert made.heard_ms(2.0) == 977


def test_a_short_hold_is_not_heard_at_all():
    made = pacer(1000)
    before = drain(made, 0.0)
    made.duck()
    assert drain(made, 0.2) == []
    made.unduck()
    after = drain(made, 0.2)
    assert after[0][0] == before[-1][-1] + 1  # the exact sample
    assert made.underruns == 0


def test_a_long_hold_fades_to_silence_and_goes_on_from_the_exact_sample():
    made = pacer(1000)
    drain(made, 0.0)
    made.duck()
    assert made.due_at(0.1) == pytest.approx(0.24)
    (fade,) = drain(made, 0.245)
    assert len(fade) == FADE_MS
    assert fade[0] == 281
    assert fade[-1] == 0
    assert drain(made, 1.0) == []
    assert made.due_at(1.0) == float("inf")
    assert made.heard_ms(1.0) == 280 + FADE_MS
    made.unduck()
    block = drain(made, 1.0)[0]
    assert block[0] == 0
    assert block[FADE_MS] == 281 + 2 * FADE_MS
    assert made.underruns == 0


def test_nothing_is_sent_of_an_answer_that_is_held_before_it_began():
    made = pacer(100)
    made.duck()
    assert made.take(0.0) is None
    made.unduck()
    assert made.take(0.0) is not None


def test_what_was_heard_when_it_is_cut_off():
    made = pacer(1000)
    drain(made, 0.0)
    made.clear()
    assert made.take(1.0) is None
    assert made.is_done
    assert made.heard_ms(0.1) == 100
    assert made.heard_ms(1.0) == 280


def test_a_voice_that_is_too_slow_is_noticed():
    made = pacer(100)
    drain(made, 0.0)
    made.push(np.ones(100, np.float32))
    drain(made, 0.05)
    assert made.underruns == 0
    made.push(np.ones(100, np.float32))
    drain(made, 0.5)
    assert made.underruns == 1
    assert made.heard_ms(0.55) == 250


def test_when_the_listener_runs_dry():
    made = pacer(1000)
    assert made.runs_dry_at(7.0) == pytest.approx(8.0)
    drain(made, 7.0)
    assert made.runs_dry_at(7.1) == pytest.approx(8.0)
    assert made.runs_dry_at(7.5) == pytest.approx(8.22)  # it ran dry at 7.28, and the rest is yet to come
