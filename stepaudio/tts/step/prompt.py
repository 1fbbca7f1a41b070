"""What TTS-3B's language model is shown, and which decoder its codes go to. Pure: text and numbers only.

A prompt is a short talk: a system turn that says how to read, one example (the text and the codes of a
recording of the voice), and the text to be spoken, whose codes the model then writes::

    <s> [system] [human: example's text] [assistant: example's codes] [human: text] [assistant:

A tag in brackets at the very start can decide the route: RAP and 哼唱 (humming) take another system turn, the
voice's example of that manner, and the decoder that was trained on music. All other tags are the model's
affair. Layout and sentences are those that the checkpoint was trained with (Step-Audio, ``tts.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stepaudio.core.codes import FIRST_ID, MERGED_CODES
from stepaudio.core.errors import CodesError, unknown
from stepaudio.core.style import SpeechStyle

START, END_OF_TURN, BEGIN_OF_TURN = 1, 3, 4
"""Token ids ``<s>``, ``<|EOT|>`` (which also ends what the model writes) and ``<|BOT|>``."""

RAP, HUM = "RAP", "哼唱"
MANNERS = (RAP, HUM)
"""Tags that choose example and decoder."""

RAP_SYSTEM = "请参考对话历史里的音色，用RAP方式将文本内容大声说唱出来。"
HUM_SYSTEM = "请参考对话历史里的音色，用哼唱的方式将文本内容大声唱出来。"
_SPEAK_SYSTEM = """作为一名卓越的声优演员，\
你的任务是根据文本中（）或()括号内标注的情感、语种或方言、音乐哼唱、\
语音调整等标签，以丰富细腻的情感和自然顺畅的语调来朗读文本。
# 情感标签涵盖了多种情绪状态，包括但不限于：
- "高兴1"
- "高兴2"
- "生气1"
- "生气2"
- "悲伤1"
- "撒娇1"

# 语种或方言标签包含多种语言或方言，包括但不限于：
- "中文"
- "英文"
- "韩语"
- "日语"
- "四川话"
- "粤语"
- "广东话"

# 音乐哼唱标签包含多种类型歌曲哼唱，包括但不限于：
- "RAP"
- "哼唱"

# 语音调整标签，包括但不限于：
- "慢速1"
- "慢速2"
- "快速1"
- "快速2"

请在朗读时，{as_speaker}根据这些情感标签的指示，调整你的情感、语气、语调和哼唱节奏，以确保文本的情感和意义得到准确而生动的传达，\
如果没有()或（）括号，则根据文本语义内容自由演绎。"""

_LEADING_TAG = re.compile(r"[（(]([^()]*)[）)]")
"""Greedy, and only ASCII brackets end it early: ``（a）（b）`` is one tag, which is then none that counts."""

Encode = Callable[[str], Sequence[int]]
"""Text -> token ids, nothing added."""
Decoder = Literal["speech", "music"]


@dataclass(frozen=True, slots=True)
class Example:
    """A recording, as the language model is shown it.

    Attributes:
        text: what is said in it, word for word.
        codes: its merged codes, 0..5119.
    """

    text: str
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptVoice:
    """A voice, as the language model knows it.

    Attributes:
        name: of a speaker whom the model was trained on; "" for a cloned voice.
        examples: by manner: "" for speech, ``RAP``, ``HUM``. A cloned voice has one, which serves for all.
    """

    name: str
    examples: Mapping[str, Example]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a text is to be spoken.

    Attributes:
        ids: the prompt of the language model.
        manner: key of the example that was used; it prompts the decoder, too.
        decoder: which one makes sound of the codes.
    """

    ids: tuple[int, ...]
    manner: str
    decoder: Decoder


def leading_tag(text: str) -> str:
    """What stands in brackets at the very start, "" where nothing does."""
    found = _LEADING_TAG.match(text)
    return found[1] if found else ""


def system_prompt(text: str, speaker: str = "") -> str:
    """The system turn for a text, which may name a speaker that the model knows."""
    if leading_tag(text) in MANNERS:
        return HUM_SYSTEM if HUM in text else RAP_SYSTEM  # anywhere in it: as the reference decides
    return _SPEAK_SYSTEM.format(as_speaker=f"使用[{speaker}]的声音，" if speaker else "")


def layout(encode: Encode, text: str, example: Example, speaker: str = "") -> tuple[int, ...]:
    """The prompt's token ids."""

    def spoken(words: str) -> list[int]:
        """Ids of a text within its turn, without what the tokenizer puts before a text's first word."""
        return list(encode("\n" + words)[len(encode("\n")) :])

    human, assistant = encode("human\n"), encode("assistant\n")
    example_ids = [FIRST_ID + code for code in example.codes]
    turn, end = BEGIN_OF_TURN, END_OF_TURN
    return (
        *(START, turn, *encode("system\n" + system_prompt(text, speaker)), end),
        *(turn, *human, *spoken(example.text), end, turn, *assistant, *example_ids, end),
        *(turn, *human, *spoken(text), end, turn, *assistant),
    )


def plan(encode: Encode, text: str, voice: PromptVoice) -> Plan:
    """Prompt and route of a text in a voice.

    Raises:
        ConfigError: the text asks for a manner that this voice has no example of.
    """
    tag = leading_tag(text)
    music = tag in MANNERS
    manner = tag if music and voice.name else ""
    if manner not in voice.examples:
        raise unknown(f"manner of {voice.name}", manner or "speech", [m or "speech" for m in voice.examples])
    ids = layout(encode, text, voice.examples[manner], voice.name)
    return Plan(ids, manner, "music" if music else "speech")


def code_of(token: int) -> int:
    """The merged code of a token id.

    Raises:
        CodesError: the token is text, or none at all.
    """
    if not FIRST_ID <= token < FIRST_ID + MERGED_CODES:
        raise CodesError(
            f"the language model wrote token {token} where a code should stand ({FIRST_ID} to "
            f"{FIRST_ID + MERGED_CODES - 1}): is it Step-Audio-TTS-3B?"
        )
    return token - FIRST_ID


_EMOTIONS = {"happy": "高兴", "angry": "生气", "sad": "悲伤", "playful": "撒娇"}
_DIALECTS = {
    "cmn": "中文",
    "en": "英文",
    "ko": "韩语",
    "ja": "日语",
    "cmn-sichuan": "四川话",
    "yue": "粤语",
}
_LEVELS = {"高兴": 2, "生气": 2, "悲伤": 1, "撒娇": 1}
"""The strengths that the system prompt lists."""
_MANNERS = {"rap": RAP, "hum": HUM, "sing": HUM}
FASTER = 1.25
"""From this factor on (or its inverse) the second level of speed is asked for."""


def tagged(text: str, style: SpeechStyle) -> str:
    """The text with the tags of a style before it, in the order that the model was trained on.

    What the model has no tag for is left out. RAP and humming stand alone: other tags beside them are not
    obeyed.
    """
    if manner := _MANNERS.get(style.mode or ""):
        return f"（{manner}）{text}"
    tags = []
    if emotion := _EMOTIONS.get(style.emotion or ""):
        tags.append(f"{emotion}{min(style.intensity or 1, _LEVELS[emotion])}")
    if dialect := _DIALECTS.get(style.dialect or "", _DIALECTS.get((style.dialect or "").partition("-")[0])):
        tags.append(dialect)
    speed = style.speed or 1.0
    if speed != 1:
        level = 2 if max(speed, 1 / speed) >= FASTER else 1
        tags.append(f"{'快速' if speed > 1 else '慢速'}{level}")
    return "".join(f"（{tag}）" for tag in tags) + text
