"""The overlap bench: scenes played to models whose answers are known, and its arithmetic."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from stepaudio.bench.overlap import (
    Answer,
    Course,
    Delays,
    Ears,
    Loudspeaker,
    Overlap,
    Turn,
    confusion,
    converse,
    judge,
    punctuality,
    render,
)
from stepaudio.core.audio import AudioChunk
from stepaudio.recognition.base import RATE, Transcript


class Loudness:
    """A voice activity model that takes loudness for speech, and a turn model that is always sure."""

    def stream(self) -> Loudness:
        return self

    def push(self, frame: AudioChunk) -> float:
        return float(np.sqrt(np.mean(frame.samples**2)) > 0.01)

    def score(self, audio: AudioChunk) -> float:
        return 1.0


class Words:
    """A recogniser that hears one text in everything."""

    languages: tuple[str, ...] = ("en",)

    def __init__(self, text: str) -> None:
        self.text = text

    def transcribe(self, audio: AudioChunk, **options: object) -> Transcript:
        assert audio.rate == RATE and len(audio.samples)
        return Transcript(self.text, "en")


def ears(text: str = "") -> Ears:
    return Ears(Loudness(), Loudness(), Words(text))


def sound(*runs: tuple[float, float]) -> np.ndarray:
    """Noise in runs of (seconds, level)."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, level + 1e-9, int(s * RATE)) for s, level in runs]).astype(
        np.float32
    )


SPEAKING = sound((6, 0.1))


@pytest.mark.parametrize(("text", "stops"), [("stop", 1), ("mm-hm", 0), ("what about the other one", 1)])
def test_what_is_said_over_the_answer_decides(text: str, stops: int) -> None:
    course = converse(ears(text), sound((1, 0), (0.6, 0.1), (2, 0)), agent=SPEAKING)
    assert len(course.stopped) == stops
    assert len(course.ducked) == 1 and len(course.unducked) == 1 - stops
    assert 1000 < course.ducked[0] <= 1000 + 100


def test_own_voice_comes_back_by_the_loudspeaker_and_stops_nothing() -> None:
    speaker = Loudspeaker(-10, 100, np.array([1.0, 0.3, 0.1], np.float32))
    course = converse(
        ears("what about the other one"), np.zeros(5 * RATE, np.float32), agent=SPEAKING, loudspeaker=speaker
    )
    assert course.ducked and not course.stopped  # it is heard at first, and known then


def test_a_turn_is_answered_after_its_end() -> None:
    turn = Turn("plain", "a", sound((0.5, 0), (1, 0.1), (3, 0)), 1500)
    answer = judge(turn, converse(ears("what is the time"), turn.microphone, delays=Delays(answer=1000)))
    assert answer.answered and not answer.early
    assert answer.decision_ms is not None and 300 < answer.decision_ms < 600
    assert answer.heard_ms is not None and 1100 < answer.heard_ms < 1300


def test_an_answer_in_a_pause_is_early() -> None:
    turn = Turn("plain", "a", sound((0.5, 0), (1, 0.1), (2, 0), (1, 0.1), (2, 0)), 4500)
    answer = judge(turn, converse(ears("what is the time"), turn.microphone))
    assert answer.early


def test_the_figures() -> None:
    def course(*stopped: int) -> Course:
        return Course([1064], [], list(stopped), [], [], [])

    def scene(kind: str) -> Overlap:
        return Overlap(kind, "", np.zeros(0), 1000, np.zeros(0))

    result = confusion(
        [
            (scene("interruption"), course(1500)),
            (scene("interruption"), course()),
            (scene("order"), course(500)),
            (scene("noise"), course()),
            (scene("noise"), course(1300)),
        ]
    )
    assert result["kinds"]["interruption"] == {
        "examples": 2,
        "stopped": 1,
        "should_stop": True,
        "stop_ms": {"p50": 500, "p95": 500},
        "duck_ms": {"p50": 64, "p95": 64},
    }
    assert result["kinds"]["noise"]["stopped"] == 1
    assert result["tuned on"] == {"false_stops": 1.0, "missed_stops": 0.5}
    assert result["held out"] == {"false_stops": 1.0, "missed_stops": 1.0}

    turn = Turn("plain", "a", np.zeros(0), 1000)
    turns = punctuality([Answer(turn, 400, 900, False, True), Answer(turn, None, None, True, False)])
    assert turns["plain"] == {
        "turns": 2,
        "early": 0.5,
        "unanswered": 1,
        "decision_ms": {"p50": 400, "p95": 400},
        "heard_ms": {"p50": 900, "p95": 900},
    }
    assert turns["held out"]["decision_ms"] is None

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render({"overlaps": result, "turns": turns, "targets": {"false_stops": 0.05}}))
    text = console.export_text()
    assert "interruption (should stop)" in text and "held out: false stops 100.0%" in text
