"""SSML: the part of the W3C's Speech Synthesis Markup Language 1.1 that these voices can follow.

It is read into the same tokens as tags in brackets (``tagged``), which work in its text, too. What cannot be
followed is an error that says so: nothing is passed over in silence, unless elements that are not known are
to be ("speak").
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Mapping
from datetime import date
from typing import Any
from xml.parsers import expat

from stepaudio.core.clauses import Clause, ClauseSplitter, is_han
from stepaudio.core.errors import TagError
from stepaudio.core.style import NO_STYLE, SpeechStyle
from stepaudio.core.tagged import Close, Open, Point, TagReader, Token, Track, Unknown
from stepaudio.core.tags import BY_NAME, PAUSES_MS, PITCHES, RANGES, SPEEDS, VOLUMES, fold, milliseconds

DEEPEST = 32
"""Elements in elements."""
LONGEST_SAID = 200
"""Characters of ``say-as`` and ``phoneme``."""

Phonemes = Callable[[str, str], str]
"""Alphabet and symbols of a ``phoneme`` -> the voices' alphabet. Raises ``TagError`` for what it has not."""

_BREAKS_MS = {"none": 0, "x-weak": 100, "weak": 200, "medium": 400, "strong": 700, "x-strong": 1000}
_RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.5}
_PITCHES = {"x-low": -4.0, "low": -2.0, "medium": 0.0, "default": 0.0, "high": 2.0, "x-high": 4.0}
_RANGES = {"x-low": 0.4, "low": 0.7, "medium": 1.0, "default": 1.0, "high": 1.4, "x-high": 1.7}
_VOLUMES = {
    "silent": -24.0,
    "x-soft": -12.0,
    "soft": -6.0,
    "medium": 0.0,
    "default": 0.0,
    "loud": 6.0,
    "x-loud": 9.0,
}
_EMPHASIS = {"none": 0, "reduced": -1, "moderate": 1, "strong": 2}
_LANGUAGES = {
    "en": "en", "en-us": "en-US", "en-gb": "en-GB", "zh": "cmn", "zh-cn": "cmn", "zh-hans": "cmn",
    "cmn": "cmn", "cmn-cn": "cmn", "zh-hk": "yue", "zh-yue": "yue", "yue": "yue", "yue-hk": "yue",
    "yue-cn": "yue", "zh-cn-sichuan": "cmn-sichuan", "cmn-sichuan": "cmn-sichuan", "ja": "ja",
    "ja-jp": "ja", "ko": "ko", "ko-kr": "ko",
}  # fmt: skip
_INTENSITIES = {"low": 1, "medium": 2, "high": 3}
_PASSED_OVER = frozenset("metadata meta lexicon lookup desc".split())
"""What these hold is not speech."""
_ATTRIBUTES = {
    "speak": "version", "p": "", "s": "", "w": "role", "token": "role", "break": "time strength",
    "prosody": "rate pitch range volume contour duration", "emphasis": "level", "voice": "name", "lang": "",
    "phoneme": "alphabet ph", "say-as": "interpret-as format detail", "sub": "alias", "mark": "name",
    "bookmark": "mark", "express-as": "style styledegree", "effect": "name",
    "emotion": "name intensity",
}  # fmt: skip
"""The elements that are known, and their attributes (besides those of XML itself)."""
_BEGINS = re.compile(
    r"\ufeff?\s*(?:<\?xml[^>]*\?>\s*)?(?:<!DOCTYPE[^>\[]*(?:\[[^\]]*\])?[^>]*>\s*)?<speak[\s/>]"
)


def is_ssml(text: str) -> bool:
    """Whether a text is SSML: it begins with ``<speak>``."""
    return _BEGINS.match(text) is not None


def read(
    text: str,
    *,
    style: SpeechStyle = NO_STYLE,
    unknown: Unknown = "speak",
    strangers: bool = False,
    voices: Container[str] | None = None,
    phonemes: Phonemes | None = None,
) -> list[Token]:
    """SSML as text, and what it asks for.

    Args:
        text: a document, or the inside of one.
        style: that is spoken in, which "80%" and "+2st" are relative to.
        unknown: what becomes of brackets in its text that look like tags and are none.
        strangers: elements and attributes that are not known are passed over, and not an error.
        voices: names of voices that there are; None: any name may be one.
        phonemes: reads ``phoneme``; without it, that is an error.

    Raises:
        TagError: it is not well-formed, or asks for something that cannot be; the message says where.
    """
    return _Document(style, unknown, strangers, voices, phonemes).read(text)


