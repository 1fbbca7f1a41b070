"""Mandarin: Chinese characters -> pinyin -> phonemes in Kokoro's alphabet.

Words are cut by rjieba and looked up in pypinyin's phrase dictionary; a character that stands alone and has
several readings is decided by rules for the everyday ones and by a small network for the rest. Then come the tone
changes of running speech (一, 不, third tones). On 946 Wikipedia sentences with one marked
polyphone each this reads 92-93 % right; the phrase dictionary alone reads 80 %.

The network is g2pM (Park and Lee, Interspeech 2020, arXiv:2004.03136; Apache-2.0): one bidirectional LSTM of 32
units over characters. Its weights are in polyphones.npz, in half precision.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from itertools import pairwise

import numpy as np
import opencc
import rjieba
from pypinyin import Style, lazy_pinyin, pinyin
from pypinyin.constants import PHRASES_DICT

from stepaudio.tts.text.tables import rows, table, words
from stepaudio.tts.text.tones import Syllable

# --- pinyin -> phonemes ------------------------------------------------------------------------
# The alphabet that Kokoro learned Mandarin with: IPA with an arrow for the tone after the main vowel
# (0 marks the place). First tone →, second ↗, third ↓, fourth ↘, neutral nothing.

INITIALS = {
    "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k", "k": "kʰ", "h": "x",
    "j": "ʨ", "q": "ʨʰ", "x": "ɕ", "zh": "ꭧ", "ch": "ꭧʰ", "sh": "ʂ", "r": "ɻ", "z": "ʦ", "c": "ʦʰ", "s": "s", "": "",
}  # fmt: skip
FINALS = {
    "a": "a0", "ai": "ai0", "an": "a0n", "ang": "a0ŋ", "ao": "au0", "e": "ɤ0", "ei": "ei0", "en": "ə0n", "eng": "ə0ŋ",
    "er": "ɚ0", "i": "i0", "ia": "ja0", "ian": "jɛ0n", "iang": "ja0ŋ", "iao": "jau0", "ie": "je0", "in": "i0n",
    "iou": "jou0", "ing": "i0ŋ", "iong": "jʊ0ŋ", "ong": "ʊ0ŋ", "ou": "ou0", "u": "u0", "uei": "wei0", "ua": "wa0",
    "uai": "wai0", "uan": "wa0n", "uen": "wə0n", "uang": "wa0ŋ", "ueng": "wə0ŋ", "uo": "wo0", "o": "wo0", "v": "y0",
    "ve": "ɥe0", "van": "ɥɛ0n", "vn": "y0n", "-i": "ɨ0",
}  # fmt: skip
_WHOLE = {  # written without an initial, or irregular
    "yi": "i", "ya": "ia", "yan": "ian", "yang": "iang", "yao": "iao", "ye": "ie", "yin": "in", "you": "iou",
    "ying": "ing", "yong": "iong", "yu": "v", "yue": "ve", "yuan": "van", "yun": "vn", "wu": "u", "wei": "uei",
    "wa": "ua", "wai": "uai", "wan": "uan", "wen": "uen", "wang": "uang", "weng": "ueng", "wo": "uo",
}  # fmt: skip
_ODD = {
    "o": "ɔ0",
    "ê": "ɛ0",
    "ea": "ɛ0",
    "eh": "ɛ0",
    "yo": "jɔ0",
    "m": "m0",
    "n": "n0",
    "ng": "ŋ0",
    "hm": "hm0",
    "hng": "hŋ0",
}
_SHORT = {"iu": "iou", "ui": "uei", "un": "uen", "ue": "ve"}
_TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘"}
_SYLLABLE = re.compile(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcs]?)([a-zvê]+)")


@lru_cache(2048)
def ipa(pinyin: str) -> str:
    """Phonemes of a syllable: "liang3" -> "lja↓ŋ". Empty for what is no syllable.

    Args:
        pinyin: with a tone digit 1-5 (5 or none: neutral), ü as v.
    """
    initial, final, tone = split(pinyin)
    arrow = _TONES.get(tone, "")
    if not initial and final in _ODD:
        return _ODD[final].replace("0", arrow)
    return (INITIALS[initial] + FINALS[final]).replace("0", arrow) if final else ""


@lru_cache(2048)
def split(pinyin: str) -> tuple[str, str, str]:
    """Initial, final and tone of a syllable: "liu4" -> ("l", "iou", "4"). ("", "", "5") for what is none.

    Finals are spelt in full ("iou", "uen", "van"), that of zhi and zi "-i"; "" is the initial of yi and an.
    """
    syllable, tone = (pinyin[:-1], pinyin[-1]) if pinyin[-1:].isdigit() else (pinyin, "5")
    syllable = syllable.replace("ü", "v").replace("u:", "v")
    if syllable in _ODD:
        return "", syllable, tone
    if syllable in _WHOLE:
        return "", _WHOLE[syllable], tone
    match = _SYLLABLE.fullmatch(syllable)
    if not match:
        return "", "", "5"
    initial, final = match.groups()
    if initial in ("j", "q", "x") and final[0] == "u":
        final = "v" + final[1:]
    final = _SHORT.get(final, final)
    if final == "i" and initial in ("zh", "ch", "sh", "r", "z", "c", "s"):
        final = "-i"
    return (initial, final, tone) if final in FINALS else ("", "", "5")


# --- a character that stands alone -------------------------------------------------------------

_ALONE: dict[str, list[tuple[re.Pattern[str], re.Pattern[str], str]]] = {}
for _char, _left, _right, _reading in rows("mandarin", "rule"):
    _ALONE.setdefault(_char, []).append((re.compile(_left), re.compile(_right), _reading))
# 地 is di4 (ground) before these, or after a noun; otherwise the adverb's de5.
_GROUND_NEXT = "上下里中面方区图位点板球铁理质域址产段主带形势步震狱坪毯税利段价名级处缘底道,。的、是有和与为"
_NEUTRAL_LAST = set("们子头么")  # 孩子 桌子 石头: neutral when they end a word that the dictionary lacks

_FAR = 20  # characters on either side that the network may look at
_OWN = table("mandarin", "word")
_NEUTRAL = frozenset(words("mandarin", "neutral"))
_PHRASE_LIMIT = 8  # characters in the longest phrase worth looking up


class Polyphones:
    """The network that chooses a reading from the sentence."""

    def __init__(self) -> None:
        path = resources.files("stepaudio.tts.text") / "polyphones.npz"
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            table = {name: data[name] for name in data.files}
        weights = {k: v.astype(np.float32) for k, v in table.items() if v.dtype == np.float16}
        # The input half of both LSTMs does not depend on the state: computed once for every character.
        self._forward = weights["embedding"] @ weights["forward_input"] + weights["forward_bias"]
        self._backward = weights["embedding"] @ weights["backward_input"] + weights["backward_bias"]
        # Both directions take their steps together: one product with the two state matrices side by side.
        self._state = np.zeros((64, 256), np.float32)
        for gate in range(4):
            self._state[:32, 64 * gate : 64 * gate + 32] = weights["forward_state"][
                :, 32 * gate : 32 * gate + 32
            ]
            self._state[32:, 64 * gate + 32 : 64 * gate + 64] = weights["backward_state"][
                :, 32 * gate : 32 * gate + 32
            ]
        self._weights = weights
        self._unknown, self._first, self._last = (int(i) for i in table["special"])
        self._index = {str(char): i for i, char in enumerate(table["characters"])}
        self._readings = [str(reading) for reading in table["readings"]]
        self._candidates = {
            str(char): [int(i) for i in str(classes).split()]
            for char, classes in zip(table["polyphones"], table["candidates"], strict=True)
        }

    def knows(self, char: str) -> bool:
        return char in self._candidates

    def _states(self, ids: list[int]) -> np.ndarray:
        """Hidden states of both directions, (len(ids), 64). Gates are in the order i, f, g, o."""
        inputs = np.stack(
            [self._forward[ids].reshape(-1, 4, 32), self._backward[ids[::-1]].reshape(-1, 4, 32)], axis=2
        )
        inputs = inputs.reshape(-1, 256)
        hidden = cell = np.zeros(64, np.float32)
        states = np.empty((len(ids), 64), np.float32)
        for step, row in enumerate(inputs):
            gates = row + hidden @ self._state
            squashed = 1 / (1 + np.exp(-gates))
            cell = squashed[64:128] * cell + squashed[:64] * np.tanh(gates[128:192])
            hidden = squashed[192:] * np.tanh(cell)
            states[step] = hidden
        states[:, 32:] = states[::-1, 32:].copy()
        return states

    def __call__(self, sentence: str, places: list[int]) -> list[str]:
        """Readings of the characters at ``places``, all of them known."""
        ids = [self._first, *(self._index.get(char, self._unknown) for char in sentence), self._last]
        w = self._weights
        states = self._states(ids)[[place + 1 for place in places]]
        logits = np.maximum(states @ w["hidden"] + w["hidden_bias"], 0) @ w["output"] + w["output_bias"]
        return [
            self._readings[max(self._candidates[sentence[place]], key=lambda c, row=row: row[c])]
            for place, row in zip(places, logits, strict=True)
        ]


# --- sentences ---------------------------------------------------------------------------------


@lru_cache(8192)
def _lookup(word: str) -> tuple[str, ...]:
    """Pinyin of a word, "" for what is no Chinese character."""
    return tuple(
        lazy_pinyin(
            word,
            style=Style.TONE3,
            neutral_tone_with_five=True,
            errors=lambda chars: [""] * len(chars),  # type: ignore[arg-type]  # a list is taken, too
        )
    )


@lru_cache(4096)
def _lookup_all(char: str) -> tuple[str, ...]:
    found = pinyin(char, style=Style.TONE3, heteronym=True, neutral_tone_with_five=True, errors="ignore")
    return tuple(found[0]) if found else ("",)


class Mandarin:
    """Readings of Chinese text."""

    def __init__(self) -> None:
        self._polyphones = Polyphones()
        self._simplify = opencc.OpenCC("t2s").convert
        rjieba.cut("加载词典")  # loads its dictionary

    def simplified(self, text: str) -> str:
        """The text in simplified script, character by character."""
        simple = self._simplify(text)
        return (
            simple if len(simple) == len(text) else "".join(self._simplify(char)[:1] or char for char in text)
        )

    def syllables(self, text: str, start: int, end: int) -> tuple[list[Syllable], list[int]]:
        """The run of Chinese characters ``text[start:end]``, the rest being context.

        Args:
            text: simplified, with the punctuation that is heard; other scripts may occur in the context.
            start: of the run.
            end: one past its last character.

        Returns:
            One syllable a character, whose tone is in its phonemes, and where in the run words begin.
        """
        found = [Syllable(reading, ipa(reading)) for reading in self.readings(text, start, end)]
        return found, word_starts(text[start:end])

    def words(self, text: str) -> list[str]:
        """Words to look up in a run of Chinese characters: known ones; neighbours that form a phrase are one."""
        cut = rjieba.cut(text, False)
        words: list[str] = []
        index = 0
        while index < len(cut):
            best, phrase = 1, cut[index]
            longer = phrase
            for size in range(2, 5):
                if index + size > len(cut):
                    break
                longer += cut[index + size - 1]
                if len(longer) > _PHRASE_LIMIT:
                    break
                if longer in PHRASES_DICT or longer in _OWN:
                    best, phrase = size, longer
            words.append(phrase)
            index += best
        return words

    def readings(self, context: str, begin: int, end: int, *, running: bool = True) -> list[str]:
        """As ``syllables``, in pinyin: one syllable ("hao3") a character.

        Args:
            running: with the tones of running speech; else those that each character has by itself.
        """
        text = context[begin:end]
        words = self.words(text)
        readings: list[str] = []
        starts: list[int] = []
        undecided: list[int] = []
        for number, word in enumerate(words):
            start = len(readings)
            starts.append(start)
            if word in _OWN:
                readings += _OWN[word].split()
                continue
            readings += _lookup(word)
            if word in _NEUTRAL:
                readings[-1] = readings[-1][:-1] + "5"
            if word in PHRASES_DICT and len(word) > 1:
                continue
            # The readings of what is no phrase are decided by its surroundings, character by character.
            for place, char in enumerate(word):
                if any(word[i : i + 2] in PHRASES_DICT for i in (place - 1, place) if 0 <= i < len(word) - 1):
                    continue
                ruled = self._alone(char, context, begin + start + place, words, number)
                if ruled:
                    readings[start + place] = ruled
                elif self._polyphones.knows(char) and not (place and char in _NEUTRAL_LAST):
                    undecided.append(start + place)
            if len(word) > 1 and word[-1] == "儿":
                readings[-1] = "er5"
        if undecided:
            low, high = max(0, begin - _FAR), end + _FAR
            places = [begin - low + place for place in undecided]
            for place, reading in zip(undecided, self._polyphones(context[low:high], places), strict=True):
                readings[place] = reading
        return sandhi(text, readings, starts) if running else readings

    def _alone(self, char: str, context: str, at: int, words: list[str], number: int) -> str | None:
        """Reading of a one-character word by rule, None where there is no rule."""
        if char == "地":
            if len(words[number]) > 1:
                return None
            before = words[number - 1] if number else ""
            after = words[number + 1] if number + 1 < len(words) else ""
            return "de5" if len(before) > 1 and after and after[0] not in _GROUND_NEXT else "di4"
        left, right = context[max(0, at - 8) : at], context[at + 1 : at + 7]
        for before_rule, after_rule, reading in _ALONE.get(char, ()):
            if before_rule.search(left) and after_rule.search(right):
                return reading
        return None


def word_starts(text: str) -> list[int]:
    """Where words begin, also those that no dictionary has: there a voice may pause."""
    starts, at = [], 0
    for word in rjieba.cut(text):
        starts.append(at)
        at += len(word)
    return starts


def alone(char: str) -> str:
    """Reading of a character by itself, with its full tone where it has one: "hao3"."""
    return next((reading for reading in _lookup_all(char) if reading[-1] != "5"), _lookup(char)[0])


_COUNTING = set("零一二三四五六七八九点幺")


def sandhi(text: str, readings: list[str], starts: list[int]) -> list[str]:
    """Tones of running speech: 不 and 一 before other tones, third tones in a row (Lin 2007, chapter 9)."""
    result = list(readings)
    ends = set(starts[1:]) | {len(text)}
    for i, char in enumerate(text):
        following = readings[i + 1][-1:] if i + 1 < len(text) else ""
        if char == "不" and readings[i][:2] == "bu":
            if 0 < i < len(text) - 1 and text[i - 1] == text[i + 1]:
                result[i] = "bu5"  # 是不是
            elif following == "4":
                result[i] = "bu2"
        elif char == "一" and readings[i] == "yi1" and following:
            previous = text[i - 1] if i else ""
            if previous and previous == text[i + 1] and previous not in _COUNTING:
                result[i] = "yi5"  # 看一看
            elif (
                previous in _COUNTING
                or (previous in "第十初" and previous)
                or text[i + 1] in _COUNTING
                or text[i + 1] in "月日号楼班"
            ) or (text[i + 1] == "年" and text[i + 2 : i + 3] == "级"):
                continue
            elif i + 1 in ends and i and i not in starts:
                continue  # ends a word: 统一, 唯一
            else:
                result[i] = "yi2" if following in "45" else "yi4"
    bounds = [*starts, len(text)]
    for start, end in pairwise(bounds):
        for i in range(start, end - 1):
            if result[i][-1:] == "3" and readings[i + 1][-1:] == "3":
                result[i] = result[i][:-1] + "2"
        # Across two words only where the first is a single syllable: 我想, 很好.
        if end - start == 1 and end < len(text) and result[start][-1:] == "3" and readings[end][-1:] == "3":
            result[start] = result[start][:-1] + "2"
    return result
