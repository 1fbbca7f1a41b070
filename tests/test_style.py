"""Styles inherit what they do not say."""

from stepaudio.core.style import SpeechStyle


def test_over_fills_the_gaps_only():
    own = SpeechStyle(emotion="happy", volume=0.0)
    base = SpeechStyle(emotion="sad", speed=1.5, volume=-3.0)
    assert own.over(base) == SpeechStyle(emotion="happy", speed=1.5, volume=0.0)
