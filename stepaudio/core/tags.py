"""The tags there are: their names, English and Chinese, and what each of them asks for.

One list of names for everything that reads them: the tags in a text (``tagged``), SSML (``ssml``), and
instructions in plain words. The first names are those that Step-Audio-TTS-3B was trained on (its system
prompt: 高兴1 … 快速2); what a name does not say, it leaves as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from stepaudio.core.style import NO_STYLE, SpeechStyle

SPEEDS = (0.5, 2.0)
"""Slowest and fastest; where nobody can be told, what is asked for beyond is brought to the nearest."""
PITCHES = (-7.0, 7.0)
"""Semitones: beyond, the voices no longer sound like themselves (VOICE: overriding)."""
VOLUMES = (-24.0, 12.0)
RANGES = (0.0, 2.0)
PAUSES_MS = (0, 10_000)
PAUSE_MS = 500
"""A pause of which no length is said."""


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tag asks for.

    Attributes:
        names: that it has, the one that messages use first.
        style: how to speak.
        levels: the styles of "name 1", "name 2", "name 3", where the name may have a number.
        around: it goes around words only, as in ``[strong]no[/strong]``.
        reset: back to how the text began.
        closes: it ends what a tag of this name began; that of ``[/]`` has the name "".
        pause_ms, sound, bookmark: as in ``Span``: it stands for a point in the text.
    """

    names: tuple[str, ...]
    style: SpeechStyle = NO_STYLE
    levels: tuple[SpeechStyle, ...] = ()
    around: bool = False
    reset: bool = False
    closes: bool = False
    pause_ms: int | None = None
    sound: str | None = None
    bookmark: str | None = None

    @property
    def name(self) -> str:
        """Its first name."""
        return self.names[0]

    @property
    def is_point(self) -> bool:
        """Whether something happens at its place, rather than from there on."""
        return self.pause_ms is not None or self.sound is not None or self.bookmark is not None


def kinds(style: SpeechStyle) -> dict[str, object]:
    """What a style speaks of, and what it says: an emotion with its strength, a speed, …"""
    said = {f.name: getattr(style, f.name) for f in fields(style) if getattr(style, f.name) is not None}
    if "emotion" in said:
        said["emotion"] = said["emotion"], said.pop("intensity", None)
    return said


def styled(said: Mapping[str, object]) -> SpeechStyle:
    """``kinds``, back."""
    own: dict[str, Any] = dict(said)
    if "emotion" in own:
        own["emotion"], own["intensity"] = own["emotion"]
    return SpeechStyle(**own)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


def _emotion(key: str, more: str) -> Tag:
    levels = tuple(SpeechStyle(emotion=key, intensity=i) for i in (1, 2, 3))
    return Tag((key, *_names(more)), SpeechStyle(emotion=key), levels)


def _scale(names: str, field: str, values: tuple[float, float, float]) -> Tag:
    levels = tuple(styled({field: value}) for value in values)
    return Tag(_names(names), levels[1], levels)


