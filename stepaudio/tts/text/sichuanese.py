"""Sichuanese as spoken in Chengdu: Chinese characters -> readings -> phonemes with tone contours.

It is Southwestern Mandarin, and is made from the Mandarin reading of every character: the four tones keep
their classes and change their values, a syllable that was checked in Middle Chinese takes the second tone, no
third tone changes before another, and the segments shift by rule. Which syllables were checked, and with
which vowel, Cantonese still tells: it closes them with -p, -t or -k.

Tone values and correspondences are those that descriptions of the dialect agree on (Yuan 1960, Hanyu fangyan
gaiyao; Liang 1982, Sichuan fangyan yuyin), from memory, and have not been judged by a native listener.
"""

from __future__ import annotations

import re

from stepaudio.tts.text.cantonese import jyutping
from stepaudio.tts.text.mandarin import FINALS, INITIALS, Mandarin, alone, split, word_starts
from stepaudio.tts.text.tables import table
from stepaudio.tts.text.tones import Syllable, Tone

LEVELS = {"1": (5, 5), "2": (2, 1), "3": (5, 3), "4": (2, 1, 3)}
"""Chengdu's four tones: 55, 21, 53, 213."""
_ARROWS = {"1": "→", "2": "↗", "3": "↓", "4": "↗"}
"""Kokoro's sign for a Mandarin tone, which colours vowels and loudness; the drawn contour overrules its pitch.
The signs of the tones' Mandarin classes are the clearest, but for the fourth: what falls is soft at its end,
where 213 rises (the male voice follows with a correlation of 0.93 instead of 0.89)."""
_SOUNDS = (
    INITIALS | {"ng": "ŋ"},
    FINALS | {"ê": "ɛ0", "uê": "wɛ0", "io": "jo0", "o": "o0"},
)

_CHARS = table("sichuanese", "char")
_PARTICLES = table("sichuanese", "particle")
_WORDS = table("sichuanese", "word")
_LONGEST = max(map(len, _WORDS))

RULES = frozenset({"flat", "nasal", "labial", "l", "f", "o", "checked-e", "checked-o", "un"})
"""The rules of segments that are applied; see ``reading``."""


def reading(pinyin: str, cantonese: str = "", rules: frozenset[str] = RULES) -> str:
    """The Chengdu reading of a Mandarin syllable: ("xue2", "hok6") -> "xio2". "" for what is none.

    Args:
        pinyin: of the character by itself, with a tone digit 1-4.
        cantonese: its Jyutping, which tells what Mandarin has lost; "" where there is none.
        rules: of segments, to apply.
    """
    initial, final, tone = split(pinyin)
    if not final:
        return ""
    checked = cantonese[:-1] if cantonese[-2:-1] in ("p", "t", "k") else ""
    initial, final = _vowel(initial, final, checked, rules)
    if final == "eng" and initial in ("b", "p", "m", "f") and "labial" in rules:
        final = "ong"  # 朋
    if final == "uen" and initial in ("d", "t", "l", "z", "c", "s", "zh", "ch", "sh") and "un" in rules:
        final = "en"  # 论
    if "nasal" in rules:
        final = {"ing": "in", "eng": "en", "ueng": "ong"}.get(final, final)
    if not initial and final in ("ai", "an", "ang", "ao", "en", "ou", "o", "ê") and "ng" in rules:
        initial = "ng"  # 爱, 安, 欧
    if "flat" in rules:
        initial = {"zh": "z", "ch": "c", "sh": "s"}.get(initial, initial)
    if initial == "n" and final[0] not in "iv" and "l" in rules:
        initial = "l"  # 南
    if initial == "h" and final == "u" and "f" in rules:
        initial = "f"  # 湖
    return _spelt(initial, final) + ("2" if checked else tone)


