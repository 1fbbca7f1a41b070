"""Phonemes that people write, in the alphabet that the voices learned (misaki's).

IPA is taken where every symbol of it has one place in that alphabet. What has none is an error: a voice would
make some sound of it, and not the one that was written.
"""

from __future__ import annotations

import re
import unicodedata

from stepaudio.core.errors import TagError
from stepaudio.tts.text.mandarin import ipa as syllable
from stepaudio.tts.text.pronouncer import ALPHABET

_PAIRS = {  # the longest first; the alphabet has one letter for each (misaki, EN_PHONES)
    "t͡s": "ʦ", "d͡z": "ʣ",  # with its tie only: "cats" ends in two sounds
    "eɪ": "A", "aɪ": "I", "aʊ": "W", "ɔɪ": "Y", "oʊ": "O", "əʊ": "Q",
    "tʃ": "ʧ", "dʒ": "ʤ", "tɕ": "ʨ", "dʑ": "ʥ", "ʈʂ": "ꭧ",
    "ɝː": "ɜɹ", "ɝ": "ɜɹ", "g": "ɡ", "ɫ": "l", "ɚ": "əɹ",
    "˨˩˦": "↓", "˧˥": "↗", "˥˩": "↘", "˥˥": "→", "˥": "→",
}  # fmt: skip
_DROPPED = "͜͡‿.|‖ˑ̯̩"
"""Ties, breaks of syllables, and marks that change nothing here."""
_OWN = frozenset("AIOQSTWY")
"""Letters of the voices' alphabet that mean something else, or nothing, in IPA."""
_SAMPA = {
    "aI": "I", "aU": "W", "OI": "Y", "oU": "O", "@U": "Q", "eI": "A", "tS": "ʧ", "dZ": "ʤ", "3:": "ɜː", "r\\": "ɹ",
    "@`": "əɹ", "3`": "ɜɹ", "A": "ɑ", "{": "æ", "V": "ʌ", "Q": "ɒ", "O": "ɔ", "@": "ə", "E": "ɛ", "I": "ɪ", "U": "ʊ",
    "S": "ʃ", "Z": "ʒ", "T": "θ", "D": "ð", "N": "ŋ", "3": "ɜ", "g": "ɡ", '"': "ˈ", "%": "ˌ", ":": "ː", "4": "ɾ",
    "?": "ʔ", "r": "ɹ",
}  # fmt: skip
_SAMPA_SYMBOL = re.compile("|".join(map(re.escape, sorted(_SAMPA, key=len, reverse=True))) + "|.", re.S)
_TIED = re.compile("(?<!t)(?<!d)[͜͡]|[͜͡](?![sz])")
_STRESS = re.compile("([ˈˌ])([^ AIOQWYaeiouyæɐɑɒɔəɚɛɜɤɨɪɯøœʊʌᵊᵻˈˌ]+)([AIOQWYaeiouyæɐɑɒɔəɚɛɜɤɨɪɯøœʊʌᵊᵻ])")
_PAIR = re.compile("|".join(sorted(_PAIRS, key=len, reverse=True)))


def read(alphabet: str, symbols: str) -> str:
    """Phonemes in the voices' alphabet.

    Args:
        alphabet: "ipa", "x-sampa", "misaki" (the voices' own), or "pinyin" with tone digits ("ni3 hao3").

    Raises:
        TagError: another alphabet, or a symbol that the voices do not have; the message names it.
    """
    match alphabet:
        case "ipa":
            return _checked(_stressed(_of_ipa(symbols)), symbols)
        case "x-sampa" | "sampa":
            said = _SAMPA_SYMBOL.sub(lambda symbol: _SAMPA.get(symbol[0], symbol[0]), symbols)
            return _checked(_stressed(said), symbols)
        case "misaki":
            return _checked(symbols, symbols)
        case "pinyin" | "py" | "x-pinyin":
            found = [(one, syllable(one.lower())) for one in symbols.split()]
            if strange := [one for one, said in found if not said]:
                raise TagError(f"{strange[0]!r} is no syllable of pinyin: write it as zhong1 guo2, ü as v")
            return "".join(char for _, said in found for char in said if char in ALPHABET)
        case _:
            raise TagError(
                f"the alphabet {alphabet!r} cannot be read: there are ipa, x-sampa, pinyin, misaki"
            )


def _of_ipa(symbols: str) -> str:
    symbols = unicodedata.normalize("NFD", symbols.strip().strip("/[]")).replace("c\u0327", "ç")
    if strange := sorted(_OWN & set(symbols)):
        raise TagError(f'{strange[0]!r} is no letter of IPA: write alphabet="misaki" for the voices\' own')
    symbols = symbols.replace("t͜s", "t͡s").replace("d͜z", "d͡z")
    symbols = _PAIR.sub(lambda pair: _PAIRS[pair[0]], _TIED.sub("", symbols))
    symbols = "".join(char for char in symbols if char not in _DROPPED)
    return symbols.replace("'", "ˈ").replace(",", "ˌ").replace(":", "ː").replace("r", "ɹ")


def _stressed(said: str) -> str:
    """Marks of stress before the vowel, where the voices learned them, and not before its syllable."""
    return _STRESS.sub(r"\2\1\3", said)


def _checked(said: str, symbols: str) -> str:
    strange = [char for char in said if char not in ALPHABET]
    if strange:
        raise TagError(f"the voices have no sound for {strange[0]!r} in {symbols!r}: write a near one")
    if not said.strip():
        raise TagError("there is no phoneme in it")
    return " ".join(said.split())
