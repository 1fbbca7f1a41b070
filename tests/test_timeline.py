"""Stamps and what comes of them."""

from __future__ import annotations

from stepaudio.timeline import STAGES, Timeline


def test_stages_cover_the_way_to_the_first_audio_without_gaps():
    now = iter([0.0, 0.1, 0.25, 0.5, 0.75, 9.0])
    timeline = Timeline(lambda: next(now))
    for name in ("speech_end", "transcript", "first_token", "first_clause", "first_audio"):
        timeline.stamp(name)
    timeline.stamp("first_token")  # a second one does not count
    numbers = timeline.numbers_ms()
    assert numbers == {
        "recognition": 100.0,
        "first_token": 150.0,
        "first_clause": 250.0,
        "voice": 250.0,
        "first_audio": 750.0,
    }
    assert sum(numbers[stage] for stage, _, _ in STAGES) == numbers["first_audio"]


def test_what_was_not_reached_is_not_there():
    timeline = Timeline(lambda: 1.0)
    timeline.stamp("speech_end")
    assert timeline.numbers_ms() == {}
