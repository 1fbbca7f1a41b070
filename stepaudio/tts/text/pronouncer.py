"""From a text as written to words as spoken, in English, Mandarin, and both in one sentence; Chinese text in
the dialect that is asked for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from stepaudio.tts.text import chinese, colloquial, english
from stepaudio.tts.text.chinese import is_han
from stepaudio.tts.text.markup import plain
from stepaudio.tts.text.rules import Piece
from stepaudio.tts.text.tones import Syllable, Tone

if TYPE_CHECKING:
    from stepaudio.tts.text.mandarin import Mandarin

ALPHABET = frozenset(
    ';:,.!?—…"()“” ̃ʣʥʦʨᵝꭧAIOQSTWYᵊabcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʧʊʋʌɣɤχʎʒʔˈˌːʰʲ↓→↗↘ᵻ'
)
"""What Kokoro-82M knows (its vocab.json); nothing else comes out."""

LONGEST_READ = 2000
"""Characters of a line that are read in one go, so that no rule can look farther than that."""
_LONGEST_WORD = 40  # letters; what is longer is no word and is read in pieces
_LONGEST_RUN = 60  # English words that are tagged in one go

_SIGNS = {
    "，": ",",
    "、": ",",
    "。": ".",
    "！": "!",
    "？": "?",
    "：": ":",
    "；": ";",
    "–": "—",
    "⋯": "…",
    "‥": "…",
}
_SIGNS |= {sign: sign for sign in ",.!?:;—…"} | {"︰": ":", "؟": "?", "،": ",", "।": "."}
_STRENGTH = {sign: strength for strength, sign in enumerate(",—:;.…!?")}
_WIDE = str.maketrans(",.!?:;", "，。！？：；")
_WIDE_SIGNS = "，。！？：；"
_SIGNS_OF_MELODY = "".join(_STRENGTH)
_COLLOQUIAL = {"cmn-sichuan": "sichuanese", "yue": "cantonese"}
"""Dialects with words of their own, and the names of their tables."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """One written piece and how it is said.

    Attributes:
        written: the piece of the text that it says: an English word, a Chinese character, or a number with all
            that belongs to it ("$3.50"); without the punctuation around it. In order and without overlap.
        spoken: in words ("three dollars fifty cents"); a sign that shapes the melody may follow.
        phonemes: in Kokoro's alphabet, with that sign and the space to the next word.
        language: "en" or "zh".
        tones: of its syllables, by their places in ``phonemes``, where a dialect has its own; () where the
            voice knows them.
    """

    written: str
    spoken: str
    phonemes: str
    language: str
    tones: tuple[Tone, ...] = ()


@dataclass(slots=True)
class _Word:
    start: int  # in the text as written
    end: int
    spoken: str
    language: str
    sign: str = ""
    phonemes: str = ""
    tones: tuple[Tone, ...] = ()


class _Reader(Protocol):
    """Reads Chinese characters in one dialect."""

    def syllables(self, text: str, start: int, end: int) -> tuple[list[Syllable], list[int]]:
        """A syllable for every character of ``text[start:end]``, and where in it words begin."""
        ...


def phonemes(words: Iterable[SpokenWord]) -> str:
    """The phonemes of words in a row: what a voice is given."""
    return "".join(word.phonemes for word in words)


class Pronouncer:
    """Reads text aloud, on paper. Dictionaries are loaded when a language is first met; may be shared.

    Args:
        colloquial: in a dialect, say its own words where written Chinese has others, and a rule is safe.
    """

    def __init__(self, *, colloquial: bool = True) -> None:
        self._colloquial = colloquial

    def speakable(self, text: str, language: str | None = None, *, dialect: str | None = None) -> str:
        """A text in words, as it would be said; "" where there is nothing to say.

        Args:
            text: anything.
            language: "en" or "zh": the language of numbers and signs. None: that of the words around them.
            dialect: "cmn-sichuan" or "yue": what Chinese is read in, instead of Mandarin.
        """
        words = self._words(text, language, dialect)
        said = ""
        for word, following in zip(words, [*words[1:], None], strict=False):
            if said and not (said[-1] in _WIDE_SIGNS or (is_han(said[-1]) and is_han(word.spoken[0]))):
                said += " "
            wide = word.language == "zh" or (
                word.sign != "." and following is not None and following.language == "zh"
            )
            said += (word.spoken.translate(_WIDE) if word.language == "zh" else word.spoken) + (
                word.sign.translate(_WIDE) if wide else word.sign
            )
        return said

    def pronounce(
        self,
        text: str,
        language: str | None = None,
        accent: str = "en-US",
        *,
        dialect: str | None = None,
    ) -> tuple[SpokenWord, ...]:
        """A text word by word; () where there is nothing to say.

        Args:
            text: anything.
            language, dialect: as for ``speakable``.
            accent: of the English words: "en-US" or "en-GB".
        """
        words = self._words(text, language, dialect)
        self._pronounce(words, accent, dialect)
        return tuple(
            SpokenWord(
                text[word.start : word.end], word.spoken + word.sign, word.phonemes, word.language, word.tones
            )
            for word in words
        )

    # --- words -----------------------------------------------------------------------------------

    def _words(self, text: str, language: str | None, dialect: str | None = None) -> list[_Word]:
        clean = plain(text)
        words: list[_Word] = []
        line_start = 0
        for line in clean.text.split("\n"):
            if words and not words[-1].sign and line.strip():
                words[-1].sign = "."  # a line that ends is a phrase that ends
            for start, end in _portions(line):
                portion = line[start:end]
                own = self._own_words(portion, dialect)
                self._read_line(portion, clean.origin, line_start + start, language, words, own)
            line_start += len(line) + 1
        return words

    def _own_words(self, line: str, dialect: str | None) -> dict[int, Piece]:
        """What a dialect says in its own words, by where it begins."""
        if not (self._colloquial and dialect in _COLLOQUIAL and any(map(is_han, line))):
            return {}
        found = colloquial.words(self._mandarin.simplified(line), _COLLOQUIAL[dialect])
        return {piece.start: piece for piece in found}

    @staticmethod
    def _read_line(
        line: str,
        origin: list[int],
        offset: int,
        language: str | None,
        words: list[_Word],
        own: dict[int, Piece],
    ) -> None:
        """Append the words of a line, whose characters come from ``origin[offset:]``."""
        spoken_in = _languages(line, language)
        at = previous_end = 0
        while at < len(line):
            char = line[at]
            if char.isspace():
                at += 1
                continue
            if at and at == previous_end and words and _POSSESSIVE.match(line, at):  # "the 1980's", "NASA's"
                words[-1].spoken += "'s"
                words[-1].end = origin[offset + at + 1] + 1
                at = previous_end = at + 2
                continue
            pieces = (
                [own[at]]
                if at in own
                else []
                if char in _SIGNS and not _begins_number(line, at)
                else _read(line, at, previous_end, spoken_in[at])
            )
            if not pieces:
                sign = _melody(line, at)
                if sign == "dot":
                    pieces = [Piece(at, at + 1, "点" if spoken_in[at] == "zh" else "dot", spoken_in[at])]
                elif sign and words:
                    words[-1].sign = _stronger(words[-1].sign, sign)
            for piece in pieces:
                spoken = piece.spoken.rstrip(_SIGNS_OF_MELODY + " ")
                start, end = origin[offset + piece.start], origin[offset + piece.end - 1] + 1
                if words and start < words[-1].end:  # one written character that stands for several ("㍿")
                    words[-1].spoken += ("" if piece.language == "zh" else " ") + spoken
                    words[-1].end = max(end, words[-1].end)
                elif spoken:
                    own_sign = piece.spoken.rstrip()[-1:] if piece.spoken.rstrip() != spoken else ""
                    words.append(
                        _Word(start, end, spoken, piece.language, own_sign if own_sign in _STRENGTH else "")
                    )
                previous_end = piece.end
            at = max(at + 1, pieces[-1].end if pieces else 0)

    # --- phonemes --------------------------------------------------------------------------------

    def _pronounce(self, words: list[_Word], accent: str, dialect: str | None = None) -> None:
        """Fill in the phonemes of every word, and the tones where a dialect has its own."""
        units = [unit for index, word in enumerate(words) for unit in _units(index, word)]
        text, places = "", []
        if any(unit.han for unit in units):
            for unit in units:
                places.append(len(text))
                text += unit.text + unit.sign.translate(_WIDE)
            if dialect != "yue":  # 係 is not 系 there
                text = self._mandarin.simplified(text)
        start = 0
        while start < len(units):
            end = start + 1
            while (
                end < len(units)
                and units[end].han == units[start].han
                and not _phrase_ends(units, start, end)
            ):
                end += 1
            run = units[start:end]
            if run[0].han:
                self._chinese(run, text, places[start], self._reader(dialect))
            else:
                self._english(run, accent)
            start = end
        for unit, following in zip(units, [*units[1:], None], strict=False):
            word = words[unit.word]
            sounds = "".join(sound for sound in unit.phonemes if sound in ALPHABET)
            # English words, and Chinese words rather than characters, are apart; so is all that a sign parts.
            space = (
                " "
                if following and (unit.sign or unit.ends_word or not unit.han or not following.han)
                else ""
            )
            word.tones += tuple(tone.moved(len(word.phonemes)) for tone in unit.tones)
            word.phonemes += sounds + unit.sign + space

    @staticmethod
    def _chinese(run: list[_Unit], text: str, start: int, reader: _Reader) -> None:
        """Phonemes of Chinese units that follow each other without a sign, ``text[start:]``."""
        size = sum(len(unit.text) for unit in run)
        found, begins = reader.syllables(text, start, start + size)
        ends = {begin - 1 for begin in begins} | {size - 1}
        at = 0
        for unit in run:
            last = at + len(unit.text) - 1
            for i in range(at, last + 1):
                if tone := found[i].tone:
                    unit.tones += (tone.moved(len(unit.phonemes)),)
                unit.phonemes += found[i].phonemes + (" " if i in ends and i < last else "")
            unit.ends_word = last in ends
            at = last + 1

    def _english(self, run: list[_Unit], accent: str) -> None:
        """Phonemes of English words, found in their context: tags, linking and stress depend on it."""
        text, ends = "", []
        for unit in run:
            text += unit.text + unit.sign
            ends.append(len(text))
            text += " "
        g2p = _british() if accent == "en-GB" else _american()
        at = number = 0
        for token in g2p.phonemize_tokens(g2p.tokenize(text)):
            while at >= ends[number] and number < len(run) - 1:
                number += 1
            unit = run[number]
            sounds = token.phonemes or ""
            if token.text == "A" and (" " in unit.text or len(run) == 1):
                sounds = "ˈA"  # a letter, not the article
            sounds = sounds.strip(_SIGNS_OF_MELODY + '“”"() ')
            if sounds:
                unit.phonemes += (" " if unit.phonemes else "") + sounds
            at += len(token.text) + len(token.whitespace)

    @cached_property
    def _mandarin(self) -> Mandarin:
        from stepaudio.tts.text.mandarin import Mandarin

        return Mandarin()

    def _reader(self, dialect: str | None) -> _Reader:
        if dialect == "yue":
            return self._cantonese
        return self._sichuanese if dialect == "cmn-sichuan" else self._mandarin

    @cached_property
    def _sichuanese(self) -> _Reader:
        from stepaudio.tts.text.sichuanese import Sichuanese

        return Sichuanese(self._mandarin)

    @cached_property
    def _cantonese(self) -> _Reader:
        from stepaudio.tts.text.cantonese import Cantonese

        return Cantonese(self._mandarin)


# --- English dictionaries ------------------------------------------------------------------------


def _g2p(british: bool) -> Any:
    from hibari.g2p import ASSETS, G2P
    from hibari.g2p.oov import OOV

    network: list[Any] = []

    @lru_cache(4096)
    def unknown_word(word: str) -> str | None:
        if not network:  # loaded with the first word that is in no dictionary
            network.append(OOV(f"{ASSETS}/{'oov_gb' if british else 'oov'}.onnx"))
        return network[0](word)

    return G2P(oov=unknown_word, british=british)


@lru_cache(1)
def _american() -> Any:
    return _g2p(british=False)


@lru_cache(1)
def _british() -> Any:
    return _g2p(british=True)


# --- pieces of lines -----------------------------------------------------------------------------


def _portions(line: str) -> Iterator[tuple[int, int]]:
    start = 0
    while len(line) - start > LONGEST_READ:
        window = line[start : start + LONGEST_READ]
        cut = max(window.rfind(sign) for sign in " ，。") + 1 or LONGEST_READ
        yield start, start + cut
        start += cut
    if start < len(line):
        yield start, len(line)


_SENTENCE = re.compile(r"(?:[^。！？.!?]|[.!?](?!\s|$))+[。！？.!?]*|[。！？.!?]+")
_SEGMENT = re.compile(r"(?:[^；，“”\"();:,]|[:,](?=\d))+[；，“”\"();:,]?|[；，“”\"();:,]")
# An address is one word, and a unit behind its number is none.
_LATIN_WORD = re.compile(r"(?<![\dA-Za-zÀ-ɏ])[A-Za-zÀ-ɏ]+(?:[.@/:_]+[A-Za-zÀ-ɏ\d]+)*")


def _languages(line: str, language: str | None) -> list[str]:
    """For every character of a line, the language of the words around it."""
    if language in ("en", "zh"):
        return [language] * len(line)
    found: list[tuple[int, str | None]] = []
    for sentence in _SENTENCE.findall(line):
        all_han = sum(map(is_han, sentence))
        for segment in _SEGMENT.findall(sentence):
            han, latin = sum(map(is_han, segment)), len(_LATIN_WORD.findall(segment))
            if han:
                kind = "zh" if han >= 0.75 * latin else "en"
            elif latin:
                # A name or two between commas does not leave the Chinese sentence.
                kind = "zh" if all_han > 2 and latin < 3 else "en"
            else:
                kind = None
            found.append((len(segment), kind))
    kinds: list[str | None] = [kind for _, kind in found]
    for order in (range(len(kinds)), reversed(range(len(kinds)))):
        seen = None
        for index in order:
            seen = kinds[index] = kinds[index] or seen
    return [kind or "en" for (size, _), kind in zip(found, kinds, strict=True) for _ in range(size)]


_POSSESSIVE = re.compile(r"'[sS](?![A-Za-z])")
_OTHER_SCRIPT = re.compile(r"[^\W\d_A-Za-zÀ-ɏ㐀-鿿\uf900-\ufaff]+")


def _read(line: str, at: int, previous_end: int, language: str) -> list[Piece]:
    """What stands at a place of a line, in the language of the words around, or its own."""
    char = line[at]
    if is_han(char):
        return chinese.read(line, at, previous_end)
    if language == "zh":
        pieces = chinese.read(line, at, previous_end)
    elif char.isdigit() and re.compile(r"[\d.,%]+[㐀-鿿]").match(line, at):
        pieces = chinese.read(line, at, previous_end)  # "3个" in an English sentence
    else:
        pieces = english.read(line, at, previous_end)
    if pieces or not char.isalpha():
        return pieces
    other = _OTHER_SCRIPT.match(line, at)
    if not other:
        return []
    # No voice here reads kana, hangul, Cyrillic: better said by their sound than passed over.
    from anyascii import anyascii

    latin = re.sub(r"[^a-z]+", " ", anyascii(other.group()).lower()).strip()
    return [Piece(*other.span(), latin, "en")] if latin else []


def _begins_number(line: str, at: int) -> bool:
    """Whether a full stop or dash is part of a number or range: ".5", "3–5"."""
    if line[at] == ".":
        return line[at + 1 : at + 2].isdigit() and not (
            at and (line[at - 1].isalnum() or line[at - 1] == ".")
        )
    around = line[max(0, at - 2) : at + 3]
    return line[at] in "—–" and re.search(r"[^\W_]\s?[—–]\s?\d", around) is not None


def _melody(line: str, at: int) -> str:
    """The sign that a character adds after the word before it; "dot" for one that is said."""
    char, before, after = line[at], line[at - 1 : at] if at else "", line[at + 1 : at + 2]
    if char == ".":
        if line.startswith("NET", at + 1) and not line[at + 4 : at + 5].isalpha():
            return "dot"
        if after == "." or before == ".":
            return "…" if after == "." == line[at + 2 : at + 3] else "."
        return (
            "dot"
            if before.isalnum()
            and not is_han(before)
            and after.isalnum()
            and after.isascii()
            and not after.isupper()
            else "."
        )
    if char == "-":
        return "—" if (before in (" ", "-", "") and after in (" ", "-")) else ""
    if char == "(":
        return "," if before.isspace() or (before and is_han(before)) else ""
    if char == ")":
        return "," if line[at + 1 :].strip() and not (after.isascii() and after.isalnum()) else ""
    return _SIGNS.get(char, "")


def _stronger(first: str, second: str) -> str:
    if not first:
        return second
    return max(first, second, key=lambda sign: _STRENGTH[sign])


# --- units: stretches of one script within a spoken word ---------------------------------------------


@dataclass(slots=True)
class _Unit:
    word: int
    text: str
    han: bool
    sign: str = ""
    phonemes: str = ""
    ends_word: bool = True
    tones: tuple[Tone, ...] = ()


_UNIT = re.compile(
    r"(?P<han>[㐀-鿿\uf900-\ufaff]+)|(?P<sign>[,.!?:;—…])|(?P<latin>[^㐀-鿿\uf900-\ufaff,.!?:;—…]+)"
)


def _units(index: int, word: _Word) -> list[_Unit]:
    units: list[_Unit] = []
    for match in _UNIT.finditer(word.spoken):
        if match.lastgroup == "sign":
            if units:
                units[-1].sign = match.group()
            continue
        text = match.group().strip()
        if not text:
            continue
        if match.lastgroup == "latin":
            text = " ".join(_short_words(text))
        units.append(_Unit(index, text, match.lastgroup == "han"))
    if units and word.sign:
        units[-1].sign = word.sign
    return units


def _short_words(text: str) -> Iterator[str]:
    """Words fit for a dictionary: capitals that are no acronym in small letters, endless ones in pieces."""
    for word in text.split():
        if word.count("-") > 3:
            yield from _short_words(word.replace("-", " "))
            continue
        if word.count("'") > 2:
            word = word.replace("'", "")
        if not word.isascii():  # é is in the dictionaries, ǒ is not
            word = "".join(c if c < "\u0100" else unicodedata.normalize("NFD", c)[0] for c in word)
        if word.isupper() and len(word) > 5 and word.isalpha():
            word = word.lower()
        for start in range(0, len(word), _LONGEST_WORD):
            yield word[start : start + _LONGEST_WORD]


def _phrase_ends(units: list[_Unit], start: int, at: int) -> bool:
    if units[start].han:
        return bool(units[at - 1].sign) or at - start >= 4 * _LONGEST_RUN
    return (
        units[at - 1].sign in (".", "!", "?", "…", ";") and units[at - 1].sign != ""
    ) or at - start >= _LONGEST_RUN
