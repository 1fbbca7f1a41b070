"""Transcripts as files."""

from __future__ import annotations

import json

import pytest

from stepaudio.core.errors import ConfigError
from stepaudio.recognition.base import Segment, Transcript, Word
from stepaudio.recognition.formats import write

TALK = Transcript(
    "Hello there. 1 < 2 & so on.",
    "en",
    (
        Segment("Hello there.", 120, 1_500, (Word("Hello", 120, 600), Word("there.", 600, 1_500))),
        Segment("1 < 2 & so on.", 3_723_004, 3_724_000),
    ),
)
NOTHING = Transcript("", "en")


def test_text_has_a_line_a_segment():
    assert write(TALK, "text") == "Hello there.\n1 < 2 & so on.\n"
    assert write(Transcript("no segments", "en"), "text") == "no segments\n"


def test_srt():
    assert write(TALK, "srt") == (
        "1\n00:00:00,120 --> 00:00:01,500\nHello there.\n\n"
        "2\n01:02:03,004 --> 01:02:04,000\n1 < 2 & so on.\n\n"
    )


def test_vtt():
    assert write(TALK, "vtt") == (
        "WEBVTT\n\n00:00:00.120 --> 00:00:01.500\nHello there.\n\n"
        "01:02:03.004 --> 01:02:04.000\n1 &lt; 2 &amp; so on.\n\n"
    )


def test_json():
    shown = json.loads(write(TALK, "json"))
    assert (shown["text"], shown["language"]) == (TALK.text, "en")
    assert shown["segments"][0]["words"][1] == {"word": "there.", "start": 0.6, "end": 1.5}
    assert "words" not in shown["segments"][1]


def test_silence_is_a_valid_file_in_every_format():
    assert write(NOTHING, "text") == "" and write(NOTHING, "srt") == ""
    assert write(NOTHING, "vtt") == "WEBVTT\n\n"
    assert json.loads(write(NOTHING, "json"))["segments"] == []


def test_unknown_format():
    with pytest.raises(ConfigError, match="did you mean srt"):
        write(TALK, "sr")
