"""Cutting text into clauses, at once and token by token."""

from __future__ import annotations

import random

import pytest

from stepaudio.core.clauses import MOST_WEIGHT, ClauseSplitter, find_end, is_han, weight
from stepaudio.core.style import SpeechStyle


def split(text: str, *, eager: bool = True, size: int | None = None) -> list[str]:
    splitter = ClauseSplitter(eager=eager)
    pieces = [text] if size is None else [text[i : i + size] for i in range(0, len(text), size)]
    clauses = [clause for piece in pieces for clause in splitter.push(piece)]
    clauses += splitter.flush()
    assert [clause.index for clause in clauses] == list(range(len(clauses)))
    return [clause.text for clause in clauses]


CASES = [
    # text, clauses when eager, clauses of a file
    ("The answer is four.", ["The answer is four."], None),
    (
        "The capital of Australia is Canberra.",
        ["The capital of Australia", "is Canberra."],
        ["The capital of Australia is Canberra."],
    ),
    ("澳大利亚的首都是堪培拉。", ["澳大利亚的首都", "是堪培拉。"], ["澳大利亚的首都是堪培拉。"]),
    ("这个问题的答案还是四。", ["这个问题的答案还是四。"], None),
    ("Yes. It is.", ["Yes.", "It is."], None),
    (
        "Water boils at one hundred degrees, at sea level.",
        ["Water boils at one hundred degrees,", "at sea level."],
        ["Water boils at one hundred degrees, at sea level."],
    ),
    ("Well, it rains.", ["Well, it rains."], None),  # too short a first clause to bridge the next
    (
        "It costs $1,234.50, not 3.14.",
        ["It costs $1,234.50,", "not 3.14."],
        ["It costs $1,234.50, not 3.14."],
    ),
    ("Dr. J. K. Smith met Mr. Lee. He left.", ["Dr. J. K. Smith met Mr. Lee.", "He left."], None),
    ("Did I win? I did! So do I. Really?!", ["Did I win?", "I did!", "So do I.", "Really?!"], None),
    ('He said "Stop." Then he ran.', ['He said "Stop."', "Then he ran."], None),
    ("See https://a.b/c?d=e. Then mail x@y.org.", ["See https://a.b/c?d=e.", "Then mail x@y.org."], None),
    ("1. First thing.\n2. Second thing.", ["1. First thing.", "2. Second thing."], None),
    ("One line\n\nanother line\n", ["One line", "another line"], None),
    ("堪培拉是澳大利亚的首都。它很小。", ["堪培拉是澳大利亚的首都。", "它很小。"], None),
    ("好的，我们走吧。", ["好的，", "我们走吧。"], ["好的，我们走吧。"]),
    ("他说：“走吧！”然后走了。", ["他说：", "“走吧！”", "然后走了。"], ["他说：“走吧！”", "然后走了。"]),
    ("我用GPT. 很好。", ["我用GPT.", "很好。"], None),
    ("Pi is 3.14.好的。", ["Pi is 3.14.", "好的。"], None),
    ("", [], None),
    ("  \n \n", [], None),
    ("...", ["..."], None),
    (".", ["."], None),
    ("no sign at the end", ["no sign at the end"], None),
    (
        "Jupiter is the largest — by far.",
        ["Jupiter is the largest —", "by far."],
        ["Jupiter is the largest — by far."],
    ),
    (
        "Alexander Graham Bell was the man who invented the telephone in 1876.",
        # no comma comes: cut before a joining word, past 14 letters
        ["Alexander Graham Bell", "was the man who invented the telephone in 1876."],
        ["Alexander Graham Bell was the man who invented the telephone in 1876."],
    ),
    (
        "The novels of Jane Austen are Pride and Prejudice and others.",
        # names hold "and", too: only past 40 letters
        ["The novels of Jane Austen", "are Pride and Prejudice and others."],
        ["The novels of Jane Austen are Pride and Prejudice and others."],
    ),
]


@pytest.mark.parametrize(("text", "eager", "file"), CASES)
def test_cases(text: str, eager: list[str], file: list[str] | None):
    assert split(text) == eager
    assert split(text, eager=False) == (eager if file is None else file)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("text", [case[0] for case in CASES])
def test_the_way_it_arrives_does_not_lose_or_double_anything(text: str, size: int):
    assert "".join("".join(split(text, size=size)).split()) == "".join(text.split())


