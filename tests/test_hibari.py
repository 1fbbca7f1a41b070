"""What Hibari and Kokoro share (``tts.prosody``), and Hibari's own parts that need no weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.style import SpeechStyle
from stepaudio.tts import hibari
from stepaudio.tts.prosody import LEAD, audible, layout, runs, whole_frames, word_marks
from stepaudio.tts.text import SpokenWord
from stepaudio.tts.voices import HIBARI

VOCABULARY = {symbol: n for n, symbol in enumerate('abcdef .,!"', 1)}


def word(written: str, phonemes: str) -> SpokenWord:
    return SpokenWord(written, written, phonemes, "en")


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


def test_marks_of_a_run_count_from_the_clause() -> None:
    words = [word("ab,", "ab, "), word("cd", "cd")]
    _, spans = layout([w.phonemes for w in words], VOCABULARY)
    assert word_marks(words, spans, (0, 6), np.array([2, 4, 6, 7, 8, 10, 13])) == [
        Mark("ab,", 50, 150),
        Mark("cd", 200, 325),
    ]
    assert word_marks(words, spans, (4, 6), np.array([2, 4, 7]), base=100) == [Mark("cd", 2550, 2675)]


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


# The engine, with a network that knows nothing


class FakeNetwork:
    """3 frames a token; two columns a frame; the first and the last token are silent."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], float]] = []

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        ids = inputs["ids"][0]
        self.asked.append((ids.tolist(), float(inputs["speed"][0])))
        columns = 6 * len(ids)
        loud = np.full((1, columns), 5.0, np.float32)
        loud[:, :6] = loud[:, -6:] = -9
        spectra = [np.full((1, 601, columns), -3.0, np.float32) for _ in range(5)]
        pitch = np.full((1, columns), 120.0, np.float32)
        return [np.full(len(ids), 3), loud, *spectra, pitch]


class FakePronouncer:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str]] = []

    def pronounce(self, text: str, language: str | None, accent: str) -> tuple[SpokenWord, ...]:
        self.asked.append((text, language, accent))
        words = text.split()
        return tuple(word(w, w + " " * (n < len(words) - 1)) for n, w in enumerate(words))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hibari.Hibari:
    (tmp_path / "vocab.json").write_text(json.dumps(VOCABULARY))
    monkeypatch.setattr(hibari, "session", lambda path, threads: FakeNetwork())
    return hibari.Hibari(tmp_path, tmp_path, FakePronouncer())  # type: ignore[arg-type]


def test_clause_is_one_piece_with_all_marks(engine: hibari.Hibari) -> None:
    (piece,) = engine.synthesize(Clause(0, "ab cd."), HIBARI)
    assert piece.audio.start == 0
    # 6 symbols of 3 frames between two silent tokens: 2 frames before, 3 of the 10 wanted after.
    assert len(piece.audio.samples) == (2 + 18 + 3) * 600
    assert piece.marks == (Mark("ab", 50, 200), Mark("cd.", 275, 425))
    assert np.abs(piece.audio.samples).max() < 1
    assert engine._pronouncer.asked == [("ab cd.", "en", "en-US")]  # type: ignore[attr-defined]


def test_long_clause_is_cut_at_words(engine: hibari.Hibari, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hibari, "MAX_SYMBOLS", 7)
    first, second = engine.synthesize(Clause(0, "abc def ab"), HIBARI)
    assert second.audio.start == len(first.audio.samples)
    marks = [*first.marks, *second.marks]
    assert [mark.text for mark in marks] == ["abc", "def", "ab"]
    assert marks[2].start_ms >= 1000 * first.audio.seconds


@pytest.mark.parametrize(("speed", "expected"), [(None, 1.0), (1.5, 1.5), (9.0, 2.0), (0.1, 0.5)])
def test_speed_goes_to_the_network_within_bounds(
    engine: hibari.Hibari, speed: float | None, expected: float
) -> None:
    list(engine.synthesize(Clause(0, "ab", SpeechStyle(speed=speed)), HIBARI))
    assert engine._network.asked == [([0, 1, 2, 0], expected)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["", "...", "XYZ", '" , "'])
def test_nothing_to_say_yields_nothing(engine: hibari.Hibari, text: str) -> None:
    assert list(engine.synthesize(Clause(0, text), HIBARI)) == []


def test_one_voice(engine: hibari.Hibari) -> None:
    assert engine.voices() == (HIBARI,)
