"""Documents as what is to be said."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio.core.errors import ConfigError, TextError
from stepaudio.core.style import SpeechStyle
from stepaudio.documents import (
    BREAK_MS,
    CHAPTER_MS,
    HEADING_MS,
    PARAGRAPH_MS,
    BadLine,
    Cue,
    Job,
    has_words,
    kind_of,
    plain,
    read_book,
    read_cues,
    read_jobs,
    style_of,
    style_of_tags,
)

ENDINGS = (".wav", ".mp3")


def words(text: str, kind: str = "text") -> list[list[str]]:
    book = read_book(text.encode(), kind, "a.txt")  # pyright: ignore[reportArgumentType]
    return [[paragraph.text for paragraph in chapter.paragraphs] for chapter in book.chapters]


def jobs(*lines: object) -> list[Job | BadLine]:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return list(read_jobs(raw, ENDINGS, ".wav"))


def says(line: object) -> str:
    (bad,) = jobs(line)
    assert isinstance(bad, BadLine)
    return bad.says


def test_the_kind_is_told_by_the_name():
    assert [kind_of(name) for name in ("a.txt", "B.EPUB", "c.md", "d.vtt", "e.jsonl")] == [
        "text",
        "epub",
        "markdown",
        "subtitles",
        "jobs",
    ]
    with pytest.raises(ConfigError, match="--type"):
        kind_of("letter.docx")


# text


def test_text_that_was_wrapped_is_joined_and_verse_is_not():
    prose = (
        "It was the best of times, it was the worst of times, it was the\n"
        "age of wisdom, it was the age of foolishness, it was the epoch\n"
        "of belief.\n\n"
        "Roses are red,\nviolets are blue.\n"
    )
    assert words(prose) == [
        [
            "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of"
            " foolishness, it was the epoch of belief.",
            "Roses are red,\nviolets are blue.",
        ]
    ]


def test_a_line_each_is_a_paragraph_each():
    assert words("One.\nTwo.\r\nThree.") == [["One.", "Two.", "Three."]]
    assert words("第一段话。\n第二段话。") == [["第一段话。", "第二段话。"]]


def test_chapters_of_text():
    text = (
        "Preface\n\nHello.\n\nCHAPTER I.\nDown the Hole\n\nAlice was tired.\n\nBook the flight now.\n\n"
        "* * *\n\nEnd."
    )
    book = read_book(text.encode(), "text", "alice.txt")
    assert [chapter.title for chapter in book.chapters] == ["Preface", "CHAPTER I. Down the Hole"]
    assert [(p.text, p.pause_ms) for p in book.chapters[1].paragraphs] == [
        ("CHAPTER I. Down the Hole", HEADING_MS),
        ("Alice was tired.", PARAGRAPH_MS),
        ("Book the flight now.", BREAK_MS),
        ("End.", CHAPTER_MS),
    ]
    assert book.title == "alice"
    assert [c.title for c in read_book("第十二回 风雪\n\n正文。".encode(), "text", "a").chapters] == [
        "第十二回 风雪"
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no words"),
        (b"* * *\n\n!!!", "no words"),
        ("中文".encode("gb18030"), "iconv"),
        (b"a\0b", "bytes that are 0"),
    ],
)
def test_what_is_no_text_is_told(data, message):
    with pytest.raises(TextError, match=message):
        read_book(data, "text", "a.txt")


def test_text_in_utf_16_and_with_a_mark():
    assert words("\ufeffHello.") == [["Hello."]]
    assert read_book("Hello.".encode("utf-16"), "text", "a").chapters[0].paragraphs[0].text == "Hello."


# Markdown


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("a [link](http://x.y/z) and ![a picture](p.png)", "a link and a picture"),
        ("**bold** and *slanted* and ***both*** and ~~gone~~", "bold and slanted and both and gone"),
        ("这是**重点**内容", "这是重点内容"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
        ("`code` and <b>html</b> and <https://x.y>", "code and html and https://x.y"),
        ("[laugh] said[^1] \\*so\\*", "[laugh] said *so*"),
    ],
)
def test_inline_markdown(written, said):
    assert plain(written) == said


def test_markdown_blocks_title_and_chapters():
    text = """---