def _vowel(initial: str, final: str, checked: str, rules: frozenset[str]) -> tuple[str, str]:
    """Vowels that Mandarin has moved; ``checked`` is the Cantonese of a checked syllable, without its tone."""
    low = checked.endswith(("aak", "ak"))
    if final in ("ve", "iao") and checked.endswith(("ok", "oek")):
        final = "io" if "checked-o" in rules else final  # 学, 脚
    elif (final in ("ai", "ei", "o", "uo") and low) or (final == "uo" and checked == "gwok"):
        if "checked-e" in rules:
            final = "uê" if final == "uo" else "ê"  # 白, 北; 或, 国
    elif final == "e" and initial in ("", "g", "k", "h") and not low:
        final = "o" if "o" in rules else final  # 哥, 可, 喝
    elif final == "e":
        final = "ê" if "checked-e" in rules else final  # 客, 得, 色, 车
    elif final == "uo" and initial:
        final = "o" if "o" in rules else final  # 多
    return initial, final


def _spelt(initial: str, final: str) -> str:
    return initial + ("i" if final == "-i" else final)


_SPELLING = re.compile(r"(zh|ch|sh|ng(?=[aeoê])|[bpmfdtnlgkhjqxrzcs]?)([a-zê]+)([1-4])")


def syllable(spelt: str) -> Syllable:
    """Phonemes and contour of a reading: "ngo3" -> "ŋo↘", falling from 5 to 3. None of them for ""."""
    match = _SPELLING.fullmatch(spelt)
    if not match:
        return Syllable("", "")
    initial, final, tone = match.groups()
    if final == "i" and initial in ("zh", "ch", "sh", "r", "z", "c", "s"):
        final = "-i"
    elif final[0] == "u" and initial in ("j", "q", "x"):
        final = "v" + final[1:]
    starts, finals = _SOUNDS
    start = starts[initial]
    sounds = start + finals[final].replace("0", _ARROWS[tone])
    return Syllable(spelt, sounds, Tone(len(start), len(sounds), LEVELS[tone]))


class Sichuanese:
    """Readings of Chinese text.

    Args:
        mandarin: decides between the readings of a character.
    """

    def __init__(self, mandarin: Mandarin) -> None:
        self._mandarin = mandarin

    def syllables(self, text: str, start: int, end: int) -> tuple[list[Syllable], list[int]]:
        """A syllable for every character of ``text[start:end]``, and where in it words begin.

        Args: as ``Mandarin.syllables``.
        """
        return [syllable(found) for found in self.readings(text, start, end)], word_starts(text[start:end])

    def readings(self, context: str, begin: int, end: int, rules: frozenset[str] = RULES) -> list[str]:
        """As ``syllables``, in letters: "ngo3"."""
        text = context[begin:end]
        mandarin = self._mandarin.readings(context, begin, end, running=False)
        readings = [self._character(*of, rules) for of in zip(text, mandarin, jyutping(text), strict=True)]
        _double(text, readings)
        at = 0
        while at < len(text):
            size = next((n for n in range(_LONGEST, 1, -1) if text[at : at + n] in _WORDS), 0)
            if size:
                readings[at : at + size] = _WORDS[text[at : at + size]].split()
            at += size or 1
        return readings

    def _character(self, char: str, pinyin: str, cantonese: str, rules: frozenset[str]) -> str:
        if pinyin[-1:] == "5":
            if char in _PARTICLES:
                return _PARTICLES[char]
            pinyin = alone(char)  # 东西, 先生: every syllable keeps its tone
        return _CHARS.get(char) or reading(pinyin, cantonese, rules)


def _double(text: str, readings: list[str]) -> None:
    """Tones of a noun said twice (妈妈, 棒棒): the second is high after 21 and 213, low after 53."""
    for i in range(len(text) - 1):
        twice = (
            text[i] == text[i + 1] and (i == 0 or text[i - 1] != text[i]) and text[i + 2 : i + 3] != text[i]
        )
        if twice and readings[i]:
            readings[i + 1] = readings[i][:-1] + {"1": "1", "2": "1", "3": "2", "4": "1"}[readings[i][-1]]
