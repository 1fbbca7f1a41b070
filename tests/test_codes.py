"""Two streams of codes, merged two to three and split again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio.core.codes import EMPTY, AudioCodes, editx_pairs, join
from stepaudio.core.errors import CodesError

LINGUISTIC = [0, 1023, 7]
SEMANTIC = [0, 3257, 4095, 1, 2]
MERGED = [0, 1023, 1024, 4281, 5119]
IDS = [65536, 66559, 66560, 69817, 70655]
TEXT = "<audio_0><audio_1023><audio_1024><audio_4281><audio_5119>"


def codes(linguistic=(), semantic=()) -> AudioCodes:
    return AudioCodes(np.array(linguistic, int), np.array(semantic, int))


def lists(of: AudioCodes) -> tuple[list[int], list[int]]:
    return of.linguistic.tolist(), of.semantic.tolist()


def test_one_group_in_its_three_forms():
    speech = codes(LINGUISTIC, SEMANTIC)
    assert speech.groups == 1
    assert lists(speech.aligned()) == ([0, 1023], [0, 3257, 4095])
    assert speech.merged().tolist() == MERGED
    assert speech.ids() == IDS
    assert speech.text() == TEXT


@pytest.mark.parametrize("back", [lambda: AudioCodes.from_merged(MERGED), lambda: AudioCodes.from_ids(IDS)])
def test_back_from_numbers(back):
    assert lists(back()) == ([0, 1023], [0, 3257, 4095])


def test_back_from_text():
    assert lists(AudioCodes.from_text(TEXT)) == ([0, 1023], [0, 3257, 4095])
    assert lists(AudioCodes.from_text("")) == ([], [])


@pytest.mark.parametrize("linguistic, semantic", [(0, 0), (1, 3), (2, 2), (0, 9), (9, 0)])
def test_less_than_a_group_is_nothing(linguistic, semantic):
    speech = codes([1] * linguistic, [2] * semantic)
    assert (speech.groups, speech.ids(), speech.text()) == (0, [], "")


@given(
    st.lists(st.integers(0, 1023), max_size=40),
    st.lists(st.integers(0, 4095), max_size=40),
)
def test_there_and_back(linguistic, semantic):
    speech = codes(linguistic, semantic)
    kept = lists(speech.aligned())
    assert len(kept[0]) * 3 == len(kept[1]) * 2
    assert lists(AudioCodes.from_ids(speech.ids())) == kept
    assert lists(AudioCodes.from_text(speech.text())) == kept


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: codes([1024]), "linguistic codes are 0..1023, these go from 1024 to 1024"),
        (lambda: codes([], [-1, 5]), "semantic codes are 0..4095, these go from -1 to 5"),
        (lambda: codes([[1]]), "flat list"),
        (lambda: AudioCodes(np.array([0.5]), np.array([])), "whole numbers, not float64"),
        (lambda: AudioCodes.from_merged([0, 0, 1024]), "drop the last 3"),
        (lambda: AudioCodes.from_merged([0, 1030, 1024, 1024, 1024]), "code 1030 at place 1 is semantic"),
        (lambda: AudioCodes.from_merged([0, 1, 1024, 9, 1024]), "code 9 at place 3 is linguistic"),
        (lambda: AudioCodes.from_merged([5120] * 5), "merged codes are 0..5119"),
        (lambda: AudioCodes.from_ids([4, *IDS]), "go from 4 to 70655: take text"),
        (lambda: AudioCodes.from_ids([70656]), "go from 70656"),
        (lambda: AudioCodes.from_text("<audio_0> <audio_1>"), "without anything between"),
        (lambda: AudioCodes.from_text("<audio_99999>"), "<audio_0> to <audio_5119>"),
        (lambda: AudioCodes.from_text("<audio_5120>"), "these go from 5120"),
        (lambda: editx_pairs([9999]), "merged codes are"),
    ],
)
def test_what_is_not_codes_says_so(make, says):
    with pytest.raises(CodesError, match=says):
        make()


def test_pieces_are_joined():
    whole = join([codes([1], [2, 3]), EMPTY, codes([4], [])])
    assert lists(whole) == ([1, 4], [2, 3])
    assert lists(join([])) == ([], [])


@pytest.mark.parametrize(
    "merged, rows",
    [
        (MERGED, [[0, 1025], [1023, 4282], [1024, 5120]]),
        (MERGED[:4], [[0, 1025], [1023, 4282], [1024, 1025]]),
        (MERGED[:3], [[0, 1025], [1023, 1025], [1024, 1025]]),
        (MERGED[:2], [[0, 1025], [1023, 1025], [1024, 1025]]),
        (MERGED[1:2], [[1023, 1025], [0, 1025], [1024, 1025]]),
        ([], []),
        ([3332, 4361, 516, 3, 9], [[3332, 517], [4361, 4], [1024, 10]]),
    ],
)
def test_pairs_of_editx(merged, rows):
    assert editx_pairs(merged).tolist() == rows