TAGS = (
    _emotion("neutral", "中性, 平淡"),
    _emotion("happy", "cheerful, joyful, happily, cheerfully, 高兴, 高興, 开心, 開心, 快乐, 快樂"),
    _emotion("sad", "sadly, 悲伤, 悲傷, 伤心, 傷心, 难过, 難過"),
    _emotion("angry", "angrily, 生气, 生氣, 愤怒, 憤怒"),
    _emotion("fearful", "afraid, scared, fearfully, 害怕, 恐惧, 恐懼"),
    _emotion("surprised", "astonished, 惊讶, 驚訝, 吃惊, 吃驚"),
    _emotion("calm", "calmly, 平静, 平靜, 冷静, 冷靜"),
    _emotion("tender", "gentle, tenderly, gently, 温柔, 溫柔"),
    _emotion("excited", "excitedly, 激动, 激動, 兴奋, 興奮"),
    _emotion("serious", "seriously, 严肃, 嚴肅"),
    _emotion("playful", "coquettish, playfully, 撒娇, 撒嬌, 俏皮, 调皮, 調皮"),
    Tag(_names("english, 英文, 英语, 英語"), SpeechStyle(dialect="en")),
    Tag(_names("american accent, american english, 美式英语, 美式英語"), SpeechStyle(dialect="en-US")),
    Tag(_names("british accent, british english, 英式英语, 英式英語"), SpeechStyle(dialect="en-GB")),
    Tag(_names("chinese, mandarin, 中文, 普通话, 普通話, 国语, 國語"), SpeechStyle(dialect="cmn")),
    Tag(_names("sichuanese, 四川话, 四川話"), SpeechStyle(dialect="cmn-sichuan")),
    Tag(_names("cantonese, 粤语, 粵語, 广东话, 廣東話"), SpeechStyle(dialect="yue")),
    Tag(_names("japanese, 日语, 日語"), SpeechStyle(dialect="ja")),
    Tag(_names("korean, 韩语, 韓語"), SpeechStyle(dialect="ko")),
    Tag(_names("speak, speaking, 说话, 說話"), SpeechStyle(mode="speak")),
    Tag(_names("whisper, whispering, whispers, 耳语, 耳語, 悄悄话, 悄悄話"), SpeechStyle(mode="whisper")),
    Tag(_names("rap, rapping, 说唱, 說唱"), SpeechStyle(mode="rap")),
    Tag(_names("hum, humming, hums, 哼唱"), SpeechStyle(mode="hum")),
    Tag(_names("sing, singing, sings, 唱歌, 歌唱"), SpeechStyle(mode="sing")),
    _scale("slow, slowly, slower, 慢速", "speed", (0.9, 0.75, 0.6)),
    _scale("fast, quickly, faster, 快速", "speed", (1.1, 1.25, 1.5)),
    Tag(_names("normal speed, 正常语速, 正常語速"), SpeechStyle(speed=1.0)),
    _scale("high pitch, higher, 高音", "pitch", (2.0, 4.0, 6.0)),
    _scale("low pitch, lower, 低音", "pitch", (-2.0, -4.0, -6.0)),
    Tag(_names("normal pitch, 正常音调, 正常音調"), SpeechStyle(pitch=0.0)),
    _scale("loud, loudly, louder, 大声, 大聲", "volume", (3.0, 6.0, 9.0)),
    _scale("soft, softly, quietly, softer, 小声, 小聲, 轻声, 輕聲", "volume", (-3.0, -6.0, -9.0)),
    Tag(_names("normal volume, 正常音量"), SpeechStyle(volume=0.0)),
    _scale("lively, 抑扬顿挫, 抑揚頓挫", "pitch_range", (1.2, 1.4, 1.7)),
    _scale("monotone, 单调, 單調", "pitch_range", (0.7, 0.4, 0.1)),
    Tag(_names("emphasis, 强调, 強調"), SpeechStyle(emphasis=1), around=True),
    Tag(_names("strong, 重读, 重讀"), SpeechStyle(emphasis=2), around=True),
    Tag(_names("reduced, 弱读, 弱讀"), SpeechStyle(emphasis=-1), around=True),
    Tag(_names("reset, 恢复, 恢復"), reset=True),
    Tag(_names("pause, 停顿, 停頓"), pause_ms=PAUSE_MS),
    Tag(_names("laugh, laughs, laughing, laughter, 笑, 笑声, 笑聲"), sound="laugh"),
    Tag(_names("sigh, sighs, sighing, 叹气, 嘆氣"), sound="sigh"),
    Tag(_names("breath, breathes, breathing, 呼吸, 吸气, 吸氣"), sound="breath"),
)
"""All that a name alone can ask for. A number after the name says how much, 1 to 3; a scale without one is
at its middle, an emotion as strong as the voice has it."""

ARGUMENTS = {
    # what is meant, its names, how its argument is written
    "speed": ("speed, 语速, 語速", "1.3"),
    "pitch": ("pitch, 音调, 音調", "+3"),
    "volume": ("volume, 音量", "-6dB"),
    "range": ("range, 音域", "1.5"),
    "pause": ("pause, break, 停顿, 停頓", "800ms"),
    "voice": ("voice, 声音, 聲音, 音色", "af_heart"),
    "mark": ("mark, 标记, 標記", "chapter-2"),
}
"""Names that want to know how much, or which: ``(speed 1.3)``, ``（停顿1.5秒）``."""

