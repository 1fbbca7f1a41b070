"""The grammar of tags: names, brackets, escapes, what is wrong with one, and that no text breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio.core.clauses import ClauseSplitter, split
from stepaudio.core.commands import plain
from stepaudio.core.errors import StepAudioError, TagError
from stepaudio.core.style import Span, SpeechStyle
from stepaudio.core.tagged import (
    DEEPEST,
    LONGEST,
    Close,
    Open,
    Point,
    Switch,
    TagReader,
    disarmed,
    escaped,
    parse,
)
from stepaudio.core.tags import BY_NAME, TAGS, Instructions, instructions, meaning

PARTS = [
    "(", ")", "（", "）", "[", "]", "［", "］", "/", "\\", "\n", " ", ",", "，", ".", "。", ":", "!", "-", "+",
    "happy", "sad", "高兴", "撒娇", "四川话", "rap", "哼唱", "慢速", "strong", "laugh", "笑", "pause", "停顿",
    "very ", "非常", "speed", "voice", "mark", "pitch", "2", "1.5", "ms", "秒", "x", "a word", "你好", "ß", "İ", "½", "\u3000",
    "(happy)", "[sad]", "[/sad]", "[/]", "(reset)", "\ud800", "<speak>", "_*", "０",
]  # fmt: skip
texts = st.lists(st.sampled_from(PARTS), max_size=24).map("".join) | st.text(max_size=80)


@given(texts, st.sampled_from(["speak", "drop"]))
def test_no_text_breaks_a_talk(text, unknown):
    splitter = ClauseSplitter(unknown=unknown)
    clauses = splitter.push(text) + splitter.flush()
    assert [clause.index for clause in clauses] == list(range(len(clauses)))
    for clause in clauses:
        assert clause.text == clause.text.strip()
        for span in clause.spans:
            assert 0 <= span.begin <= span.end <= len(clause.text)
        assert [span.begin for span in clause.spans] == sorted(span.begin for span in clause.spans)


@given(texts, st.sampled_from(["speak", "drop", "report"]))
def test_what_is_wrong_with_a_text_has_one_name(text, unknown):
    try:
        clauses = split(text, unknown=unknown)
    except TagError as error:
        assert "at character" in str(error)
        return
    whole = parse(text, unknown=unknown)
    assert "".join("".join(c.text for c in clauses).split()) == "".join(whole.text.split())


def joined(tokens):
    """Tokens with the texts that follow each other in one."""
    out = []
    for token in tokens:
        if isinstance(token, str) and out and isinstance(out[-1], str):
            out[-1] += token
        else:
            out.append(token)
    return out


@given(texts, st.sampled_from(["speak", "drop"]), st.integers(1, 5))
def test_it_does_not_matter_how_a_text_arrives(text, unknown, size):
    reader = TagReader(unknown=unknown)
    tokens = [token for i in range(0, len(text), size) for token in reader.push(text[i : i + size])]
    assert joined(tokens + reader.flush()) == joined(TagReader(unknown=unknown).flush(text))


@given(st.text(st.characters(blacklist_characters="()（）[]［］"), max_size=200))
def test_text_without_brackets_is_left_as_it_is(text):
    assert parse(text, unknown="report").text == text
    assert parse(text, unknown="report").spans == ()
    assert "".join(map(str, TagReader().push(text))) == text.rstrip("\\")  # nothing is held back


@given(texts)
def test_escapes_bring_any_text_through(text):
    assert parse(escaped(text)) == parse("", strict=False).__class__(text, SpeechStyle())
    assert parse(escaped(text), strict=False).text == text


@given(texts, st.integers(1, 5))
def test_nothing_of_a_users_is_a_tag(text, size):
    text = plain(text)
    assert disarmed(text) == text
    for unknown in ("speak", "drop"):
        reader = TagReader(unknown=unknown)
        tokens = [t for i in range(0, len(text), size) for t in reader.push(text[i : i + size])]
        assert all(isinstance(token, str) for token in tokens + reader.flush())
