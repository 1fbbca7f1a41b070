"""What TTS-3B is shown: layout, tags, routes. The reference's own prompts: tests/parity_tts.py."""

from __future__ import annotations

import pytest

from stepaudio.core.errors import CodesError, ConfigError
from stepaudio.core.style import SpeechStyle
from stepaudio.tts.step.prompt import (
    HUM,
    HUM_SYSTEM,
    RAP,
    RAP_SYSTEM,
    Example,
    PromptVoice,
    code_of,
    layout,
    leading_tag,
    plan,
    system_prompt,
    tagged,
)


def encode(text: str) -> list[int]:
    """Like SentencePiece: a piece of its own before the text."""
    return [9, *text.encode()]


TINGTING = PromptVoice(
    "Tingting", {"": Example("a", (0, 1)), RAP: Example("（RAP）b", (2,)), HUM: Example("（哼唱）c", (3,))}
)
CLONE = PromptVoice("", {"": Example("hello", (7,))})


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("(RAP)x", "RAP"),
        ("（RAP)x", "RAP"),
        ("（四川话）\n你好", "四川话"),
        ("()x", ""),
        ("x (RAP)", ""),
        (" (RAP)x", ""),
        ("(RAP", ""),
        ("((RAP))x", ""),
        ("（悲伤1）（RAP）x", "悲伤1）（RAP"),
    ],
)
def test_only_a_tag_at_the_very_start_counts(text: str, tag: str):
    assert leading_tag(text) == tag


def test_the_layout_sign_by_sign():
    ids = layout(encode, "hi", Example("ab", (0, 5119)), "")
    system = encode("system\n" + system_prompt("hi"))
    human, assistant = encode("human\n"), encode("assistant\n")
    text, target = list(b"ab"), list(b"hi")
    assert list(ids) == [
        *(1, 4, *system, 3),
        *(4, *human, *text, 3, 4, *assistant, 65536, 70655, 3),
        *(4, *human, *target, 3, 4, *assistant),
    ]


@pytest.mark.parametrize(
    ("text", "voice", "manner", "decoder", "system"),
    [
        ("hi", TINGTING, "", "speech", "使用[Tingting]的声音"),
        ("(高兴1)hi", TINGTING, "", "speech", "使用[Tingting]的声音"),
        ("(RAP)hi", TINGTING, RAP, "music", RAP_SYSTEM),
        ("(哼唱)hi", TINGTING, HUM, "music", HUM_SYSTEM),
        ("(RAP)哼唱", TINGTING, RAP, "music", HUM_SYSTEM),
        ("(rap)hi", TINGTING, "", "speech", "使用[Tingting]的声音"),
        ("(RAP)hi", CLONE, "", "music", RAP_SYSTEM),
        ("hi", CLONE, "", "speech", "请在朗读时，根据"),
    ],
)
def test_a_tag_chooses_example_decoder_and_system_turn(text, voice, manner, decoder, system):
    found = plan(encode, text, voice)
    assert (found.manner, found.decoder) == (manner, decoder)
    assert system in system_prompt(text, voice.name)
    assert found.ids == layout(encode, text, voice.examples[manner], voice.name)


def test_a_manner_without_an_example_is_said():
    with pytest.raises(ConfigError, match="no manner of Anna named 'RAP'"):
        plan(encode, "(RAP)hi", PromptVoice("Anna", {"": Example("a", (1,))}))


def test_tokens_that_are_no_codes_are_refused():
    assert [code_of(t) for t in (65536, 70655)] == [0, 5119]
    for token in (3, 65535, 70656):
        with pytest.raises(CodesError, match=f"token {token}"):
            code_of(token)


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (SpeechStyle(), "x"),
        (SpeechStyle(emotion="happy", intensity=3), "（高兴2）x"),
        (
            SpeechStyle(emotion="sad", intensity=2, dialect="cmn-sichuan", speed=1.1),
            "（悲伤1）（四川话）（快速1）x",
        ),
        (SpeechStyle(speed=0.7), "（慢速2）x"),
        (SpeechStyle(emotion="bored", dialect="fr"), "x"),
        (SpeechStyle(mode="rap", emotion="happy"), "（RAP）x"),
        (SpeechStyle(mode="sing"), "（哼唱）x"),
    ],
)
def test_styles_become_the_tags_that_the_model_knows(style: SpeechStyle, text: str):
    assert tagged("x", style) == text
