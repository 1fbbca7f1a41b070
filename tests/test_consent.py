"""The consent to a cloned voice: what is read, what a recogniser hears, and what is another sentence."""

from __future__ import annotations

import pytest

from stepaudio.core import consent
from stepaudio.core.consent import ConsentRequest
from stepaudio.core.errors import AudioError, ConfigError

EN = ConsentRequest("en", "7248", 1000.0)
ZH = ConsentRequest("zh", "7248", 1000.0)


def test_what_is_to_be_read() -> None:
    assert EN.phrase == (
        "I agree that Step Audio makes a synthetic voice from my recording. My code is seven two four eight."
    )
    assert ZH.phrase == "我同意用我的录音制作合成声音。我的验证码是七二四八。"


def test_a_code_is_drawn_digit_by_digit() -> None:
    drawn = iter("2939")
    request = consent.ask("en", 5.0, lambda letters: next(drawn))
    assert (request.code, request.asked_s) == ("2939", 5.0)
    with pytest.raises(ConfigError, match="en, zh"):
        consent.ask("fr", 5.0, lambda letters: letters[0])


@pytest.mark.parametrize(
    ("request_", "heard"),
    [
        (EN, EN.phrase),
        (EN, "I agree that Step Audio makes a synthetic voice from my recording. My code is 7248."),
        (EN, "I agree that step all you make a synthetic voice from my recording, my code is 7, 2, 4, 8"),
        (
            EN,
            "I agree that Step Audio makes a synthetic voice for my recording, my code is seven to for ate.",
        ),
        (ZH, ZH.phrase),
        (ZH, "我同意用我的录音制作合成声音,我的验证码是7248"),
        (ZH, "我同意用我的录音制作合成生音我的验证马是7 2 4 8。"),
    ],
)
def test_what_a_recogniser_makes_of_it_is_taken(request_: ConsentRequest, heard: str) -> None:
    consent.check(request_, heard, 1060.0)


@pytest.mark.parametrize(
    ("request_", "heard", "says"),
    [
        (EN, "The birch canoe slid on the smooth planks.", "another sentence"),
        (EN, "", "another sentence"),
        (EN, "7248", "another sentence"),
        *(
            (
                EN,
                f"{start} Step Audio makes a synthetic voice from my recording. My code is 7248.",
                "another sentence",
            )
            for start in (
                "I do not agree that",
                "I don't agree that",
                "I don’t agree that",
                "I never agree that",
                "I disagree that",
                "I refuse that",
                "I agree that nobody but",
                "He agrees that",
            )
        ),
        *(
            (ZH, ZH.phrase.replace("我同意", start), "another sentence")
            for start in ("我不同意", "我反对", "我没同意", "我拒绝", "他同意")
        ),
        (EN, "I do not want anybody to make a voice of me. My code is 7248.", "another sentence"),
        (
            EN,
            "I agree that Step Audio makes a synthetic voice from my recording. My code is 7249.",
            "another code",
        ),
        (EN, "I agree that Step Audio makes a synthetic voice from my recording.", "another code"),
        (EN, "我同意用我的录音制作合成声音。我的验证码是七二四八。", "another sentence"),
        (ZH, "今天的天气很好，我们一起去公园。七二四八", "another sentence"),
        (ZH, "我同意用我的录音制作合成声音。我的验证码是七二四九。", "another code"),
    ],
)
def test_another_sentence_or_code_is_refused_and_the_right_one_named(
    request_: ConsentRequest, heard: str, says: str
) -> None:
    with pytest.raises(AudioError, match=says) as error:
        consent.check(request_, heard, 1060.0)
    assert request_.phrase in str(error.value)


def test_it_must_be_given_within_a_day() -> None:
    consent.check(EN, EN.phrase, 1000.0 + 24 * 3600)
    with pytest.raises(ConfigError, match="stepaudio voices consent"):
        consent.check(EN, EN.phrase, 1001.0 + 24 * 3600)
