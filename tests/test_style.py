"""Styles inherit what they do not say; tags say styles."""

import pytest

from stepaudio.core.style import TAGS, SpeechStyle, parse_tags


def test_over_fills_the_gaps_only():
    own = SpeechStyle(emotion="happy", volume=0.0)
    base = SpeechStyle(emotion="sad", speed=1.5, volume=-3.0)
    assert own.over(base) == SpeechStyle(emotion="happy", speed=1.5, volume=0.0)


@pytest.mark.parametrize(
    "text, style, rest",
    [
        ("（四川话）你好", SpeechStyle(dialect="cmn-sichuan"), "你好"),
        ("(Happy 2) hello", SpeechStyle(emotion="happy", intensity=2), "hello"),
        ("(高兴1)（粤语）(快速2)早", SpeechStyle("happy", 1, "yue", speed=1.25), "早"),
        ("（RAP）yo", SpeechStyle(mode="rap"), "yo"),
        ("(哼唱)", SpeechStyle(mode="hum"), ""),
        ("(sad)(angry) no", SpeechStyle(emotion="angry"), "no"),
        ("(see above) that", SpeechStyle(), "(see above) that"),
        ("that (happy) one", SpeechStyle(), "that (happy) one"),
        ("(happy", SpeechStyle(), "(happy"),
        ("(3) third", SpeechStyle(), "(3) third"),
        (" plain", SpeechStyle(), " plain"),
    ],
)
def test_tags_at_the_beginning(text, style, rest):
    assert parse_tags(text) == (style, rest)


def test_every_tag_says_something():
    assert all(style != SpeechStyle() and name == name.lower() for name, style in TAGS.items())
