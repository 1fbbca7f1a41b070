"""Cantonese as spoken in Hong Kong: Chinese characters -> Jyutping -> phonemes with tone contours.

Readings come from ToJyutping (BSD-2-Clause; Jyutping: Linguistic Society of Hong Kong 1993), which chooses
them by the words around. The voices were never taught Cantonese: its vowels, rounded and short ones among
them, and its final -m, -p, -t, -k are spelt with what Kokoro knows from other languages. How little of it is
understood so far, ``bench voice`` prints.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

import opencc

from stepaudio.tts.text.mandarin import Mandarin, word_starts
from stepaudio.tts.text.tones import Syllable, Tone

LEVELS = {"1": (5, 5), "2": (2, 5), "3": (3, 3), "4": (2, 1), "5": (2, 3), "6": (2, 2)}
"""The six tones: 55, 25, 33, 21, 23, 22 (Matthews & Yip 2011, section 1.4)."""
CHECKED = 0.6
"""Times as long as the voice would have it, the vowel of a syllable that -p, -t or -k closes is."""
_ARROWS = {"1": "→", "2": "↗", "3": "→", "4": "↘", "5": "↗", "6": "→"}
"""Kokoro's sign for the Mandarin tone of the nearest shape; the drawn contour overrules its pitch."""

_INITIALS = {
    "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k", "k": "kʰ", "h": "x",
    "ng": "ŋ", "gw": "kw", "kw": "kʰw", "w": "w", "z": "ʦ", "c": "ʦʰ", "s": "s", "j": "j", "": "",
}  # fmt: skip
_VOWELS = {
    "aa": "a", "a": "ɐ", "e": "ɛ", "i": "i", "o": "ɔ", "u": "u", "oe": "œ", "eo": "ø", "yu": "y",
    "aai": "ai", "aau": "au", "ai": "ɐi", "au": "ɐu", "ei": "ei", "eu": "ɛu", "iu": "iu", "oi": "ɔi", "ou": "ou",
    "ui": "ui", "eoi": "øy",
}  # fmt: skip
_SHORT = {("i", "ng"): "ɪ", ("i", "k"): "ɪ", ("u", "ng"): "ʊ", ("u", "k"): "ʊ"}
_CODAS = {"m": "m", "n": "n", "ng": "ŋ", "p": "p", "t": "t", "k": "k", "": ""}
_SPELLING = re.compile(
    r"(ng(?=[aeiouy])|[gk]w|[bpmfdtnlgkhwzcsj]?)(aai|aau|eoi|[aeo]i|[aei]u|ou|ui|aa|oe|eo|yu|[aeiou])(ng|[mnptk]?)([1-6])"
)
_NASAL = re.compile(r"(h?)(m|ng)([1-6])")


@lru_cache(4096)
def syllable(spelt: str) -> Syllable:
    """Phonemes and contour of a reading: "hou2" -> "xo↗u", rising from 2 to 5. None of them for ""."""
    if match := _NASAL.fullmatch(spelt):  # 唔, 五
        start, (sound, tone) = _INITIALS[match[1]], (_CODAS[match[2]], match[3])
        return Syllable(spelt, start + sound + _ARROWS[tone], Tone(len(start), len(start) + 2, LEVELS[tone]))
    match = _SPELLING.fullmatch(spelt)
    if not match:
        return Syllable("", "")
    initial, vowel, coda, tone = match.groups()
    start = _INITIALS[initial]
    if vowel == "yu" and initial == "j":
        start = ""  # jyu is written for y
    core = _SHORT.get((vowel, coda)) or _VOWELS[vowel]
    sounds = start + core[0] + core[1:] + _ARROWS[tone] + _CODAS[coda]
    checked = coda in ("p", "t", "k")
    end = len(sounds) - checked
    return Syllable(spelt, sounds, Tone(len(start), end, LEVELS[tone], CHECKED if checked else 1.0))


def jyutping(text: str) -> list[str]:
    """Readings in Jyutping, "" for what has none: "你好" -> ["nei5", "hou2"]."""
    import ToJyutping

    return [reading or "" for _, reading in ToJyutping.get_jyutping_list(traditional(text))]


def traditional(text: str) -> str:
    """In the characters of Hong Kong, as many as before."""
    written = _traditional()(text)
    return written if len(written) == len(text) else "".join(_traditional()(c)[:1] or c for c in text)


@cache
def _traditional():
    return opencc.OpenCC("s2hk").convert


class Cantonese:
    """Readings of Chinese text.

    Args:
        mandarin: knows where words begin.
    """

    def __init__(self, mandarin: Mandarin) -> None:
        self._mandarin = mandarin

    def syllables(self, text: str, start: int, end: int) -> tuple[list[Syllable], list[int]]:
        """A syllable for every character of ``text[start:end]``, and where in it words begin.

        Args: as ``Mandarin.syllables``; the script may be either.
        """
        starts = word_starts(self._mandarin.simplified(text[start:end]))
        return [syllable(found) for found in jyutping(text)[start:end]], starts
