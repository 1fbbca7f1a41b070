"""The transcript that grows: what is heard when, what two passes agree on, what is left at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepaudio.core.audio import AudioChunk
from stepaudio.recognition import incremental
from stepaudio.recognition.base import RATE, Transcript
from stepaudio.recognition.incremental import GrowingTranscript, common_beginning, same_words

FRAME = 512


class Hears:
    """Hears one word a second of audio; keeps what it was given."""

    languages: tuple[str, ...] = ("en", "zh")

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def transcribe(self, audio: AudioChunk, **options: Any) -> Transcript:
        self.lengths.append(len(audio.samples) * 1000 // RATE)
        first = audio.start // RATE
        return Transcript(" ".join(f"w{n}" for n in range(first, first + round(audio.seconds))), "en")


def listen(growing: GrowingTranscript, script: str) -> list[int]:
    """Push frames ("#" speech) and do what is due at once; the ends of the passes in frames."""
    passes = []
    for n, sign in enumerate(script):
        growing.push(np.zeros(FRAME, np.float32), sign == "#")
        if due := growing.due():
            growing.take(due, due.run())
            passes.append(n + 1)
    return passes


def test_a_pass_for_every_third_of_a_second_and_one_when_it_is_quiet():
    growing = GrowingTranscript(Hears())
    assert listen(growing, "#" * 40 + "." * 10) == [19, 29, 39, 41]
    assert growing.is_final
    assert growing.last() is None


def test_nothing_new_is_not_heard_again():
    growing = GrowingTranscript(Hears())
    listen(growing, "#" * 40 + "." * 3)
    assert listen(growing, "." * 100) == []


def test_a_closure_within_a_word_may_be_the_end():
    growing = GrowingTranscript(Hears())
    assert listen(growing, "#" * 10 + "." + "#" * 5) == [11]
    assert not growing.is_final
    assert listen(growing, ".") == [1]
    assert growing.is_final


def test_a_pass_knows_what_the_last_one_heard():
    growing = GrowingTranscript(Hears())
    listen(growing, "#" * 19)
    growing.push(np.zeros(20 * FRAME, np.float32), True)
    due = growing.due()
    assert due is not None
    assert due.before == Transcript("w0", "en")


def test_what_is_missing_at_the_end():
    growing = GrowingTranscript(Hears())
    listen(growing, "#" * 40)
    assert not growing.is_final
    last = growing.last()
    assert last is not None
    growing.take(last, last.run())
    assert growing.is_final
    assert growing.text == "w0"


def test_the_silence_behind_the_speech_is_left_out():
    hears = Hears()
    growing = GrowingTranscript(hears)
    for n in range(100):
        growing.push(np.zeros(FRAME, np.float32), n < 10)
    last = growing.last()
    assert last is not None
    last.run()
    assert hears.lengths == [320 + incremental.MARGIN_MS]


def test_words_that_two_passes_heard_are_agreed_on():
    growing = GrowingTranscript(Hears())
    listen(growing, "#" * 50)
    assert growing.agreed == "w0"
    listen(growing, "#" * 20)
    assert growing.agreed == "w0 w1"


def test_in_a_long_turn_what_came_before_a_pause_is_settled():
    hears = Hears()
    growing = GrowingTranscript(hears)
    listen(growing, "#" * 400 + "." * 10 + "#" * 40 + "." * 3)
    assert hears.lengths[-1] < 2500
    assert growing.text.split()[:13] == [f"w{n}" for n in range(13)]
    assert growing.is_final


def test_a_pass_that_comes_too_late_changes_nothing():
    growing = GrowingTranscript(Hears())
    growing.push(np.zeros(RATE, np.float32), True)
    early = growing.due()
    growing.push(np.zeros(RATE, np.float32), True)
    late = growing.due()
    assert early is not None
    assert late is not None
    growing.take(late, Transcript("both", "en"))
    growing.take(early, Transcript("one", "en"))
    assert growing.text == "both"


@pytest.mark.parametrize(
    ("before", "now", "agreed"),
    [
        ("", "What is", ""),
        ("What is.", "What is the time?", "What is"),
        ("what is that", "What is the time?", "What is"),
        ("今天天", "今天天气怎么样？", "今天天"),
        ("Ten", "Twenty", ""),
        ("it's", "It’s ten.", "It’s"),
    ],
)
def test_common_beginning(before: str, now: str, agreed: str):
    assert common_beginning(before, now) == agreed


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("What is it?", "what is it", True),
        ("今天好。", "今天好", True),
        ("What is it?", "What was it?", False),
        ("", "…", True),
        ("Ten", "", False),
    ],
)
def test_same_words(a: str, b: str, same: bool):
    assert same_words(a, b) is same
