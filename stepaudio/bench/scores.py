"""Scores of recognised text: word error rate for English, character error rate for Chinese.

Both sides are first brought to one way of writing (``normalise``), so that only what was heard counts:
"Twenty colours!" and "20 colors" are the same. English numbers become digits, as in Whisper's published
scores (Radford et al. 2022, appendix C); Chinese digits become characters as they are read, so that the
length of a reference is its number of spoken syllables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import opencc

from stepaudio.core.distance import edit_distance


@dataclass(frozen=True, slots=True)
class Errors:
    """Edits between what was said and what was heard. They add up: ``sum(errors, Errors())``.

    Attributes:
        edits: substitutions + insertions + deletions.
        length: words (English) or characters (Chinese) of the reference.
    """

    edits: int = 0
    length: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.edits + other.edits, self.length + other.length)

    @property
    def rate(self) -> float:
        """Error rate as a fraction; may be over 1. 0 where nothing was to be heard and nothing was."""
        return self.edits / max(self.length, 1)


def errors(reference: str, heard: str, language: str) -> Errors:
    """Word errors of English ("en"), character errors of Chinese ("zh"), after ``normalise``."""
    said, got = (normalise(text, language) for text in (reference, heard))
    a, b = (list(said), list(got)) if language == "zh" else (said.split(), got.split())
    return Errors(edit_distance(a, b), len(a))


def normalise(text: str, language: str) -> str:
    """One way of writing: words apart by one space (English), nothing but characters (Chinese)."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return _chinese(text) if language == "zh" else _english(text)


# English: contractions in full, American spelling, numbers as digits.

_FILLERS = {"uh", "um", "hm", "hmm", "mm", "mmm", "mhm"}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_AMOUNT = r" ?(\d[\d.]*(?: (?:hundred|thousand|million|billion|trillion)\b)?)"
_PRONOUN = r"\b(he|she|it|that|there|here|what|who|where|when|how)"

