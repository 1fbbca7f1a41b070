"""What people ask of the manner of an answer, and what they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio.core.conversation import Message
from stepaudio.core.style import NO_STYLE, SpeechStyle
from stepaudio.core.wishes import granted, wish

SING, RAP, HUM, WHISPER = (SpeechStyle(mode=mode) for mode in ("sing", "rap", "hum", "whisper"))
SAD, HAPPY = SpeechStyle(emotion="sad"), SpeechStyle(emotion="happy")
SICHUAN, YUE = SpeechStyle(dialect="cmn-sichuan"), SpeechStyle(dialect="yue")


@pytest.mark.parametrize(
    ("said", "style"),
    [
        ("Sing me happy birthday.", SING),
        ("Could you please sing a song about the sea?", SING),
        ("Hello! Can you sing something for me?", SING),
        ("Okay, now rap about cats", RAP),
        ("Hum a tune.", HUM),
        ("Please whisper a secret to me.", WHISPER),
        ("Say sorry in a sad voice.", SAD),
        ("Tell me a joke in a very happy tone, please.", HAPPY),
        ("Speak slowly, please.", SpeechStyle(speed=0.75)),
        ("Say hello in Sichuanese", SICHUAN),
        ("给我唱一首生日快乐歌。", SING),
        ("你能唱首歌吗", SING),
        ("来一段关于猫的说唱", RAP),
        ("请你说一段rap", RAP),
        ("哼一首曲子", HUM),
        ("悄悄地告诉我一个秘密", WHISPER),
        ("用四川话跟我打个招呼", SICHUAN),
        ("用粤语说早上好", YUE),
        ("请用高兴的语气说你好", HAPPY),
    ],
)
def test_wishes(said: str, style: SpeechStyle) -> None:
    assert wish(said) == style


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Who sings this song?",
        "What is rap music?",
        "Rap is a kind of music, is it not?",
        "Do birds sing in the morning?",
        "Tell me about the sad history of the Titanic.",
        "What is the capital of France?",
        "How do you say good morning in Japanese culture?",
        "Talk about in what year the war ended.",
        "谁唱了这首歌？",
        "这首歌是谁唱的",
        "说唱是什么时候开始的？",
        "四川话和普通话有什么区别？",
        "用水洗手",
        "(sing) hello",
    ],
)
def test_what_is_no_wish(said: str) -> None:
    assert wish(said) == NO_STYLE


@given(st.text(max_size=400))
def test_whatever_is_said(said: str) -> None:
    wish(said)


def test_a_songwriter_replaces_the_services_own_instructions() -> None:
    messages = [Message("system", "own"), Message("user", "hi"), Message("assistant", "hey")]
    asked, style = granted([*messages, Message("user", "Rap about cats")], "own")
    assert style == RAP
    assert [m.role for m in asked] == ["system", "user", "assistant", "user"]
    assert "rap" in asked[0].text
    assert asked[-1].text == "Rap about cats"


def test_instructions_of_the_client_stay() -> None:
    asked, _ = granted([Message("system", "Be kind."), Message("user", "唱首歌")], "own")
    assert [m.text for m in asked[:1]] == ["Be kind."]
    assert "歌词" in asked[1].text


def test_a_voice_alone_changes_nothing_of_the_conversation() -> None:
    messages = [Message("system", "own"), Message("user", "Say sorry in a sad voice.")]
    assert granted(messages, "own") == (messages, SAD)
    assert granted(messages[:1], "own") == (messages[:1], NO_STYLE)
    assert granted([], "own") == ([], NO_STYLE)
