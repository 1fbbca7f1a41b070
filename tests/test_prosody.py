"""The prosody plan, and what leads to it: words in a row, runs, lengths, what is heard."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stepaudio.core.clauses import Mark
from stepaudio.core.errors import TextError
from stepaudio.tts.prosody import (
    LEAD,
    PlannedWord,
    ProsodyPlan,
    audible,
    layout,
    runs,
    whole_frames,
)

VOCABULARY = {symbol: n for n, symbol in enumerate('abcdef .,!"', 1)}


# Words in a row


def test_layout_gives_sounds_without_signs() -> None:
    assert layout(["ab, ", "cd."], VOCABULARY) == ("ab, cd.", [(0, 2), (4, 6)])


def test_layout_leaves_out_unknown_symbols_and_spaces_at_the_end() -> None:
    assert layout(["aXb ", "c "], VOCABULARY) == ("ab c", [(0, 2), (3, 4)])


def test_word_without_sounds_lies_where_it_stands() -> None:
    assert layout(["ab ", "X", "cd"], VOCABULARY)[1] == [(0, 2), (3, 3), (3, 5)]
    assert layout(["ab", "X"], VOCABULARY)[1] == [(0, 2), (1, 2)]


def test_layout_of_nothing() -> None:
    assert layout([], VOCABULARY) == ("", [])
    assert layout(["X"], VOCABULARY) == ("", [(0, 0)])


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ("", []),
        ("abc", ["abc"]),
        ("ab, cd ef", ["ab,", " cd ef"]),
        ("ab cd ef", ["ab cd ", "ef"]),
        ("abcdefabc", ["abcdefa", "bc"]),
    ],
)
def test_runs_cut_after_signs_then_words_then_anywhere(symbols: str, expected: list[str]) -> None:
    assert [symbols[begin:end] for begin, end in runs(symbols, 7)] == expected


def test_whole_frames_do_not_drift_and_are_at_least_one() -> None:
    lengths = whole_frames(np.full(100, 1.3))
    assert lengths.sum() == 130
    assert whole_frames(np.array([0.1, 0.1, 5.0])).tolist() == [1, 1, 3]


def energy(silent: int, heard: int, after: int) -> np.ndarray:
    frames = np.concatenate([np.full(silent, -9.0), np.full(heard, 5.0), np.full(after, -9.0)])
    return np.repeat(frames, 2)


@pytest.mark.parametrize(
    ("symbols", "tail"), [("ab.", 10), ('ab!"', 10), ("ab, ", 3), ("ab", 2), ("ab. cd", 2)]
)
def test_silence_is_kept_by_the_last_sign(symbols: str, tail: int) -> None:
    assert audible(symbols, energy(14, 30, 18)) == (14 - LEAD, 14 + 30 + tail)


def test_no_more_is_kept_than_there_is() -> None:
    assert audible("ab.", energy(1, 5, 2)) == (0, 8)
    assert audible("ab.", energy(8, 0, 0)) == (0, 8)  # nothing heard: everything


# The plan


def plan(**changes: Any) -> ProsodyPlan:
    """ "ab cd": every symbol 2 frames, 10 before and 4 after."""
    lengths = np.array([10, 2, 2, 2, 2, 2, 4])
    curve = np.linspace(0.1, 1, 48, dtype=np.float32)
    fields: dict[str, Any] = dict.fromkeys(("energy", "gain", "tilt", "breath"), curve) | {
        "symbols": "ab cd",
        "lengths": lengths,
        "pitch": 100 * curve,
        "words": (PlannedWord("ab", 0, 2), PlannedWord("cd", 3, 5)),
        "heard": (8, 22),
    }
    return ProsodyPlan(**(fields | changes))


def test_marks_count_from_the_first_frame_heard() -> None:
    assert plan().marks() == [Mark("ab", 50, 150), Mark("cd", 200, 300)]
    assert plan(stretch=2.0).marks(1000) == [Mark("ab", 1025, 1075), Mark("cd", 1100, 1150)]


def test_symbols_spread_over_half_frames() -> None:
    spread = plan().steps(np.arange(7)).tolist()
    assert [spread.count(n) for n in range(7)] == [20, 4, 4, 4, 4, 4, 8]
    assert spread == sorted(spread)


def test_plan_is_kept_to_the_bit() -> None:
    kept = ProsodyPlan.from_json(json.loads(json.dumps(plan().to_json())))
    for name in ("lengths", "pitch", "energy", "gain", "tilt", "breath"):
        assert np.array_equal(getattr(kept, name), getattr(plan(), name))
    assert (kept.symbols, kept.words, kept.heard, kept.stretch) == ("ab cd", plan().words, (8, 22), 1.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lengths": [1, 2, 3]}, "5 symbols and two silences want 7 numbers, not 3"),
        ({"lengths": [10, 2, 0, 2, 2, 2, 4]}, "at least one frame"),
        ({"lengths": [10, 2.5, 2, 2, 2, 2, 4]}, "whole numbers"),
        ({"lengths": [9000, 2, 2, 2, 2, 2, 4]}, "at most 8000"),
        ({"pitch": [100.0]}, "pitch: 24 frames of 25 ms want 48 numbers, not 1"),
        ({"pitch": [1e9] * 48}, "pitch: numbers must lie between -100 and 2000"),
        ({"gain": [float("nan")] * 48}, "gain: numbers must lie between"),
        ({"energy": "loud"}, "energy: must be a list of numbers"),
        ({"heard": [5, 99]}, "within 0 and 24"),
        ({"heard": [5]}, "heard: must be two frames"),
        ({"heard": {"a": 1}}, "heard: must be two frames"),
        ({"stretch": float("nan")}, "stretch: must lie"),
        ({"words": [["ab", 0]]}, "words: must be a list of"),
        ({"lengths": [1e300, 2, 2, 2, 2, 2, 4]}, "whole numbers"),
        ({"pitch": [[1], [2, 3]]}, "pitch: must be a list of numbers"),
        ({"stretch": 0}, "stretch: must lie"),
        ({"words": [["ab", 3, 5], ["cd", 0, 2]]}, "'cd' must lie after"),
        ({"symbols": 5}, "string of phonemes"),
        ({"tempo": 2}, "a plan has no tempo"),
    ],
)
def test_nonsense_says_what_to_change(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TextError, match=says):
        ProsodyPlan.from_json(plan().to_json() | changes)


def test_a_plan_that_lacks_something() -> None:
    plain = plan().to_json()
    del plain["pitch"]
    with pytest.raises(TextError, match="lacks pitch"):
        ProsodyPlan.from_json(plain)
