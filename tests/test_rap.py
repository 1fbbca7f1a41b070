"""Rap: syllables on sixteenths."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.core.errors import ScoreError
from stepaudio.tts import rap, songs
from stepaudio.tts.singing import SECOND
from stepaudio.tts.voices import HIBARI
from tests.test_singing import FakePronouncer, FakeVoice

WORDS = FakePronouncer(cats="kˈæts", are="ɑɹ", quick="kwˈɪk", and_="ænd", sly="slˈI", about="əbˈWt")


def grid(found: list[int], bars: int = 1) -> str:
    return "".join("x" if slot in found else "." for slot in range(rap.BAR * bars))


@pytest.mark.parametrize(
    ("natural", "stresses", "expected"),
    [
        ([0, 4, 8, 12], [2, 2, 2, 2], "x...x...x...x..."),
        ([0.4, 3.2, 8.7, 11.4], [2, 2, 2, 2], "x...x...x...x..."),  # stressed: drawn onto beats
        ([0, 1, 2, 3], [2, 0, 0, 0], "xxxx............"),  # unstressed: where speech has them
        ([0, 2.5, 5, 7.6], [0, 2, 0, 2], ".xx..x..x......."),  # nearness against metre
    ],
)
def test_syllables_find_their_sixteenths(natural: list[float], stresses: list[int], expected: str) -> None:
    found = rap.slots(natural, [1.0] * len(natural), stresses)
    assert grid(found) == expected


def test_a_long_syllable_gets_its_time() -> None:
    found = rap.slots([0, 1, 2], [3.0, 1.0, 1.0], [0, 0, 0])
    assert found[1] - found[0] >= 3


def test_more_syllables_than_sixteenths_are_told() -> None:
    with pytest.raises(ScoreError, match="break it in two"):
        rap.slots(list(range(17)), [1.0] * 17, [0] * 17)


@pytest.mark.parametrize("bpm", [90.0, 100.0])
def test_a_line_is_on_its_beat(bpm: float) -> None:
    voice = FakeVoice()
    words = WORDS.pronounce("cats are quick about")
    line, bars = rap.line(voice, words, HIBARI, bpm, 2.0)
    assert bars == 1
    sixteenth = 15 / bpm
    begins = [tones[0].begin for tones in line.tones]
    assert np.allclose(np.round((np.array(begins) - 2) / sixteenth), (np.array(begins) - 2) / sixteenth)
    rapped = rap.rapped(voice, line, HIBARI)
    bounds = rapped.begin_s + (rapped.plan.bounds - rapped.plan.heard[0]) / SECOND - rap.LEADS_S["hibari"]
    off = [bounds[s.peak] - begin for s, begin in zip(line.syllables, begins, strict=True)]
    assert np.abs(off).max() <= 0.0126  # half a frame
    assert [word.written for word in rapped.plan.words] == ["cats", "are", "quick", "about"]


def test_long_lines_take_two_bars() -> None:
    words = WORDS.pronounce("cats are quick " * 5)
    line, bars = rap.line(FakeVoice(), words, HIBARI, 90, 0.0)
    assert bars == 2 and len(line.syllables) == 15


def test_a_rap_with_a_beat() -> None:
    lines = ["cats are quick", "", "cats are sly"]
    pieces = list(songs.rap_lines(lines, FakeVoice(), WORDS, HIBARI, bpm=120, beat=True))  # type: ignore[arg-type]
    samples = np.concatenate([piece.audio.samples for piece in pieces])
    marks = [(mark.text, mark.start_ms) for piece in pieces for mark in piece.marks]
    assert [word for word, _ in marks] == ["cats", "are", "quick", "cats", "are", "sly"]
    assert marks[3][1] - marks[0][1] == pytest.approx(2000, abs=30)  # a bar of 120 a minute
    assert marks[0][1] == pytest.approx(2000, abs=150)  # after a bar of drums
    assert np.abs(samples[:12000]).max() > 0.05


@pytest.mark.parametrize("bpm", [0.0, -90.0, 300.0, float("nan")])
def test_a_beat_that_nobody_can_rap_to(bpm: float) -> None:
    with pytest.raises(ScoreError, match="60 to 140"):
        rap.check_bpm(bpm)


def test_no_words() -> None:
    with pytest.raises(ScoreError, match="no words to rap"):
        list(songs.rap_lines(["", " "], FakeVoice(), WORDS, HIBARI))  # type: ignore[arg-type]
