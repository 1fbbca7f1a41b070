"""Words with their phonemes: in the alphabet of the voices, traced to the text, whatever is written."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from stepaudio.tts.text import Pronouncer, SpokenWord, phonemes
from stepaudio.tts.text.mandarin import Mandarin, ipa
from stepaudio.tts.text.pronouncer import ALPHABET


@pytest.fixture(scope="module")
def pronouncer() -> Pronouncer:
    return Pronouncer()


@pytest.fixture(scope="module")
def mandarin() -> Mandarin:
    return Mandarin()


def test_english_words(pronouncer):
    assert pronouncer.pronounce("It costs $3.50, really!") == (
        SpokenWord("It", "It", "ˌɪt ", "en"),
        SpokenWord("costs", "costs", "kˈɔsts ", "en"),
        SpokenWord("$3.50", "three dollars fifty cents,", "θɹˈi dˈɑləɹz fˈɪfti sˈɛnts, ", "en"),
        SpokenWord("really", "really!", "ɹˈiᵊli!", "en"),
    )


def test_chinese_characters(pronouncer):
    words = pronouncer.pronounce("你好，2个世界。")
    assert [word.written for word in words] == ["你", "好", "2", "个", "世", "界"]
    assert [word.spoken for word in words] == ["你", "好,", "两", "个", "世", "界."]
    assert phonemes(words) == "ni↗xau↓, lja↓ŋkɤ↘ ʂɨ↘ʨje↘."


def test_both_languages_in_one_sentence(pronouncer):
    words = pronouncer.pronounce("我用GPT-4写")
    assert [(word.written, word.language) for word in words] == [
        ("我", "zh"),
        ("用", "zh"),
        ("GPT", "en"),
        ("4", "zh"),
        ("写", "zh"),
    ]
    assert phonemes(words) == "wo↓jʊ↘ŋ ʤˌipˌitˈi sɨ↘ɕje↓"


def test_accents(pronouncer):
    american, british = (phonemes(pronouncer.pronounce("a hot bath", accent=a)) for a in ("en-US", "en-GB"))
    assert american == "ɐ hˈɑt bˈæθ"
    assert british == "ɐ hˈɒt bˈɑːθ"


@pytest.mark.parametrize(
    ("text", "word", "sounds"),
    [
        ("I read it yesterday", "read", "ɹˈɛd"),
        ("I will read it", "read", "ɹˈid"),
        ("They live here", "live", "lˈɪv"),
        ("A live show", "live", "lˈIv"),
        ("Class A321", "A321", "ˈA θɹˈi twˈɛnti wˈʌn"),
        ("the FBI", "FBI", "ˌɛfbˌiˈI"),
        ("NASA", "NASA", "nˈæsə"),
        ("J. K. Rowling's", "J.", "ʤˈA"),
    ],
)
def test_english_in_context(pronouncer, text, word, sounds):
    found = {w.written: w.phonemes.strip() for w in pronouncer.pronounce(text)}
    assert found[word] == sounds


@pytest.mark.parametrize(
    ("pinyin", "sounds"),
    [
        ("liang3", "lja↓ŋ"),
        ("zhi1", "ꭧɨ→"),
        ("shi5", "ʂɨ"),
        ("xue2", "ɕɥe↗"),
        ("jun4", "ʨy↘n"),
        ("lv4", "ly↘"),
        ("dui4", "twei↘"),
        ("wo3", "wo↓"),
        ("bo1", "pwo→"),
        ("er2", "ɚ↗"),
        ("yuan2", "ɥɛ↗n"),
        ("o5", "ɔ"),
        ("?", ""),
        ("", ""),
    ],
)
def test_syllables(pinyin, sounds):
    assert ipa(pinyin) == sounds


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("银行行长在行走", "yin2 hang2 hang2 zhang3 zai4 xing2 zou3"),
        ("长大的长度", "zhang3 da4 de5 chang2 du4"),
        ("重庆很重要", "chong2 qing4 hen3 zhong4 yao4"),
        ("他还没有还我的书", "ta1 hai2 mei2 you3 huan2 wo3 de5 shu1"),
        ("我做不了了", "wo3 zuo4 bu4 liao3 le5"),
        ("他跑得快", "ta1 pao3 de5 kuai4"),
        ("你得赶紧走", "ni2 dei2 gan2 jin3 zou3"),
        ("他得了奖", "ta1 de2 le5 jiang3"),
        ("请任先生上任", "qing3 ren2 xian1 sheng5 shang4 ren4"),
        ("一零一一二一", "yi1 ling2 yi1 yi1 er4 yi1"),
        ("慢慢地走在土地上", "man4 man4 de5 zou3 zai4 tu3 di4 shang4"),
        ("不是不好", "bu2 shi4 bu4 hao3"),
        ("一个一起一直第一", "yi2 ge4 yi4 qi3 yi4 zhi2 di4 yi1"),
        ("看一看是不是", "kan4 yi5 kan4 shi4 bu5 shi4"),
        ("你好我很好", "ni2 hao3 wo2 hen2 hao3"),
        ("朋友的东西", "peng2 you5 de5 dong1 xi5"),
    ],
)
def test_readings(mandarin, text, readings):
    assert mandarin.readings(text, 0, len(text)) == readings.split()


def test_a_clause_begins_after_a_wide_comma(mandarin):
    assert mandarin.readings("好，得到了。", 2, 5) == ["de2", "dao4", "le5"]


def test_traditional_script_reads_like_simplified(pronouncer):
    assert phonemes(pronouncer.pronounce("銀行行長還書")) == phonemes(pronouncer.pronounce("银行行长还书"))


def test_polyphones_of_real_sentences(mandarin, shared_data: Path, monkeypatch):
    """Measured: 0.925; the phrase dictionary of pypinyin alone 0.80."""
    monkeypatch.setattr("stepaudio.tts.text.mandarin.sandhi", lambda text, readings, starts: readings)
    lines = (shared_data / "text" / "polyphone_cpp_zh.tsv").read_text("utf-8").splitlines()[1:]
    right = []
    for sentence, _, place, reading in (line.split("\t") for line in lines):
        run = next(m for m in re.finditer("[㐀-鿿]+", sentence) if m.start() <= int(place) < m.end())
        found = mandarin.readings(sentence, *run.span())[int(place) - run.start()]
        right.append(found == reading.replace("u:", "v"))
    assert sum(right) / len(right) >= 0.91


# --- whatever is written -------------------------------------------------------------------------------


def check(pronouncer: Pronouncer, text: str) -> None:
    """What must hold for any text."""
    words = pronouncer.pronounce(text)
    at = 0
    for word in words:
        at = text.index(word.written, at) + len(word.written)  # in order, nothing twice
        assert word.written and word.spoken, word
        assert word.language in ("en", "zh")
        assert not re.search(r"[\d$€£¥%&@#/*+=<>_\\^~|{}\[\]]", word.spoken), word
        assert set(word.phonemes) <= ALPHABET
    assert bool(words) == bool(pronouncer.speakable(text))
    assert not phonemes(words).endswith(" ")


_BITS = [
    *"abcXYZ 0123456789.,:;!?-–—/\\$£€¥%°@#&*_~`'\"()[]{}<>|^=+\n\t",
    *"你好年月日第两个，。！？：、（）《》“”％",
    *[
        "\ud800",
        "\u200b",
        "\x00",
        "😀",
        "é",
        "ß",
        "İ",
        "ǅ",
        "α",
        "Ж",
        "한",
        "の",
        "½",
        "²",
        "①",
        "㍿",
        "Ⅷ",
        "٣",
        "\u0301",
    ],
    *[
        "st",
        "th",
        "http://",
        "www.",
        ".com",
        "am",
        "p.m.",
        "Dr.",
        "St. ",
        " km/h",
        "GB",
        "million",
        "Jan ",
        " 5 ",
        "2024",
    ],
    *[
        "$x$",
        "\\frac{",
        "<b",
        "&amp;",
        "```",
        "**",
        "# ",
        "- ",
        "[a](b)",
        ":smile:",
        "了",
        "得",
        "一",
        "不",
        "儿",
    ],
]


def test_any_text_is_read(pronouncer):
    chance = random.Random(7)
    for _ in range(400):
        check(pronouncer, "".join(chance.choice(_BITS) for _ in range(chance.randint(1, 40))))


@pytest.mark.parametrize(
    "bit",
    [
        "1",
        "a",
        "a-",
        "a'",
        "1.",
        "-",
        "(",
        '"',
        "[a](",
        "<",
        "你",
        "一",
        "aB1",
        "a.",
        "\\a",
        "😀",
        "**",
        "|-",
        "  \n",
        "$1",
        "1/",
        "我a",
    ],
)
def test_long_texts_end(pronouncer, bit):
    """What makes careless patterns explode: those would not end in a day."""
    pronouncer.speakable((bit * 20_000)[:20_000])
    pronouncer.pronounce((bit * 1_500)[:1_500])


def test_words_of_a_text_are_all_said(pronouncer):
    text = "On **Monday**, [John's](http://x.y) 3 dogs ate $2.50 (really) & 你好世界 at 5 p.m."
    written = [word.written for word in pronouncer.pronounce(text)]
    assert written == [
        "On",
        "Monday",
        "John's",
        "3",
        "dogs",
        "ate",
        "$2.50",
        "really",
        "&",
        *"你好世界",
        "at",
        "5 p.m.",
    ]


def test_alphabet_is_the_one_of_the_voice(model_dir):
    vocabulary = json.loads((model_dir("kokoro-82m") / "vocab.json").read_text("utf-8"))["vocab"]
    assert set(vocabulary) == ALPHABET
