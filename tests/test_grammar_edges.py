"""Corners of the grammar of tags, of SSML and of clauses that the files of each leave out."""

from __future__ import annotations

import pytest

from stepaudio.core import ssml, tagged, tags
from stepaudio.core.clauses import MOST_CHARACTERS, ClauseSplitter, find_end
from stepaudio.core.errors import TagError
from stepaudio.core.style import SpeechStyle


def styles(inside: str) -> list[SpeechStyle]:
    """Of clauses and of the spans in them."""
    clauses = ssml.split(f"<speak>{inside}</speak>")
    return [style for clause in clauses for style in (clause.style, *(span.style for span in clause.spans))]


def test_a_doctype_that_defines_nothing_is_read() -> None:
    (clause,) = ssml.split("<!DOCTYPE speak><speak>Hello.</speak>")
    assert clause.text == "Hello."


@pytest.mark.parametrize(
    ("inside", "style"),
    [
        ('<voice xml:lang="en-GB">Hello.</voice>', SpeechStyle(dialect="en-GB")),
        ('<lang xml:lang="en-AU">Hello.</lang>', SpeechStyle(dialect="en")),
        (
            '<express-as style="sad" styledegree="0.5">No.</express-as>',
            SpeechStyle(emotion="sad", intensity=1),
        ),
        ('<express-as style="sad" styledegree="1">No.</express-as>', SpeechStyle(emotion="sad", intensity=2)),
        ('<express-as style="sad" styledegree="2">No.</express-as>', SpeechStyle(emotion="sad", intensity=3)),
        ('<express-as style="sad">No.</express-as>', SpeechStyle(emotion="sad")),
        (
            '<amazon:emotion name="sad" intensity="high">No.</amazon:emotion>',
            SpeechStyle(emotion="sad", intensity=3),
        ),
    ],
)
def test_what_elements_ask_for(inside: str, style: SpeechStyle) -> None:
    assert style in styles(inside)


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ('<amazon:effect name="drc">x</amazon:effect>', "only whispered"),
        ('<express-as style="sad" styledegree="x">x</express-as>', "from 0.01 to 2"),
        ('<express-as style="sad" styledegree="3">x</express-as>', "from 0.01 to 2"),
        (f'<sub alias="x">{"x" * (ssml.LONGEST_SAID + 1)}</sub>', "holds at most"),
        ('<phoneme ph="x">x</phoneme>', "cannot be read here"),
        ('<say-as interpret-as="digits">one</say-as>', "needs digits"),
        ('<say-as interpret-as="ordinal">1.5</say-as>', "needs a whole number"),
        ('<say-as interpret-as="telephone">mine</say-as>', "needs a telephone number"),
        ('<say-as interpret-as="time">noon</say-as>', "needs a time"),
    ],
)
def test_what_cannot_be_had_is_told(inside: str, problem: str) -> None:
    with pytest.raises(TagError, match=problem):
        styles(inside)


def test_a_break_of_no_time_is_none() -> None:
    (clause,) = ssml.split('<speak>One <break time="0ms"/>two.</speak>')
    assert clause.spans == ()


def test_dates_in_words_stay() -> None:
    (clause,) = ssml.split('<speak><say-as interpret-as="date">May 1, 2024</say-as> it is</speak>')
    assert clause.text == "May 1, 2024 it is"


def test_brackets_of_two_kinds_are_no_tag() -> None:
    assert tagged.disarmed("(happy] you") == "(happy] you"


@pytest.mark.parametrize("content", ["happy, pause", "happy, reset"])
def test_points_stand_alone(content: str) -> None:
    assert tags.meaning(content) is None


def test_an_argument_is_closed_by_its_name() -> None:
    closing = tags.meaning("/speed", square=True)
    assert isinstance(closing, tags.Tag)
    assert closing.closes and closing.names == ("speed",)


@pytest.mark.parametrize(
    ("content", "may"),
    [
        ("very hap", True),
        ("very happily", True),
        ("very hapx", False),
        ("happy 2", True),
        ("foo, hap", False),
    ],
)
def test_a_degree_may_become_a_tag(content: str, may: bool) -> None:
    assert tags.may_become(content) is may


def test_instructions_name_what_they_do_not_follow() -> None:
    for words in ("pause", "with emphasis", "强调"):
        assert tags.instructions(words).style == SpeechStyle()


def test_text_without_an_end_is_cut_somewhere() -> None:
    splitter = ClauseSplitter(eager=False)
    clauses = splitter.feed(["a" + " " * (MOST_CHARACTERS + 10)])
    clauses += splitter.feed(["end"], final=True)
    assert "".join(clause.text for clause in clauses) == "aend"


def test_a_line_that_is_empty_ends_nothing() -> None:
    assert find_end("\nOne. Two", None, final=False) == 5


def replaced(begin: int, end: int) -> tagged.Track:
    """A track with a word that is said in phonemes."""
    track = tagged.Track(SpeechStyle())
    track.put(begin, tagged.Open(phonemes="abc"))
    track.put(end, tagged.Close())
    return track


def test_what_is_replaced_is_masked_where_it_lies() -> None:
    track = replaced(4, 7)
    assert track.masked("One two. ", 0) == "One xxx. "
    assert track.masked("One", 0) == "One"
    assert track.masked("later", 8) == "later"


def test_a_clause_takes_only_what_begins_in_it() -> None:
    assert replaced(4, 7).take("two", 5)[1] == ()


def test_what_happens_after_the_last_word_is_a_clause_of_its_own() -> None:
    splitter = ClauseSplitter(eager=False)
    splitter.feed(["One."], final=False)
    clauses = splitter.feed([], final=True)
    clauses += splitter.feed([tagged.Point(pause_ms=500)], final=True)
    assert [clause.text for clause in clauses][-1] == ""
    assert clauses[-1].spans[0].pause_ms == 500