_DEGREES = {"slightly": 1, "a little": 1, "very": 3, "有点": 1, "有點": 1, "稍微": 1, "非常": 3, "特别": 3}

BY_NAME = {name: tag for tag in TAGS for name in tag.names}
_ARGUMENT_OF = {name: kind for kind, (names, _) in ARGUMENTS.items() for name in _names(names)}
_NUMBERED = re.compile(r"(.*?[^\d ]) ?(\d)", re.S)
_DEGREE = re.compile(rf"({'|'.join(_DEGREES)}) ?(.+)", re.S)
_TAKING = "|".join(sorted(_ARGUMENT_OF, key=len, reverse=True))
_WITH_ARGUMENT = re.compile(rf"({_TAKING})(?: ?[:=] ?| |(?=[-+\d])|(?<=[^ -~]))(\S+)", re.I)
_MAY_TAKE = re.compile(rf"(?:{_TAKING}) ?[:=]? ?\S*")
_SEPARATOR = re.compile("[,，、]")
_NUMBER = r"[-+]?\d{1,6}(?:\.\d{1,6})?"
_TIME = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(ms|毫秒|s|秒)")
_WORD = re.compile(r"[A-Za-z]+(?![\w'])|[㐀-鿿]+")
_VOICE = re.compile(r"[\w.*+/-]{1,64}")
_BEGINS = frozenset(
    name[:end] for name in (*BY_NAME, *_ARGUMENT_OF, *_DEGREES) for end in range(len(name) + 1)
)


class Wrong(str):
    """What is wrong with a tag whose name is known, and what to do about it."""

    __slots__ = ()