def split(
    text: str,
    *,
    style: SpeechStyle = NO_STYLE,
    unknown: Unknown = "speak",
    strangers: bool = False,
    voices: Container[str] | None = None,
    phonemes: Phonemes | None = None,
) -> list[Clause]:
    """SSML in clauses; see ``read``."""
    tokens = read(text, style=style, unknown=unknown, strangers=strangers, voices=voices, phonemes=phonemes)
    return ClauseSplitter(eager=False, style=style).feed(tokens, final=True)


class _Document:
    def __init__(
        self,
        style: SpeechStyle,
        unknown: Unknown,
        strangers: bool,
        voices: Container[str] | None,
        phonemes: Phonemes | None,
    ) -> None:
        self._strangers, self._voices, self._phonemes = strangers, voices, phonemes
        self._reader = TagReader(unknown=unknown, strict=True, voices=voices)
        self._tokens: list[Token] = []
        self._track = Track(style)  # follows along, for what is relative
        self._script = "en"  # or "cmn": what the language is taken for where nothing says it
        self._added = 0  # characters put before the first line
        self._open: list[str] = []  # elements
        self._silent = 0  # elements around whose text is not spoken
        self._raw: list[str] | None = None  # the text of a say-as, phoneme or sub
        self._said: Mapping[str, str] = {}
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, text: str) -> list[Token]:
        text = text.removeprefix("\ufeff").lstrip()
        self._script = "cmn" if any(map(is_han, text)) else "en"
        if not is_ssml(text):
            text, self._added = f"<speak>{text}</speak>", len("<speak>")
        try:
            self._parser.Parse(text.encode("utf-8", "replace"), True)
        except expat.ExpatError as error:
            raise TagError(
                f"the SSML is not well-formed XML in {self._place(error.lineno, error.offset)}: "
                f"{expat.ErrorString(error.code)}. Write &lt; and &amp; for < and &, and close every element"
            ) from None
        self._put(self._reader.flush())
        return self._tokens

    # What XML consists of

    def _doctype(self, name: str, system: str | None, public: str | None, inside: bool) -> None:
        if inside or name != "speak":
            raise self._error("a <!DOCTYPE> that defines something is not read: leave it out")

    def _characters(self, text: str) -> None:
        if self._silent:
            return
        if self._raw is not None:
            self._raw.append(text)
        else:
            self._put(self._reader.push(re.sub(r"[ \t\r\n]+", " ", text)))

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if len(self._open) >= DEEPEST:
            raise self._error(f"<{name}> is in too many others: at most {DEEPEST}")
        if bool(self._open) == (name == "speak"):
            raise self._error(f"<{name}> is out of place: SSML is one <speak> around all the rest")
        self._open.append(name)
        if self._silent or name in _PASSED_OVER:
            self._silent += 1
            return
        if self._raw is not None:
            raise self._error(f"<{name}> cannot stand there: only text can")
        self._check(name, attributes)
        self._put(self._reader.settle())
        own = {k.rpartition(":")[2]: fold(v) for k, v in attributes.items() if not k.startswith("xmlns")}
        if name in ("phoneme", "say-as", "sub"):
            self._raw, self._said = [], attributes
        elif name == "break":
            self._pause(own)
        elif name in ("mark", "bookmark"):
            self._mark(attributes.get("name") or attributes.get("mark") or "")
        else:
            if name in ("p", "s"):
                self._put(self._reader.settle("\n"))
            self._reader.open(name)
            self._put([Open(self._style(name, own, attributes))])

    def _end(self, name: str) -> None:
        name = self._open.pop()
        if self._silent:
            self._silent -= 1
        elif self._raw is not None:
            text = " ".join("".join(self._raw).split())
            self._raw = None
            self._replace(name, text)
        elif name not in ("break", "mark", "bookmark"):
            self._put(self._reader.settle())
            self._reader.close(name)
            self._put([Close()])
            if name in ("p", "s"):
                self._put(self._reader.settle("\n"))

    def _check(self, name: str, attributes: Mapping[str, str]) -> None:
        if name not in _ATTRIBUTES:
            if not self._strangers:
                raise self._error(f"<{name}> cannot be followed: leave it out")
            return
        known = _ATTRIBUTES[name].split()
        for attribute in attributes:
            if attribute not in known and not attribute.startswith("xml") and not self._strangers:
                raise self._error(f"{attribute} of <{name}> cannot be followed: leave it out")

    def _put(self, tokens: list[Token]) -> None:
        for token in tokens:
            if not isinstance(token, str):
                self._track.put(0, token)
        self._tokens += tokens

    def _error(self, problem: str) -> TagError:
        place = self._place(self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber)
        return TagError(f"SSML, {place}: {problem}")

    def _place(self, line: int, column: int) -> str:
        return f"line {line}, column {max(0, column - self._added if line == 1 else column) + 1}"

    # What elements ask for

    def _style(self, name: str, own: Mapping[str, str], attributes: Mapping[str, str]) -> SpeechStyle:
        said: dict[str, Any] = {}
        if "lang" in own:
            said["dialect"] = self._language(own["lang"])
        elif name == "lang":
            raise self._error('<lang> needs a language: <lang xml:lang="en-GB">')
        match name:
            case "prosody":
                said |= self._prosody(own)
            case "emphasis":
                said["emphasis"] = self._one_of(_EMPHASIS, own.get("level", "moderate"), "level")
            case "voice":
                if "name" in own:
                    said["voice"] = self._voice(attributes["name"])
                elif "lang" not in own:
                    raise self._error('<voice> needs a name: <voice name="af_heart">')
            case "express-as" | "emotion":
                said |= self._emotion(own.get("style") or own.get("name") or "", own)
            case "effect":
                if own.get("name") != "whispered":
                    raise self._error(f"the effect {own.get('name')!r} cannot be had: only whispered")
                said["mode"] = "whisper"
            case _:
                pass
        return SpeechStyle(**said)

    def _prosody(self, own: Mapping[str, str]) -> dict[str, float]:
        now, said = self._track.style, dict[str, float]()
        for attribute in ("contour", "duration"):
            if attribute in own:
                raise self._error(f"{attribute} of <prosody> cannot be followed: give rate, pitch or range")
        if "rate" in own:
            value = own["rate"]
            if (rate := _RATES.get(value)) is None:
                rate = self._share(value, now.speed or 1.0, "rate", "80%, +10% or slow", plain=True)
            said["speed"] = self._within("rate", rate, SPEEDS, "times the usual one")
        if "range" in own:
            value, before = own["range"], 1.0 if now.pitch_range is None else now.pitch_range
            if (range_ := _RANGES.get(value)) is None:
                range_ = self._share(value, before, "range", "+20% or high")
            said["pitch_range"] = self._within("range", range_, RANGES, "times the usual one")
        if "pitch" in own:
            value = own["pitch"]
            if (pitch := _PITCHES.get(value)) is None:
                if value.endswith("hz"):
                    raise self._error("pitch in Hz depends on the voice: give it as +2st or +10%")
                pitch = (now.pitch or 0.0) + self._shift(value, "pitch", "st", 12 / math.log10(2))
            said["pitch"] = self._within("pitch", pitch, PITCHES, "semitones")
        if "volume" in own:
            value = own["volume"]
            if (volume := _VOLUMES.get(value)) is None:
                volume = (now.volume or 0.0) + self._shift(value, "volume", "db", 20.0)
            said["volume"] = self._within("volume", volume, VOLUMES, "dB")
        return said

    def _share(self, value: str, now: float, what: str, example: str, plain: bool = False) -> float:
        """A share of what holds now: "80%", "+10%"; with ``plain`` also "0.8"."""
        found = re.fullmatch(r"([-+]?)(\d{1,4}(?:\.\d{1,4})?)(%?)", value)
        if found is None or not (found[3] or (plain and not found[1])):
            raise self._error(f"{what}={value!r} is not understood: write it as {example}")
        number = float(found[2]) / (100 if found[3] else 1)
        return now * (1 + number if found[1] == "+" else 1 - number if found[1] else number)

    def _shift(self, value: str, what: str, unit: str, scale: float) -> float:
        """ "+2st", "-6dB", or a signed share of Hz or amplitude ("+10%")."""
        found = re.fullmatch(rf"([-+]\d{{1,4}}(?:\.\d{{1,4}})?)({unit}|%)", value)
        share = 1 + float(found[1]) / 100 if found and found[2] == "%" else 1.0
        if found is None or share <= 0:
            example = "+2st, -10% or high" if unit == "st" else "+6dB, -10% or loud"
            raise self._error(f"{what}={value!r} is not understood: write it as {example}")
        return scale * math.log10(share) if found[2] == "%" else float(found[1])

    def _within(self, what: str, value: float, bounds: tuple[float, float], unit: str) -> float:
        if not bounds[0] <= value <= bounds[1]:
            raise self._error(
                f"{what} would be {value:g}: it goes from {bounds[0]:g} to {bounds[1]:g} {unit} (elements in "
                "each other add up)"
            )
        return round(value, 4)

    def _one_of(self, table: Mapping[str, Any], value: str, what: str) -> Any:
        if value not in table:
            raise self._error(f"{what}={value!r} is not understood: there are {', '.join(table)}")
        return table[value]

    def _language(self, code: str) -> str:
        if code in _LANGUAGES:
            return _LANGUAGES[code]
        if code.startswith("en-"):
            return "en"
        raise self._error(
            f"no voice here speaks {code!r}: there are en, en-US, en-GB, zh, yue, zh-CN-sichuan"
        )

    def _voice(self, name: str) -> str:
        if self._voices is not None and name not in self._voices:
            raise self._error(f"no voice named {name!r}; see the list of voices")
        return name

    def _emotion(self, name: str, own: Mapping[str, str]) -> dict[str, Any]:
        tag = BY_NAME.get(name)
        if tag is None or tag.style == NO_STYLE or tag.around:
            known = ", ".join(t.name for t in dict.fromkeys(BY_NAME.values()) if t.style.emotion)
            raise self._error(f"the style {name!r} cannot be had: there are {known}, whisper")
        strength = None
        if "intensity" in own:
            strength = self._one_of(_INTENSITIES, own["intensity"], "intensity")
        elif "styledegree" in own:  # Azure's: 0.01 to 2, 1 is as usual
            try:
                degree = float(own["styledegree"])
            except ValueError:
                degree = math.nan
            if not 0.01 <= degree <= 2:
                raise self._error("styledegree goes from 0.01 to 2")
            strength = 1 if degree < 0.75 else 2 if degree <= 1.25 else 3
        style = tag.levels[strength - 1] if strength and tag.levels else tag.style
        return {k: v for k in SpeechStyle.__slots__ if (v := getattr(style, k)) is not None}

    def _pause(self, own: Mapping[str, str]) -> None:
        if "time" in own:
            if (ms := milliseconds(own["time"].removeprefix("+"))) is None:
                raise self._error(f"time={own['time']!r} is not understood: write it as 500ms or 1.5s")
        else:
            ms = self._one_of(_BREAKS_MS, own.get("strength", "medium"), "strength")
        if not PAUSES_MS[0] <= ms <= PAUSES_MS[1]:
            raise self._error(f"a break lasts at most {PAUSES_MS[1] // 1000} s")
        if ms:
            self._put([Point(pause_ms=ms)])

    def _mark(self, name: str) -> None:
        if not name:
            raise self._error('a mark needs a name: <mark name="here"/>')
        self._put([Point(bookmark=name)])

    def _replace(self, name: str, text: str) -> None:
        """A ``phoneme``, ``sub`` or ``say-as`` ends."""
        if len(text) > LONGEST_SAID:
            raise self._error(f"<{name}> holds at most {LONGEST_SAID} characters")
        if name == "sub":
            self._put(self._reader.literal(self._said.get("alias") or text))
        elif name == "say-as":
            self._put(self._reader.literal(self._say_as(text)))
        elif not text:
            raise self._error("<phoneme> needs the word that it is for, which transcripts show")
        elif self._phonemes is None:
            raise self._error("<phoneme> cannot be read here")
        else:
            symbols = self._said.get("ph", "")
            if not symbols.strip():
                raise self._error('<phoneme> needs ph: <phoneme alphabet="ipa" ph="həˈləʊ">hello</phoneme>')
            try:
                said = self._phonemes(fold(self._said.get("alphabet", "ipa")), symbols)
            except TagError as error:
                raise self._error(str(error)) from None
            self._put([Open(phonemes=said), *self._reader.literal(text), Close()])

    def _say_as(self, text: str) -> str:
        """The text, written such that the rules for text read it as asked."""
        kind, form = fold(self._said.get("interpret-as", "")), fold(self._said.get("format", ""))
        english = (self._track.style.dialect or self._script).startswith("en")
        match kind:
            case "characters" | "spell-out" | "letters" | "verbatim":
                return " ".join(char.upper() for char in text if char.isalnum())
            case "digits":
                if not re.fullmatch(r"[\d .-]*\d[\d .-]*", text):
                    raise self._error(f"say-as digits needs digits, not {text!r}")
                return " ".join(filter(str.isdigit, text))
            case "cardinal" | "number":
                plain = text.replace(",", "")
                if not re.fullmatch(r"[-+]?\d{1,15}(?:\.\d{1,9})?", plain):
                    raise self._error(f"say-as {kind} needs a number, not {text!r}")
                whole, dot, rest = plain.partition(".")
                return f"{int(whole):,}{dot}{rest}"
            case "ordinal":
                if not re.fullmatch(r"\d{1,9}", text):
                    raise self._error(f"say-as ordinal needs a whole number, not {text!r}")
                return f"{int(text)}{ordinal_ending(int(text))}" if english else f"第{int(text)}"
            case "telephone":
                if not re.fullmatch(r"\+?[\d ()./-]*\d[\d ()./-]*", text):
                    raise self._error(f"say-as telephone needs a telephone number, not {text!r}")
                plus = ("plus " if english else "加 ") if text.startswith("+") else ""
                return plus + ", ".join(" ".join(group) for group in re.findall(r"\d+", text))
            case "date":
                return self._date(text, form, english)
            case "time":
                if not re.fullmatch(r"\d{1,2}:\d{2}(?::\d{2})? ?(?:[ap]\.?m\.?)?", text, re.I):
                    raise self._error(f"say-as time needs a time such as 9:45 or 9:45pm, not {text!r}")
                return text
            case "currency" | "fraction" | "unit" | "address" | "name":
                return text  # what the rules for text do
            case _:
                raise self._error(
                    f"say-as {kind!r} cannot be had: there are characters, digits, cardinal, ordinal, "
                    "telephone, date, time, currency, fraction, unit"
                )

    def _date(self, text: str, form: str, english: bool) -> str:
        """Format "mdy", "dm", …: the order in which the text has year, month and day."""
        numbers = re.findall(r"\d+", text)
        if not form and re.fullmatch(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}", text):
            form = "ymd"
        if not form and re.search(r"[^\W\d]", text):
            return text  # "May 1, 2024" and 五月一日 are read as they are
        if form not in _DATES or len(numbers) != len(form):
            raise self._error(
                f"say-as date cannot read {text!r} as {form or 'a date'}: give its format, one of "
                f"{', '.join(_DATES)}"
            )
        parts = {part: int(number) for part, number in zip(form, numbers, strict=True)}
        year, month, day = parts.get("y"), parts.get("m"), parts.get("d")
        try:
            date(parts.get("y", 2000), parts.get("m", 1), parts.get("d", 1))
        except (ValueError, OverflowError):
            raise self._error(f"say-as date: there is no such day as {text!r} in the order {form}") from None
        if not english:
            return "".join(f"{n}{unit}" for n, unit in ((year, "年"), (month, "月"), (day, "日")) if n)
        said = " ".join(
            [*([MONTHS[month - 1]] if month else []), *([f"{day}{ordinal_ending(day)}"] if day else [])]
        )
        return ", ".join([*([said] if said else []), *([str(year)] if year else [])])


_DATES = ("mdy", "dmy", "ymd", "md", "dm", "ym", "my", "y", "m", "d")
MONTHS = ("January February March April May June July August September October November December").split()


def ordinal_ending(number: int) -> str:
    """ "st" of "1st", "th" of "12th"."""
    if number // 10 % 10 == 1:
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
