"""Spans of speech out of frame probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from stepaudio.core.audio import AudioChunk
from stepaudio.recognition.vad import FRAME, Span, probabilities, speech_spans


def spans(*runs: tuple[int, float], **settings: int) -> list[tuple[float, float]]:
    """Spans in frames, of runs of (frames, probability); no padding unless asked for."""
    probs = [prob for count, prob in runs for _ in range(count)]
    return [(s.start / FRAME, s.end / FRAME) for s in speech_spans(probs, **{"padding_ms": 0} | settings)]


def test_nothing_gives_no_span() -> None:
    assert spans() == []
    assert spans((100, 0.1)) == []


def test_speech_lasts_from_the_high_threshold_to_the_low_one() -> None:
    assert spans((10, 0.4), (20, 0.6), (20, 0.4), (30, 0.3)) == [(10, 50)]


def test_a_short_dip_does_not_end_speech() -> None:
    assert spans((20, 0.9), (5, 0.0), (20, 0.9), (20, 0.0)) == [(0, 45)]


def test_a_pause_ends_speech() -> None:
    assert spans((20, 0.9), (15, 0.0), (20, 0.9)) == [(0, 20), (35, 55)]


def test_speech_at_the_end_is_closed() -> None:
    assert spans((5, 0.0), (20, 0.9)) == [(5, 25)]


def test_a_click_is_dropped() -> None:
    assert spans((20, 0.0), (3, 0.9), (20, 0.0)) == []
    assert spans((20, 0.0), (3, 0.9), (20, 0.0), min_speech_ms=90) == [(20, 23)]


def test_padding_stays_within_the_recording() -> None:
    padded = speech_spans([0.9] * 20, padding_ms=200)
    assert padded == [Span(0, 20 * FRAME)]


def test_padding_on_both_sides_joins_what_touches() -> None:
    assert spans((20, 0.0), (10, 0.9), (20, 0.0), padding_ms=32) == [(19, 31)]
    assert spans((10, 0.9), (12, 0.0), (10, 0.9), padding_ms=192) == [(0, 32)]


class Loudness:
    """A voice activity model that takes loudness for speech."""

    def stream(self) -> Loudness:
        self.starts: list[int] = []
        return self

    def push(self, frame: AudioChunk) -> float:
        assert len(frame.samples) == FRAME
        self.starts.append(frame.start)
        return float(np.abs(frame.samples).max())


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (FRAME, 1), (FRAME + 1, 2)])
def test_every_sample_is_in_a_frame(samples: int, frames: int) -> None:
    vad = Loudness()
    probs = probabilities(vad, AudioChunk(np.full(samples, 0.25, np.float32), 16_000))
    assert probs == [0.25] * frames
    assert vad.starts == [i * FRAME for i in range(frames)]