def fold(text: str) -> str:
    """A name as the tables have it: small and half-width letters, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@lru_cache(1024)
def _alone(name: str) -> Tag | Wrong | None:
    """What one folded name asks for, apart from voices and bookmarks."""
    if (tag := BY_NAME.get(name)) is not None:
        return tag
    if (degree := _DEGREE.fullmatch(name)) and (tag := BY_NAME.get(degree[2])) and tag.levels:
        return replace(tag, style=tag.levels[_DEGREES[degree[1]] - 1])
    if (numbered := _NUMBERED.fullmatch(name)) and (tag := BY_NAME.get(numbered[1])) and tag.levels:
        level = int(numbered[2])
        if not 1 <= level <= 3:
            return Wrong(f"the strength of {tag.name} goes from 1 to 3")
        return replace(tag, style=tag.levels[level - 1])
    found = _WITH_ARGUMENT.fullmatch(name)
    return _measured(_ARGUMENT_OF[found[1]], found[2]) if found else None


def _measured(kind: str, argument: str) -> Tag | Wrong | None:
    """A name with how much; None where that is no measure ("the speed limit")."""
    if kind == "speed" and (value := _number(argument, "|x|倍", percent=True)) is not None:
        return _within("speed", value, SPEEDS, "times") or Tag(("speed",), SpeechStyle(speed=value))
    signed = argument[0] in "+-" or not argument[-1].isdigit()
    if kind == "pitch" and signed and (value := _number(argument, "|st|个半音")) is not None:
        return _within("pitch", value, PITCHES, "semitones") or Tag(("pitch",), SpeechStyle(pitch=value))
    if kind == "volume" and signed and (value := _number(argument, "|db|分贝")) is not None:
        return _within("volume", value, VOLUMES, "dB") or Tag(("volume",), SpeechStyle(volume=value))
    if kind == "range" and (value := _number(argument, "|x|倍", percent=True)) is not None:
        return _within("range", value, RANGES, "times") or Tag(("range",), SpeechStyle(pitch_range=value))
    if kind == "pause" and (ms := milliseconds(argument)) is not None:
        return _within("pause", ms, PAUSES_MS, "ms") or Tag(("pause",), pause_ms=ms)
    return None


def _number(text: str, units: str, percent: bool = False) -> float | None:
    found = re.fullmatch(rf"({_NUMBER})(?:({'%' if percent else '(?!)'})|{units})", text)
    if found is None:
        return None
    return float(found[1]) / 100 if found[2] else float(found[1])


def _within(name: str, value: float, bounds: tuple[float, float], unit: str) -> Wrong | None:
    if bounds[0] <= value <= bounds[1]:
        return None
    return Wrong(f"{name} goes from {bounds[0]:g} to {bounds[1]:g} {unit}")


def milliseconds(text: str) -> int | None:
    """Of a folded length of time ("1.5s", "200ms", "2秒"); None: it is none."""
    found = _TIME.fullmatch(text)
    return round(float(found[1]) * (1 if found[2] in ("ms", "毫秒") else 1000)) if found else None


def meaning(
    content: str, *, square: bool = False, voices: Container[str] | None = None
) -> Tag | Wrong | None:
    """What stands between two brackets asks for.

    Args:
        content: without the brackets: "happy 2", "四川话", "slow, whisper".
        square: they are ``[`` and ``]``: these go around words, and hold bookmarks.
        voices: names of voices that there are; None: any name may be one.

    Returns:
        The tag; ``Wrong`` where a name is known but what it asks for cannot be; None where it is no tag.
    """
    if content[:1].isspace():  # how text of users is made harmless: ``tagged.disarmed``
        return None
    if square and content[:1] in ("/", "／"):
        return _closing(content[1:])
    parts = _SEPARATOR.split(content)
    if len(parts) == 1:
        return _one(parts[0], square, voices)
    whole = NO_STYLE
    for part in parts:
        tag = _one(part, square, voices)
        if tag is None or isinstance(tag, Wrong):
            return tag
        if tag.is_point or tag.reset or tag.around:
            return None
        if both := kinds(tag.style).keys() & kinds(whole).keys():
            return Wrong(f"it says two things of the {min(both)}: leave one")
        whole = tag.style.over(whole)
    return Tag((", ".join(map(fold, parts)),), whole)


def _one(name: str, square: bool, voices: Container[str] | None) -> Tag | Wrong | None:
    name = " ".join(unicodedata.normalize("NFKC", name).split())
    tag = _alone(name.casefold())
    if tag is None and (found := _WITH_ARGUMENT.fullmatch(name)):
        kind, argument = _ARGUMENT_OF[found[1].casefold()], found[2]
        if kind == "voice" and (argument in voices if voices is not None else _VOICE.fullmatch(argument)):
            return Tag(("voice",), SpeechStyle(voice=argument))
        if kind == "voice" and square:
            return Wrong(f"names no voice that there is: {argument}")
        if kind == "mark" and square:
            return Tag(("mark",), bookmark=argument)
    return None if isinstance(tag, Tag) and tag.around and not square else tag


def _closing(content: str) -> Tag | None:
    name = ", ".join(fold(part) for part in _SEPARATOR.split(content))
    tag = _alone(name)
    if isinstance(tag, Tag):
        return None if tag.is_point or tag.reset else Tag((tag.name,), closes=True)
    if name in _ARGUMENT_OF:
        return Tag((_ARGUMENT_OF[name],), closes=True)
    several = "," in name and all(_alone(part) for part in name.split(", "))
    return Tag((name,), closes=True) if not name or several else None


def leading(content: str) -> str:
    """The name that a text begins with, as a whole word: 高兴 of "高兴你好"; "" for none."""
    word = _WORD.match(content)
    if word is None:
        return ""
    if word[0].isascii():
        return word[0] if word[0].lower() in BY_NAME else ""
    return next((word[0][:n] for n in range(len(word[0]), 1, -1) if word[0][:n] in BY_NAME), "")


def may_become(content: str) -> bool:
    """Whether what stands after a bracket may be the beginning of a tag."""
    if content[:1].isspace():
        return False
    *whole, last = map(fold, _SEPARATOR.split(content.lstrip("/／")))
    if any(_alone(part) is None and not _WITH_ARGUMENT.fullmatch(part) for part in whole):
        return False
    if last in _BEGINS:
        return True
    if (degree := _DEGREE.fullmatch(last)) and degree[2] in _BEGINS:
        return True
    if (numbered := _NUMBERED.fullmatch(last)) and numbered[1] in BY_NAME:
        return True
    return _MAY_TAKE.fullmatch(last) is not None


# --- instructions in plain words -------------------------------------------------------------------------

_WORDS = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+|[㐀-鿿]+[1-3]?")
_NOT = frozenset("not no never don't without less too isn't".split())
_NOT_HAN = re.compile(r"[不别勿太没]")
_FILLING = frozenset(
    "a an and as be but in it of on please read say speak talk text the this to tone use using voice way with"
    " your you speaking style manner emotion sound".split()
)
_OTHERWISE = {  # words of instructions that would be too common for tags
    "quick": "fast",
    "rapid": "fast",
    "rapidly": "fast",
    "brisk": "fast",
    "briskly": "fast",
    "unhurried": "slow",
    "whispered": "whisper",
    "quiet": "soft",
    "fear": "fearful",
    "joy": "happy",
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "excitement": "excited",
    "surprise": "surprised",
    "british": "british accent",
    "american": "american accent",
    "快": "fast",
    "慢": "slow",
}
_HAN_NAMES = sorted(
    (name for name in (*BY_NAME, *_OTHERWISE) if not name.isascii()), key=len, reverse=True
)  # the longest first
_HAN_NAME = re.compile(rf"({'|'.join(_DEGREES)})?({'|'.join(_HAN_NAMES)})([1-3])?")
_LONGEST_NAME = 2  # words in an English name


@dataclass(frozen=True, slots=True)
class Instructions:
    """Instructions in plain words, as far as they are understood.

    Attributes:
        style: what they ask for.
        passed_over: how many words were not understood.
    """

    style: SpeechStyle
    passed_over: int


def instructions(text: str) -> Instructions:
    """Read instructions such as "whisper, slowly" or "用四川话，慢一点": the words that name a tag.

    Where they say no to something, or two things of one kind, nothing of that sentence is followed:
    ``passed_over`` counts its words.
    """
    style, passed = NO_STYLE, 0
    for sentence in re.split(r"[.;!?。；！？\n]+", unicodedata.normalize("NFKC", text).casefold()):
        words = _WORDS.findall(sentence)
        said, others = NO_STYLE, 0
        wrong = any(word in _NOT for word in words) or bool(_NOT_HAN.search(sentence))
        for tag in () if wrong else _named(words):
            if tag is None:
                others += 1
                continue
            now, before = kinds(tag.style), kinds(said.over(style))
            wrong |= any(before.get(kind, value) != value for kind, value in now.items())
            said = tag.style.over(said)
        if wrong:
            passed += len(words)
        else:
            style, passed = said.over(style), passed + others
    return Instructions(style, passed)


def _named(words: list[str]) -> Iterator[Tag | None]:
    """The tags that words name; None for every other word that is not merely filling."""
    at = 0
    while at < len(words):
        word = words[at]
        if not word.isascii():
            found = [_of(m[2], m[1], m[3]) for m in _HAN_NAME.finditer(word)]
            yield from found or (None,)
            at += 1
            continue
        degree = word if word in _DEGREES else None
        start = at + 1 if degree else at
        for size in range(_LONGEST_NAME, 0, -1):
            name = " ".join(words[start : start + size])
            tag = BY_NAME.get(name) or BY_NAME.get(_OTHERWISE.get(name, ""))
            if tag and name not in _FILLING and tag.style != NO_STYLE and not tag.around:
                at = start + size
                level = words[at] if words[at : at + 1] and words[at] in ("1", "2", "3") else None
                at += level is not None
                yield _of(name, degree, level)
                break
        else:
            if word not in _FILLING:
                yield None
            at += 1


def _of(name: str, degree: str | None, level: str | None) -> Tag | None:
    tag = BY_NAME.get(name) or BY_NAME[_OTHERWISE[name]]
    if tag.style == NO_STYLE or tag.around:
        return None
    strength = int(level) if level else _DEGREES.get(degree or "")
    return replace(tag, style=tag.levels[strength - 1]) if strength and tag.levels else tag
