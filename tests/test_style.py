"""Styles inherit what they do not say."""

from stepaudio.core.style import NO_STYLE, SpeechStyle


def test_over_fills_the_gaps_only():
    own = SpeechStyle(emotion="happy", volume=0.0)
    base = SpeechStyle(emotion="sad", speed=1.5, volume=-3.0)
    assert own.over(base) == SpeechStyle(emotion="happy", speed=1.5, volume=0.0)


def test_an_emotion_does_not_inherit_the_strength_of_another():
    base = SpeechStyle(emotion="happy", intensity=3, pitch=1.0)
    assert SpeechStyle(emotion="sad").over(base) == SpeechStyle(emotion="sad", pitch=1.0)
    assert SpeechStyle(intensity=1).over(base) == SpeechStyle("happy", 1, pitch=1.0)
    assert NO_STYLE.over(base) == base
