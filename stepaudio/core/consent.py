"""The consent to a cloned voice: what its owner reads aloud, and whether that was read.

A phrase names the service and what it does, and has a code of random digits, so that a recording made for
another occasion does not fit. Who reads it is not known here: the voices are compared elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from stepaudio.core.distance import edit_distance
from stepaudio.core.errors import AudioError, ConfigError, unknown

PHRASES = {
    "en": "I agree that Step Audio makes a synthetic voice from my recording. My code is {code}.",
    "zh": "我同意用我的录音制作合成声音。我的验证码是{code}。",
}
DIGITS = 4
VALID_S = 24 * 3600
"""How long after it was asked for a consent can be given, seconds."""
WRONG = 0.35
"""Share of the words (English) or characters (Chinese) before the code that may be heard wrong: the
recogniser errs, more so on accents; another sentence is wrong by far more."""

AGREES = {"en": ["i", "agree"], "zh": list("我同意")}
"""Words that must be heard as they are: it is them that a consent is made of."""
_REFUSES = {
    "en": re.compile(
        r"not?|no(?:ne|body|thing)|never|nor|without|refuse|disagree|against|cannot|stop|.*n't|dont"
    ),
    "zh": re.compile("[不没未别勿莫非无拒反否]"),
}
"""A word (English) or character (Chinese) of a refusal."""

# No 0 and 1: they have two names each. Chinese 2 is never said 两 in a row of digits.
_ALPHABET = "23456789"
_NAMES = {
    "en": dict(zip(_ALPHABET, "two three four five six seven eight nine".split(), strict=True)),
    "zh": dict(zip(_ALPHABET, "二三四五六七八九", strict=True)),
}
_SAME_SOUND = {"to": "2", "too": "2", "for": "4", "ate": "8"}  # what digits are heard as


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """What somebody was asked to read.

    Attributes:
        language: "en" or "zh".
        code: ``DIGITS`` digits.
        asked_s: when, seconds of Unix time.
    """

    language: str
    code: str
    asked_s: float

    @property
    def phrase(self) -> str:
        """What to read aloud; the code digit by digit."""
        names = _NAMES[self.language]
        spoken = (" " if self.language == "en" else "").join(names[digit] for digit in self.code)
        return PHRASES[self.language].format(code=spoken)


def ask(language: str, now_s: float, choose: Callable[[str], str]) -> ConsentRequest:
    """A new request.

    Args:
        language: "en" or "zh".
        now_s: seconds of Unix time.
        choose: takes one letter of a string, by chance that nobody can foretell.

    Raises:
        ConfigError: there is no phrase in that language.
    """
    if language not in PHRASES:
        raise unknown("language of a consent", language, PHRASES)
    return ConsentRequest(language, "".join(choose(_ALPHABET) for _ in range(DIGITS)), now_s)


def check(request: ConsentRequest, heard: str, now_s: float) -> None:
    """Whether what was heard is what was asked for, in time.

    Args:
        heard: what the recogniser understood.

    Raises:
        AudioError: another sentence (a refusal, too) or another code was read; the message says what to read.
        ConfigError: it was asked for too long ago.
    """
    if now_s - request.asked_s > VALID_S:
        raise ConfigError(
            "the consent was asked for more than a day ago; ask for a new one: stepaudio voices consent"
        )
    found, asked = (_tokens(text, request.language) for text in (heard, request.phrase))
    said = asked[:-DIGITS]
    code = list(request.code)
    begins = [i for i in range(len(found) - DIGITS + 1) if found[i : i + DIGITS] == code]
    before = found[: begins[-1]] if begins else found
    agrees = AGREES[request.language]
    agreed = any(before[i : i + len(agrees)] == agrees for i in range(len(before)))
    refused = any(_REFUSES[request.language].fullmatch(word) for word in before)
    if refused or not agreed or edit_distance(before, said) > WRONG * len(said):
        raise AudioError(f'the consent is of another sentence; record this one: "{request.phrase}"')
    if not begins:
        raise AudioError(
            f'the consent has another code, or none that is clear; record this: "{request.phrase}" '
            "(digit by digit)"
        )


def _tokens(text: str, language: str) -> list[str]:
    """Words in lower case, or characters; digits one by one."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    digits = {name: digit for digit, name in _NAMES[language].items()}
    if language == "en":
        words = re.findall(r"\d|[a-z']+", text)
        return [digits.get(word, _SAME_SOUND.get(word, word)) for word in words]
    return [digits.get(sign, sign) for sign in re.findall(r"[\d\u3400-\u9fff]", text)]