def test_ascii_signs_wait_for_what_follows_and_wide_ones_do_not():
    splitter = ClauseSplitter()
    assert splitter.push("It is 3.") == []
    assert splitter.push("14 metres.") == []
    assert [c.text for c in splitter.push(" And")] == ["It is 3.14 metres."]
    assert [c.text for c in ClauseSplitter().push("你好。")] == ["你好。"]


def test_later_clauses_end_at_a_comma_only_when_long():
    _, second, third = split(
        "Right now. It was a very long and cold winter in the high mountains of the north, so we stayed."
    )
    assert second.endswith("north,") and third == "so we stayed."
    assert split("好的。从前有一座很高很高的山上有一座很老很老的庙，庙里有人。")[1:] == [
        "从前有一座很高很高的山上有一座很老很老的庙，",
        "庙里有人。",
    ]


def test_a_joining_word_must_be_whole_before_it_cuts():
    text = "Alexander Graham Bell invented it i"
    assert find_end(text, 0, final=False) is None
    assert find_end(text + "n ", 0, final=False) == len(text) - 1
    assert find_end(text + "n", 0, final=True) == len(text) - 1


def test_by_words_the_next_one_is_not_waited_for():
    def pieces(*words: str) -> list[list[str]]:
        splitter = ClauseSplitter(by_words=True)
        return [[clause.text for clause in splitter.push(word)] for word in words]

    assert pieces("The", " capital", " of", " Australia", " is")[-1] == ["The capital of Australia"]
    assert pieces("The bird that I saw", " can", "'t fly", ".")[1:] == [
        ["The bird that I saw"],
        [],
        ["can't fly."],
    ]
    assert pieces("Certainly", ",", " here")[1:] == [["Certainly,"], []]
    assert pieces("It", " is", " 3", ".", "14", " metres", ".")[-4:] == [[], [], [], ["It is 3.14 metres."]]
    assert pieces("Ask", " Dr", ".", " Brown", ".")[2:] == [[], [], ["Ask Dr. Brown."]]


@pytest.mark.parametrize("text", ["x" * 1500, "字" * 500, "word " * 400, "." * 300, "a." * 300, "1,2" * 300])
@pytest.mark.parametrize("size", [1, 1500])
def test_endless_text_is_cut(text: str, size: int):
    clauses = split(text, size=size)
    assert "".join("".join(clauses).split()) == "".join(text.split())
    if text[0] != ".":
        assert max(weight(clause) for clause in clauses) <= MOST_WEIGHT + 3
        assert all(clause.endswith("word") for clause in clauses if "word" in clause)


def test_a_sign_at_the_end_of_an_endless_word_does_not_hold_it():
    assert find_end("x" * (MOST_WEIGHT - 1) + ",", None, final=False) is None
    assert find_end("x" * MOST_WEIGHT + "," + "y", None, final=False) == MOST_WEIGHT
    assert find_end("x" * MOST_WEIGHT, None, final=False) is None


def test_style_travels_with_the_clauses():
    style = SpeechStyle(speed=1.5)
    splitter = ClauseSplitter(style=style)
    assert [clause.style for clause in splitter.push("One. Two. ")] == [style, style]


def test_weight_and_han():
    assert weight("ab c") == 3
    assert weight("你好 a") == 7
    assert is_han("你") and is_han("㐀") and is_han("豈") and not is_han("a") and not is_han("。")


def test_fuzz():
    rng = random.Random(7)
    alphabet = "ab1 .,!?;:\n—。，！“”\"')你好 Dr.J"
    for _ in range(500):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(60)))
        for eager in (True, False):
            for size in (1, 4, 99):
                got = split(text, eager=eager, size=size)
                assert "".join("".join(got).split()) == "".join(text.split())
                assert all(clause.strip() == clause and clause for clause in got)


def test_tags_become_styles_that_last_and_are_never_text():
    splitter = ClauseSplitter(eager=False, style=SpeechStyle(speed=1.2))
    clauses = []
    for char in "（四川话）你好。我是婷婷。(happy) Good (I think). ":
        clauses += splitter.push(char)
    assert [clause.text for clause in clauses + splitter.flush()] == [
        "你好。",
        "我是婷婷。",
        "Good (I think).",
    ]
    assert [clause.style.dialect for clause in clauses] == ["cmn-sichuan"] * len(clauses)
    assert clauses[-1].style == SpeechStyle("happy", dialect="cmn-sichuan", speed=1.2)
