"""Hibari, with networks that know nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepaudio.core.clauses import Clause, Mark
from stepaudio.core.style import SpeechStyle
from stepaudio.tts import hibari
from stepaudio.tts.text import SpokenWord
from stepaudio.tts.voices import HIBARI

VOCABULARY = {symbol: n for n, symbol in enumerate('abcdef .,!"', 1)}


def word(written: str, phonemes: str) -> SpokenWord:
    return SpokenWord(written, written, phonemes, "en")


# The engine, with a network that knows nothing


class FakeNetwork:
    """3 frames a token; two columns a frame; the first and the last token are silent."""

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        made = dict[str, np.ndarray]()
        if "ids" in inputs:
            count = inputs["ids"].shape[1]
            made[hibari._EXACT] = np.full((1, count), 3, np.float32)
            made[hibari._SOUNDS] = made[hibari._MELODY] = np.zeros((1, 1, count), np.float32)
        else:
            columns = 2 * inputs[hibari._LENGTHS].sum()
            made[hibari._PITCH] = np.full((1, columns), 120.0, np.float32)
            made[hibari._ENERGY] = np.full((1, columns), 5.0, np.float32)
            made[hibari._ENERGY][:, :6] = made[hibari._ENERGY][:, -6:] = -9
            made |= {name: np.full((1, 601, columns), -3.0, np.float32) for name in hibari._SPECTRA}
        return [made[name] for name in outputs]


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
    monkeypatch.setattr(engine, "limit", 7)
    first, second = engine.synthesize(Clause(0, "abc def ab"), HIBARI)
    assert second.audio.start == len(first.audio.samples)
    marks = [*first.marks, *second.marks]
    assert [mark.text for mark in marks] == ["abc", "def", "ab"]
    assert marks[2].start_ms >= 1000 * first.audio.seconds


@pytest.mark.parametrize(("speed", "tempo"), [(None, 1.0), (1.5, 1.5), (9.0, 2.0), (0.1, 0.5)])
def test_speed_is_kept_within_bounds(engine: hibari.Hibari, speed: float | None, tempo: float) -> None:
    (plan,) = engine.plan(Clause(0, "abcd", SpeechStyle(speed=speed)), HIBARI)
    assert (plan.frames - 6) / plan.stretch == pytest.approx(12 / tempo, rel=0.005)  # 6 frames are silent


@pytest.mark.parametrize(("pitch", "more"), [(-5.0, 5 * hibari.FIRMER), (5.0, 0.0)])
def test_a_lowered_voice_is_firmer(engine: hibari.Hibari, pitch: float, more: float) -> None:
    (plain,) = engine.plan(Clause(0, "abcd"), HIBARI)
    (moved,) = engine.plan(Clause(0, "abcd", SpeechStyle(pitch=pitch)), HIBARI)
    np.testing.assert_allclose(moved.energy - plain.energy, more, atol=1e-5)


@pytest.mark.parametrize("text", ["", "...", "XYZ", '" , "'])
def test_nothing_to_say_yields_nothing(engine: hibari.Hibari, text: str) -> None:
    assert list(engine.synthesize(Clause(0, text), HIBARI)) == []


def test_one_voice(engine: hibari.Hibari) -> None:
    assert engine.voices() == (HIBARI,)