# Applied in this order: "can't" is read before "n't".
_REWRITES = (
    (r"[‘’]", "'"),
    (r"[\[(<][^\])>]*[\])>]", " "),  # notes such as [laughter]
    (r"\bcan't\b|\bcannot\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"\blet's\b", "let us"),
    (r"'t(is|was)\b", r"it \1"),
    (r"n't\b", " not"),
    (r"'re\b", " are"),
    (r"'ll\b", " will"),
    (r"'ve\b", " have"),
    (r"\bi'm\b", "i am"),
    (r"'d (been|had|better)\b", r" had \1"),
    (r"'d\b", " would"),
    (_PRONOUN + r"'s (been|got|had|gone|done|become)\b", r"\1 has \2"),
    (_PRONOUN + r"'s\b", r"\1 is"),
    (r"\bgonna\b", "going to"),
    (r"\bwanna\b", "want to"),
    (r"\bgotta\b", "got to"),
    (r"\bmr\b", "mister"),
    (r"\bmrs\b", "missus"),
    (r"\bdr\b", "doctor"),
    (r"\bst\b", "saint"),
    (r"\bokay\b", "ok"),
    (r"\b([a-z])\.(?=[a-z]\b)", r"\1"),  # "a.m." is "am"
    (r"(?<=\d),(?=\d{3})", ""),
    (r"\$" + _AMOUNT, r"\1 dollars"),
    (r"£" + _AMOUNT, r"\1 pounds"),
    (r"€" + _AMOUNT, r"\1 euros"),
    (r"¢(\d+)", r"\1 cents"),
    (r"\b0\.(\d\d) dollars", r"\1 cents"),
    (r"%|\bper cent\b", " percent "),
    (r"\+(?=\d)", " positive "),
    (r"\b(\d+) ?(?:st|nd|rd|th)\b", r"\1 th"),  # joined again when the number words are digits, too
    (r"\b(\d+)s\b", r"\1 s"),
    (r"(?<=\d)(?=[a-z])|(?<=[a-z])(?=\d)", " "),  # "10km", "b747"
    (r"(?<!\d)\.|\.(?!\d)", " "),
    (r"'", ""),
)
# British endings to American ones. A word that is bent wrongly is bent on both sides.
_SPELLINGS = (
    (r"(?<=[a-z]{2})our(?=(s|ed|ing|ite|ites|able|hood|less)?$)", "or"),
    (r"(?<=[a-z]{3})is(?=(e|es|ed|ing|er|ers|ation|ations)$)", "iz"),
    (r"(?<=[a-z]{3})ys(?=(e|es|ed|ing|er|ers)$)", "yz"),
    (r"(?<=[a-z]{3}[aeiou])ll(?=(ed|ing|er|ers|ation|ations)$)", "l"),
    (r"(?<=[a-z]{2}[bt])re(?=s?$)", "er"),
    (r"(?<=[a-z]{3})ogue(?=s?$)", "og"),
    (r"(?<=[a-z]{3})ence$", "ense"),
    (r"^grey", "gray"),
    (r"^programme", "program"),
)


def _english(text: str) -> str:
    for pattern, full in _REWRITES:
        text = re.sub(pattern, full, text)
    # Letters lose their accents; a full stop is left only within a number.
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = "".join(c if c.isalnum() or c == "." else " " for c in text).split()
    return _digits(" ".join(_spell(word) for word in words if word not in _FILLERS))


@cache
def _spell(word: str) -> str:
    for pattern, ending in _SPELLINGS:
        word = re.sub(pattern, ending, word)
    return word


_UNITS = [
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBERS = {"zero": 0} | {w: n for n, w in enumerate(_UNITS, 1)} | {w: 10 * n for n, w in enumerate(_TENS, 2)}
_NUMBERS |= {f"{ten} {one}": _NUMBERS[ten] + n for ten in _TENS for n, one in enumerate(_UNITS[:9], 1)}
_ORDINALS = {"first": "one", "second": "two", "third": "three", "fifth": "five", "eighth": "eight"}
_ORDINALS |= {"ninth": "nine", "twelfth": "twelve"} | {f"{ten[:-1]}ieth": ten for ten in _TENS}
_ORDINALS |= {f"{word}th": word for word in [*_UNITS, "hundred", *_SCALES]}


def _words(pattern_of: dict) -> str:
    return r"\b(" + "|".join(sorted(pattern_of, key=len, reverse=True)) + r")\b"


def _digits(text: str) -> str:
    """Number words as digits; numbers side by side join, as in "nineteen ninety nine" and "9-1-1"."""
    text = re.sub(_words(_ORDINALS), lambda m: _ORDINALS[m[1]] + " th", text)
    text = re.sub(r"\b(hundred|thousand|million|billion|trillion)s\b", r"\1 s", text)
    text = re.sub(r"\ba (?=hundred\b|thousand\b|million\b|billion\b)", "one ", text)
    text = re.sub(r"\bdouble (oh|\d|zero|[a-z]+)\b", r"\1 \1", text)
    text = re.sub(r"\btriple (oh|\d|zero|[a-z]+)\b", r"\1 \1 \1", text)
    text = re.sub(_words(_NUMBERS), lambda m: str(_NUMBERS[m[1]]), text)
    text = re.sub(r"\b(?:oh )+(?=\d)|(?<=\d)(?: oh\b)+", lambda m: m[0].replace("oh", "0"), text)
    text = re.sub(r"\b(\d+) hundred\b(?: and(?= \d))?(?: (\d{1,2})\b(?!\.))?", _scaled(100), text)
    text = re.sub(r"\b(\d+) point((?: \d+)+)", lambda m: m[1] + "." + m[2].replace(" ", ""), text)
    text = re.sub(r"\b(\d+) and a half\b", r"\1.5", text)
    for digits, (word, scale) in zip((3, 6, 9, 12), _SCALES.items(), strict=True):
        amount = rf"\b(\d+(?:\.\d+)?) {word}\b(?: and(?= \d))?(?: (\d{{1,{digits}}})\b(?!\.))?"
        text = re.sub(amount, _scaled(scale), text)
    text = re.sub(_words(_SCALES), lambda m: str(_SCALES[m[1]]), text)
    text = re.sub(r"\bhundred\b", "100", text)
    text = re.sub(r"(?<=\d) (?=\d)", "", text)
    return re.sub(r"(?<=\d) (?=(th|s)\b)", "", text)


def _scaled(scale: int) -> Callable[[re.Match[str]], str]:
    return lambda m: f"{round(float(m[1]) * scale) + int(m[2] or 0)}"


# Chinese: simplified script, no punctuation, digits as they are read.

_HAN_DIGITS = "零一二三四五六七八九"
_ONE_READING = str.maketrans("两〇幺", "二零一")


def _chinese(text: str) -> str:
    text = _simplifier().convert(text)
    text = re.sub(r"(?<=\d)[\s,-]+(?=\d)", "", text)
    text = re.sub(r"(\d+(?:\.\d+)?)%", r"百分之\1", text)
    text = re.sub(r"°c?", "度", text)
    text = re.sub(r"(?<=\d):(?=\d\d)", "点", text)
    text = re.sub(r"(\d+)(?:\.(\d+))?(年?)", _read_number, text)
    return "".join(c for c in text if c.isalnum()).translate(_ONE_READING)


@cache
def _simplifier() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


def _read_number(match: re.Match[str]) -> str:
    whole, decimals, year = match[1], match[2], match[3]
    by_digit = len(whole) > 8 or (len(whole) > 1 and whole[0] == "0") or (year and len(whole) == 4)
    read = _digit_by_digit(whole) if by_digit else _cardinal(int(whole))
    return read + ("点" + _digit_by_digit(decimals) if decimals else "") + year


def _digit_by_digit(digits: str) -> str:
    return "".join(_HAN_DIGITS[int(d)] for d in digits)


def _cardinal(n: int) -> str:
    """A number under 10**8 as it is read: 10 is 十, 305 is 三百零五, 12000 is 一万二千."""
    if n >= 10_000:
        low = n % 10_000
        return (
            _cardinal(n // 10_000)
            + "万"
            + ("零" if 0 < low < 1000 else "")
            + (_thousands(low) if low else "")
        )
    read = _thousands(n)
    return read[1:] if read.startswith("一十") else read


def _thousands(n: int) -> str:
    """A number under 10,000 in full, with 一 before 十."""
    places = [
        _HAN_DIGITS[int(d)] + unit if d != "0" else "零" for d, unit in zip(f"{n:04}", "千百十 ", strict=True)
    ]
    return re.sub("零+", "零", "".join(places)).strip("零 ") or "零"
