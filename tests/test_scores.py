"""Error rates, and what counts as the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepaudio.bench.scores import Errors, errors, normalise
from stepaudio.core.distance import edit_distance


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0)],
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert edit_distance(list(a), list(b)) == distance


def test_errors_count_words_and_characters() -> None:
    assert errors("The cat sat.", "the cat sat down", "en") == Errors(1, 3)
    assert errors("你好，世界", "你好世间", "zh") == Errors(1, 4)
    assert errors("", "", "en").rate == 0
    assert errors("", "noise", "en") == Errors(1, 0)


def test_errors_add_up() -> None:
    total = sum([Errors(1, 10), Errors(2, 20)], Errors())
    assert total == Errors(3, 30)
    assert total.rate == 0.1


ENGLISH_SAME = [
    ("Twenty colours!", "20 colors"),
    ("Mr. O'Neil's", "mister oneils"),
    ("I've can't won't", "i have can not will not"),
    ("nineteen oh five", "1905"),
    ("one zero zero one nine", "1-0-0-1-9"),
    ("a hundred and five dollars", "$105"),
    ("$3 million", "three million dollars"),
    ("two hundred point five", "200.5"),
    ("one hundred twenty three thousand four hundred fifty six", "123,456"),
    ("one million two hundred thousand", "1,200,000"),
    ("the twenty first of May", "the 21st of May"),
    ("9 a.m.", "nine am"),
    ("50%", "fifty percent"),
    ("um, travelled", "traveled"),
    ("café", "cafe"),
    ("realise the defence of the centre", "realize the defense of the center"),
    ("[laughter] grey", "gray"),
]


@pytest.mark.parametrize(("a", "b"), ENGLISH_SAME)
def test_english_that_sounds_the_same(a: str, b: str) -> None:
    assert normalise(a, "en") == normalise(b, "en")


@pytest.mark.parametrize(
    ("a", "b"), [("four", "for"), ("filling", "filing"), ("calls", "call"), ("1905", "1950"), ("3.5", "35")]
)
def test_english_that_differs(a: str, b: str) -> None:
    assert normalise(a, "en") != normalise(b, "en")


CHINESE_SAME = [
    ("二十九度", "29度"),
    ("29°C", "二十九度"),
    ("二零一九年", "2019年"),
    ("一三一零八三七三幺四八", "131 0837 3148"),
    ("三十万五千三百三十四", "305,334"),
    ("一点五倍", "1.5倍"),
    ("百分之五十", "50%"),
    ("十个", "10个"),
    ("一百一十", "110"),
    ("两千零五", "2005"),
    ("一万零五十", "10050"),
    ("十万", "100000"),
    ("零点三三", "0.33"),
    ("零", "0"),
    ("电脑软体", "電腦，軟體！"),
    ("三点三十", "3:30"),
    ("〇〇七", "007"),
    ("我用 Python", "我用python。"),
]


@pytest.mark.parametrize(("a", "b"), CHINESE_SAME)
def test_chinese_that_sounds_the_same(a: str, b: str) -> None:
    assert normalise(a, "zh") == normalise(b, "zh")


@pytest.mark.parametrize(("a", "b"), [("二十九", "二九"), ("十", "百"), ("他", "她")])
def test_chinese_that_differs(a: str, b: str) -> None:
    assert normalise(a, "zh") != normalise(b, "zh")


def test_pairs_of_whispers_normaliser_are_the_same(shared_data: Path) -> None:
    lines = (shared_data / "text" / "whisper_english_normalizer.tsv").read_text("utf-8").splitlines()
    pairs = [line.split("\t")[1:] for line in lines if not line.startswith("#")]
    assert len(pairs) > 30
    assert [(a, b) for a, b in pairs if normalise(a, "en") != normalise(b, "en")] == []
