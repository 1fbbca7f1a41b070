"""Sichuanese on paper: readings, tones, words."""

from __future__ import annotations

import pytest

from stepaudio.tts.text import Pronouncer
from stepaudio.tts.text.mandarin import Mandarin
from stepaudio.tts.text.sichuanese import LEVELS, Sichuanese, reading, syllable
from stepaudio.tts.text.tones import Tone


@pytest.fixture(scope="module")
def sichuanese() -> Sichuanese:
    return Sichuanese(Mandarin())


@pytest.fixture(scope="module")
def pronouncer() -> Pronouncer:
    return Pronouncer()


@pytest.mark.parametrize(
    ("pinyin", "jyutping", "chengdu"),
    [
        ("zhong1", "zung1", "zong1"),  # no retroflexes
        ("shi4", "si6", "si4"),
        ("ren2", "jan4", "ren2"),
        ("ming2", "ming4", "min2"),
        ("leng3", "laang5", "len3"),
        ("peng2", "pang4", "pong2"),
        ("nan2", "naam4", "lan2"),
        ("ni3", "nei5", "ni3"),  # before i, n stays
        ("hu2", "wu4", "fu2"),
        ("hua1", "faa1", "hua1"),
        ("lun4", "leon6", "len4"),
        ("ge1", "go1", "go1"),
        ("duo1", "do1", "do1"),
        ("wo3", "ngo5", "uo3"),
        # checked: the second tone, whatever Mandarin made of it, and the old vowels
        ("ba1", "baat3", "ba2"),
        ("xue2", "hok6", "xio2"),
        ("jiao3", "goek3", "jio2"),
        ("bai2", "baak6", "bê2"),
        ("bei3", "bak1", "bê2"),
        ("ke4", "haak3", "kê2"),
        ("he1", "hot3", "ho2"),
        ("guo2", "gwok3", "guê2"),
        ("se4", "sik1", "sê2"),
        ("yue4", "jyut6", "ve2"),
        ("", "", ""),
    ],
)
def test_rules(pinyin: str, jyutping: str, chengdu: str) -> None:
    assert reading(pinyin, jyutping) == chengdu


def test_rules_can_be_left_out() -> None:
    assert reading("zhong1", "zung1", frozenset()) == "zhong1"
    assert reading("xue2", "hok6", frozenset()) == "xve2"
    assert syllable("xve2").phonemes == "ɕɥe↗"


@pytest.mark.parametrize(
    ("spelt", "phonemes", "carried_by"),
    [
        ("ma1", "ma→", "a→"),
        ("bê2", "pɛ↗", "ɛ↗"),
        ("qv4", "ʨʰy↗", "y↗"),
        ("qu4", "ʨʰy↗", "y↗"),
        ("si4", "sɨ↗", "ɨ↗"),
        ("guê2", "kwɛ↗", "wɛ↗"),
        ("den3", "tə↓n", "ə↓n"),
        ("er2", "ɚ↗", "ɚ↗"),
    ],
)
def test_phonemes(spelt: str, phonemes: str, carried_by: str) -> None:
    found = syllable(spelt)
    assert found.phonemes == phonemes
    assert found.tone == Tone(phonemes.index(carried_by), len(phonemes), LEVELS[spelt[-1]])


def test_what_is_no_syllable() -> None:
    assert syllable("").phonemes == ""
    assert syllable("").tone is None


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("我想买米", "uo3 xiang3 mai3 mi3"),  # third tones do not change
        ("一个不对", "i2 go4 bu2 duei4"),  # nor do 一 and 不
        ("妈妈", "ma1 ma1"),
        ("爷爷", "ie2 ie1"),
        ("奶奶", "lai3 lai2"),
        ("弟弟", "di4 di1"),
        ("做啥子", "zu4 sa4 zi3"),
        ("巴适得很", "ba1 si4 dê2 hen3"),
        ("晓得", "xiao3 dê2"),
        ("东西", "dong1 xi1"),  # no neutral tone
        ("好的", "hao3 di2"),
        ("银行", "in2 hang2"),
    ],
)
def test_sentences(sichuanese: Sichuanese, text: str, readings: str) -> None:
    assert " ".join(sichuanese.readings(text, 0, len(text))) == readings


def test_words_of_its_own_are_said_when_asked_for(pronouncer: Pronouncer) -> None:
    assert pronouncer.speakable("他不知道什么？", dialect="cmn-sichuan") == "他不晓得啥子？"
    assert Pronouncer(colloquial=False).speakable("他不知道什么？", dialect="cmn-sichuan") == "他不知道什么？"
    assert pronouncer.speakable("他不知道什么？") == "他不知道什么？"


def test_tones_lie_on_their_rimes(pronouncer: Pronouncer) -> None:
    words = pronouncer.pronounce("你知道25吗？ OK", "zh", dialect="cmn-sichuan")
    assert [word.written for word in words] == ["你", "知道", "25", "吗", "OK"]
    carried = [[(word.phonemes[t.begin : t.end], t.levels) for t in word.tones] for word in words]
    assert carried == [
        [("i↓", (5, 3))],
        [("jau↓", (5, 3)), ("ɛ↗", (2, 1))],
        [("ɚ↗", (2, 1, 3)), ("ɨ↗", (2, 1)), ("u↓", (5, 3))],
        [("a↗", (2, 1))],
        [],
    ]


def test_mandarin_has_no_drawn_tones(pronouncer: Pronouncer) -> None:
    assert [word.tones for word in pronouncer.pronounce("你好", "zh")] == [(), ()]
