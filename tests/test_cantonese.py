"""Cantonese on paper: Jyutping, phonemes, tones, words."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepaudio.tts.text import Pronouncer
from stepaudio.tts.text.cantonese import CHECKED, LEVELS, jyutping, syllable, traditional
from stepaudio.tts.text.pronouncer import ALPHABET
from stepaudio.tts.text.tones import Tone

SENTENCES = Path(__file__).parents[2] / "shared" / "data" / "text" / "jyutping_yue.tsv"


@pytest.fixture(scope="module")
def pronouncer() -> Pronouncer:
    return Pronouncer()


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("我哋去飲茶", "ngo5 dei6 heoi3 jam2 caa4"),
        ("我们去饮茶", "ngo5 mun4 heoi3 jam2 caa4"),  # either script
        ("音樂快樂", "jam1 ngok6 faai3 lok6"),  # by the word
        ("唔該", "m4 goi1"),
        ("好OK", "hou2  "),
    ],
)
def test_readings(text: str, readings: str) -> None:
    assert jyutping(text) == readings.split(" ")


@pytest.mark.parametrize(
    ("spelt", "phonemes", "carried_by"),
    [
        ("hou2", "xou↗", "ou↗"),
        ("heoi3", "xøy→", "øy→"),
        ("ngo5", "ŋɔ↗", "ɔ↗"),
        ("jyut6", "y→t", "y→"),
        ("gwok3", "kwɔ→k", "ɔ→"),
        ("sik1", "sɪ→k", "ɪ→"),
        ("zoeng1", "ʦœ→ŋ", "œ→ŋ"),
        ("m4", "m↘", "m↘"),
        ("ng5", "ŋ↗", "ŋ↗"),
    ],
)
def test_phonemes(spelt: str, phonemes: str, carried_by: str) -> None:
    found = syllable(spelt)
    assert found.phonemes == phonemes
    begin = phonemes.index(carried_by)
    length = CHECKED if spelt[-2] in "ptk" else 1.0
    assert found.tone == Tone(begin, begin + len(carried_by), LEVELS[spelt[-1]], length)


def test_every_syllable_can_be_said() -> None:
    initials = [*"b p m f d t n l g k ng h gw kw w z c s j".split(), ""]
    finals = (
        "aa aai aau aam aan aang aap aat aak ai au am an ang ap at ak e ei eng ek i iu im in ing ip it ik "
        "o oi ou on ong ot ok u ui un ung ut uk oe oeng oek eoi eon eot yu yun yut"
    ).split()
    for initial in initials:
        for final in finals:
            found = syllable(f"{initial}{final}1")
            assert found.phonemes, initial + final
            assert set(found.phonemes) <= ALPHABET
    assert syllable("xyz").phonemes == syllable("").phonemes == ""


def test_characters_stay_as_many() -> None:
    assert traditional("头发发展") == "頭髮發展"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("我们明天去看电影。", "我哋聽日去睇戲。"),
        ("他不是我的朋友。", "佢唔係我嘅朋友。"),
        ("这个东西多少钱？", "呢個嘢幾多錢？"),
        ("谢谢，再见！", "多謝，再见！"),
        # whole words only
        ("目的地不过是广州。", "目的地不过係广州。"),
        ("今天没有时间。", "今日没有时间。"),  # 没有 may be aspect: left as it is
        ("我食咗飯喇。", "我食咗飯喇。"),
    ],
)
def test_words_of_its_own(pronouncer: Pronouncer, written: str, said: str) -> None:
    assert pronouncer.speakable(written, dialect="yue") == said
    assert Pronouncer(colloquial=False).speakable(written, dialect="yue") == written


def test_a_word_that_is_exchanged_keeps_what_was_written(pronouncer: Pronouncer) -> None:
    words = pronouncer.pronounce("我们走吧", "zh", dialect="yue")
    assert [(word.written, word.spoken) for word in words] == [("我们", "我哋"), ("走", "走"), ("吧", "吧")]
    assert [tone.levels for tone in words[0].tones] == [LEVELS["5"], LEVELS["6"]]


@pytest.mark.skipif(not SENTENCES.is_file(), reason="needs the shared test data")
def test_readings_of_real_sentences() -> None:
    right = total = 0
    for line in SENTENCES.read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        text, expected = line.split("\t")
        wanted = [reading for reading in expected.split() if reading[-1].isdigit()]
        found = [reading for reading in jyutping(text) if reading]
        if len(found) == len(wanted):
            right += sum(a == b for a, b in zip(found, wanted, strict=True))
            total += len(wanted)
    assert total > 1000
    assert right / total > 0.93
