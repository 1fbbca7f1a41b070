"""How something is to be spoken: as data, and as the tags that language models write.

What a voice can truly do of it, its ``Capabilities`` say. The names of tags are those that Step-Audio was
trained to write (its report, section on the tags of TTS; Chinese), and their English ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True, slots=True)
class SpeechStyle:
    """A manner of speaking; ``None`` means not said: inherit.

    Attributes:
        emotion: canonical English key.
        intensity: 1..3.
        dialect: BCP-47-like: "en", "cmn", "cmn-sichuan", "yue".
        mode: how the voice is used.
        speed: 1.0 is as trained; 2.0 is twice as fast.
        pitch: semitones up.
        volume: dB.
        emphasis: -1 reduced, 1 moderate, 2 strong.
        pitch_range: how far the melody goes up and down; 1.0 is as trained, 0 is one tone.
        voice: id of the voice to speak with.
    """

    emotion: str | None = None
    intensity: int | None = None
    dialect: str | None = None
    mode: Literal["speak", "whisper", "rap", "hum", "sing"] | None = None
    speed: float | None = None
    pitch: float | None = None
    volume: float | None = None
    emphasis: int | None = None
    pitch_range: float | None = None
    voice: str | None = None

    def over(self, base: SpeechStyle) -> SpeechStyle:
        """This style, its gaps filled from ``base``."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return SpeechStyle(**{k: getattr(base, k) if v is None else v for k, v in own.items()})


TAGS: Mapping[str, SpeechStyle] = {
    "高兴": SpeechStyle(emotion="happy"),
    "happy": SpeechStyle(emotion="happy"),
    "生气": SpeechStyle(emotion="angry"),
    "angry": SpeechStyle(emotion="angry"),
    "悲伤": SpeechStyle(emotion="sad"),
    "sad": SpeechStyle(emotion="sad"),
    "撒娇": SpeechStyle(emotion="coquettish"),
    "coquettish": SpeechStyle(emotion="coquettish"),
    "中文": SpeechStyle(dialect="cmn"),
    "chinese": SpeechStyle(dialect="cmn"),
    "英文": SpeechStyle(dialect="en"),
    "english": SpeechStyle(dialect="en"),
    "韩语": SpeechStyle(dialect="ko"),
    "korean": SpeechStyle(dialect="ko"),
    "日语": SpeechStyle(dialect="ja"),
    "japanese": SpeechStyle(dialect="ja"),
    "四川话": SpeechStyle(dialect="cmn-sichuan"),
    "sichuanese": SpeechStyle(dialect="cmn-sichuan"),
    "粤语": SpeechStyle(dialect="yue"),
    "广东话": SpeechStyle(dialect="yue"),
    "cantonese": SpeechStyle(dialect="yue"),
    "rap": SpeechStyle(mode="rap"),
    "哼唱": SpeechStyle(mode="hum"),
    "humming": SpeechStyle(mode="hum"),
    "慢速1": SpeechStyle(speed=0.9),
    "慢速2": SpeechStyle(speed=0.75),
    "快速1": SpeechStyle(speed=1.1),
    "快速2": SpeechStyle(speed=1.25),
}
"""What is written in brackets before a text, without the number that says how strongly (1 to 3)."""

_TAG = re.compile(r"\s*[（(]\s*([^()（）]{1,16}?)\s*[）)]")


def parse_tags(text: str) -> tuple[SpeechStyle, str]:
    """The tags at the beginning of a text, and the text without them; other brackets are text.

    >>> parse_tags("（四川话）(高兴2)你好")[1]
    '你好'
    """
    style = SpeechStyle()
    while (found := _TAG.match(text)) and (tag := _tag(found[1])) is not None:
        style, text = tag.over(style), text[found.end() :]
    return style, text.lstrip() if style != SpeechStyle() else text


def _tag(name: str) -> SpeechStyle | None:
    known = TAGS.get(name.lower())
    if known is None and name[-1] in "123":
        base = TAGS.get(name[:-1].rstrip().lower())
        known = SpeechStyle(intensity=int(name[-1])).over(base) if base and base.emotion else None
    return known