title: The Tides
author: "Ann Orr"
---
# The Tides

An opening.

## One

First line
of a paragraph.

- item one
- item two

1. step

```python
code()
```

> quoted <!-- not
this --> words

***

| a | b |
|---|---|
| 1 | 2 |

Two
---

### Inside

[ref]: http://x.y
The end.
"""
    book = read_book(text.encode(), "markdown", "tides.md")
    assert (book.title, book.author) == ("The Tides", "Ann Orr")
    assert [chapter.title for chapter in book.chapters] == ["", "One", "Two"]
    opening, one, two = ([(p.text, p.pause_ms) for p in c.paragraphs] for c in book.chapters)
    assert opening == [("The Tides", HEADING_MS), ("An opening.", CHAPTER_MS)]
    assert one == [
        ("One", HEADING_MS),
        ("First line of a paragraph.", PARAGRAPH_MS),
        ("item one", PARAGRAPH_MS),
        ("item two", PARAGRAPH_MS),
        ("1. step", PARAGRAPH_MS),
        ("quoted words", BREAK_MS),
        ("a, b.", PARAGRAPH_MS),
        ("1, 2.", CHAPTER_MS),
    ]
    assert two == [("Two", HEADING_MS), ("Inside", HEADING_MS), ("The end.", CHAPTER_MS)]


def test_chapters_of_markdown_without_a_title_of_the_whole():
    assert words("# A\n\nx\n\n# B\n\ny", "markdown") == [["A", "x"], ["B", "y"]]
    assert words("Just words.", "markdown") == [["Just words."]]
    assert words("# Only\n\nwords", "markdown") == [["Only", "words"]]


# subtitles


def test_cues_of_subrip_and_webvtt():
    srt = (
        b"2\r\n00:00:05,000 --> 00:00:06,500\r\n- <i>Who</i> is there?\r\n- {\\an8}Me.\r\n\r\n"
        b"1\n0:00:01,2 --> 00:00:03,000\nHello &amp;\ngood day.\n\n"
        b"3\n00:00:07,000 --> 00:00:08,000\n\xe2\x99\xaa\n"
    )
    assert read_cues(srt, "a.srt") == (
        Cue(1_200, 3_000, "Hello & good day."),
        Cue(5_000, 6_500, "Who is there?\nMe."),
    )
    assert read_cues("00:01.000 --> 00:02.000\n<i>\n</i>你好，\n<b></b>\n世界".encode(), "a.vtt") == (
        Cue(1_000, 2_000, "你好，世界"),
    )
    vtt = (
        b"WEBVTT\n\nNOTE nothing\n\nintro\n"
        b"00:01.000 --> 01:02:03.400 align:start\n<v Ann>Hello <00:02.000>there"
    )
    assert read_cues(vtt, "a.vtt") == (Cue(1_000, 3_723_400, "Hello there"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00:00:02,000 --> 00:00:02,000\nx", "line 1: the cue ends before it begins"),
        ("1\n0:2 --> 0:3\nx", "line 2: times are written"),
        ("99:00:00,000 --> 99:00:01,000\nx", "99 hours are too many"),
        ("just text", "no cues"),
    ],
)
def test_bad_cues_name_their_line(text, message):
    with pytest.raises(TextError, match=message):
        read_cues(text.encode(), "a.srt")


# lists of jobs


def test_jobs():
    assert jobs(
        {"text": "Hello."},
        b"  \n",
        {
            "text": "Hi.",
            "voice": "af_bella",
            "file": "sub/hi.mp3",
            "style": {"emotion": "高兴", "speed": 1.2},
        },
        {"text": "Ho.", "style": "sad 3, slow", "language": "en", "voice": None},
    ) == [
        Job(1, "Hello.", "00001.wav"),
        Job(3, "Hi.", "sub/hi.mp3", "af_bella", style=SpeechStyle(emotion="happy", speed=1.2)),
        Job(4, "Ho.", "00004.wav", language="en", style=SpeechStyle(emotion="sad", intensity=3, speed=0.75)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff{}", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        ([1], "no object"),
        ({}, "nothing to say"),
        ({"text": "!"}, "nothing to say"),
        ({"text": 5}, "text: must be a string"),
        ({"text": "a", "voise": "b"}, "did you mean voice"),
        ({"text": "a", "file": "../a.wav"}, "outside the folder"),
        ({"text": "a", "file": "x/../../a.wav"}, "outside the folder"),
        ({"text": "a", "file": "/etc/a.wav"}, "outside the folder"),
        ({"text": "a", "file": "C:\\a.wav"}, "outside the folder"),
        ({"text": "a", "file": "a.exe"}, "must end in one of .wav, .mp3"),
        ({"text": "a", "style": 5}, "style: write"),
        ({"text": "a", "style": {"speed": "fast"}}, "speed is a number from 0.5 to 2 times"),
        ({"text": "a", "style": {"pitch": 40}}, "pitch goes from -7 to 7 semitones, and 40 is beyond"),
        ({"text": "a", "style": {"emotion": "hapy"}}, "did you mean happy"),
        ({"text": "a", "style": {"intensity": 2}}, "name the emotion"),
        ({"text": "a", "style": {"emotion": "sad", "intensity": 1.5}}, "whole number"),
        ({"text": "a", "style": "banana"}, "is no style"),
        ({"text": "a", "style": "happy 7"}, "from 1 to 3"),
    ],
)
def test_a_bad_line_says_what_to_change(line, message):
    assert message in says(line)


def test_two_lines_cannot_write_one_file():
    first, second = jobs({"text": "a", "file": "A.wav"}, {"text": "b", "file": "./a.wav"})
    assert isinstance(first, Job) and isinstance(second, BadLine)
    assert "line 1 already" in second.says
    assert isinstance(jobs({"text": "a", "file": "00002.wav"}, {"text": "b"})[1], BadLine)


def test_styles():
    assert style_of({"mode": "耳语", "dialect": "四川话", "volume": -3, "pitch": None}) == SpeechStyle(
        mode="whisper", dialect="cmn-sichuan", volume=-3
    )
    assert style_of_tags("happy 2, slow") == SpeechStyle(emotion="happy", intensity=2, speed=0.75)
    with pytest.raises(ConfigError, match="no style named 'voice'"):
        style_of({"voice": "x"})
    with pytest.raises(TextError):
        style_of({"speed": float("nan")})


# whatever comes


@pytest.mark.parametrize("kind", ["text", "markdown"])
@given(text=st.text(st.sampled_from("ab .\n-=#*_`[](){}<>|!:/\\1第章。 \t"), max_size=300))
def test_any_text_is_read_or_told(kind, text):
    with contextlib.suppress(TextError):
        book = read_book(text.encode(), kind, "a")
        said = "".join(p.text for chapter in book.chapters for p in chapter.paragraphs)
        assert has_words(said)
        if kind == "text":
            assert [c for c in said if c.isalnum()] == [c for c in text if c.isalnum()]


@given(
    text=st.text(st.sampled_from("0123:,.-> \n<i>/{\\}&amp;ab"), max_size=300), data=st.binary(max_size=200)
)
def test_any_subtitles_and_jobs_are_read_or_told(text, data):
    for raw in (text.encode(), data, b"00:01.000 --> 00:02.000\n" + data):
        with contextlib.suppress(TextError):
            assert all(cue.end_ms > cue.start_ms and has_words(cue.text) for cue in read_cues(raw, "a"))
    assert all(isinstance(line, Job | BadLine) for line in jobs(data, text.encode()))


@pytest.mark.parametrize(
    "piece", ["*", "**a", "_a_ ", "[", "[a](", "<a ", "`", "~~", "\\*", "# ", "> ", "| ", "- "]
)
def test_hostile_markdown_ends_soon(piece):
    with contextlib.suppress(TextError):
        read_book(piece.encode() * (200_000 // len(piece)) + b"\n\nwords", "markdown", "a")
