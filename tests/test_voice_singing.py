"""How songs are listened to: circles, and what is done about them."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.bench.scores import Errors
from stepaudio.bench.voice_singing import circles, figures, modern, understood
from stepaudio.core.audio import AudioChunk


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Tell O, O, o, O to let my people go", True),
        ("de assil" + 40 * "ulul", True),
        ("Let me be, let me be, let me be.", False),
        ("Sailing, sailing, sailing slow", False),
        ("老虎老虎老虎", False),
        ("", False),
    ],
)
def test_a_circle_is_a_word_again_and_again(text: str, found: bool) -> None:
    assert circles(text) == found


def test_what_turned_in_a_circle_is_heard_again_by_halves() -> None:
    lines = [np.full(n, n, np.float32) for n in (1, 2, 3)]
    asked = []

    def listen(chunk: AudioChunk) -> str:
        asked.append(sorted(set(chunk.samples.tolist())))
        return "o o o o" if 3 in chunk.samples else "let my people go"

    assert understood(listen, lines) == "let my people go let my people go o o o o"
    assert asked == [[1, 2, 3], [1], [2, 3], [2], [3]]  # a line that still circles counts as it is


def test_what_is_clear_is_heard_once() -> None:
    asked = []
    assert understood(lambda chunk: asked.append(chunk) or "words", [np.ones(4, np.float32)] * 3) == "words"
    assert len(asked) == 1 and len(asked[0].samples) == 12


def test_verse_is_spelt_as_prose() -> None:
    assert modern("Egypt's lan' oppress'd, 'way lov'd") == "Egypt's land oppressed, way loved"


def test_notes_that_are_not_heard_count_as_missed() -> None:
    found = figures([-3.0, 1.0, 60.0, float("nan")], [-4.0, 2.0, 3.0], Errors(1, 8))
    assert (found["note error, cents"], found["onset error, ms"]) == (3.0, 3.0)
    assert (found["within 50 cents, %"], found["notes not heard, %"], found["notes"]) == (50.0, 25.0, 4.0)
    assert found["words wrong, %"] == 12.5
