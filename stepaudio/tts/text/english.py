"""English as written -> English as said: numbers, dates, money, units, addresses, signs, abbreviations.

Rules stand in the order in which they are tried. House style is American.
"""

from __future__ import annotations

import re

from stepaudio.core.ssml import MONTHS, ordinal_ending
from stepaudio.tts.text.english_numbers import (
    ONES,
    TENS,
    cardinal,
    digits,
    number,
    ordinal,
    plural,
    roman,
    serial,
    year,
)
from stepaudio.tts.text.rules import Piece, Rules, after, before, kind_of
from stepaudio.tts.text.tables import either, rows, table, words

# --- tables ------------------------------------------------------------------------------------

_MONTHS = {m[:3].lower(): m for m in MONTHS} | {m.lower(): m for m in MONTHS} | {"sept": "September"}
_DAYS = {d[:3]: d for d in "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()}
_DAYS |= {"Tues": "Tuesday", "Thur": "Thursday", "Thurs": "Thursday", "Weds": "Wednesday"}
_DAYS_OF_TWO = {d[:2]: d for d in "Monday Tuesday Wednesday Thursday Friday".split()}
_COMPASS = {"N": "North", "S": "South", "E": "East", "W": "West"}

_UNITS: dict[str, tuple[str, str]] = {row[0]: (row[1], row[2]) for row in rows("english", "unit")}
for _unit in ("km", "m", "cm", "mm", "mi", "ft", "in", "yd"):
    _one, _many = _UNITS.get(_unit, ("inch", "inches"))  # "in" alone is a word
    _UNITS["sq " + _unit] = (f"square {_one}", f"square {_many}")
    for _mark, _power in (("²", "square"), ("2", "square"), ("³", "cubic"), ("3", "cubic")):
        _UNITS[_unit + _mark] = (f"{_power} {_one}", f"{_power} {_many}")
_PER = table("english", "per")
_CURRENCY = {row[0]: row[1:] for row in rows("english", "currency")}  # one, many, hundredth, hundredths
_CODES = table("english", "code")
_COUNTRIES = table("english", "country")
_MAGNITUDES = table("english", "magnitude")
_TITLES = table("english", "title")
_STREETS = table("english", "street")
_ABBREVIATIONS = table("english", "abbreviation")
_STATES = table("english", "state")
SIGNS = table("english", "sign")
_SIGNS_IN_NAMES = table("english", "sign-in-name")
DOMAINS = "|".join(words("english", "domain"))
_EVERYDAY_DOMAINS = {"com", "net", "org", "info", "gov", "io", "biz", "app", "dev"}  # words, not letters

_ABBREVIATIONS_OF_NUMBERS = set("no. nos. fig. figs. ch. sec. eq. vol. pp. ed. ext. est.".split())
_ABBREVIATIONS_THAT_END = set(
    "etc. a.m. p.m. inc. ltd. corp. jr. sr. al. ph.d. b.c. a.d. u.s.a. d.c.".split()
)

_PAIRS = (
    "he/she she/he him/her her/him his/her her/his his/hers hers/his himself/herself herself/himself"
).split()
"""Not "she/her", which names the forms of one word."""

# --- rules -------------------------------------------------------------------------------------

_BIG = "hundred|thousand|million|billion|trillion"
_PARTS_OF_PATTERNS = {
    "n": r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+",  # 1,234.5  12  .5
    "comma": r"\d{1,3},\d{1,2}(?!\d|[.,]\d)",  # 1,5 as in Europe
    "l": r"A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ",  # inside a character class
    "end": r"(?![A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ\d])",
    "big": _BIG,
    "month": f"(?i:{either(_MONTHS)})",
    "year": r"((?:1\d|20)\d\d)(?!\d|,\d)",
    "day": either(_DAYS),
    "half": r"[AaPp](?:\.\s?[Mm](?:\.|(?![A-Za-z]))|[Mm](?![A-Za-z]))",  # a.m.
    "zone": r"(?:\s?(?i:(est|edt|pst|pdt|cst|cdt|mst|gmt|utc|cet|cest|bst|jst))(?![A-Za-z]))?",
    "unit": either(_UNITS),
    "per": f"(?:/({either(_PER)})(?![A-Za-z]))?",
    "currency": r"[$£€¥₹₩₽₺₫₿₱₪฿₴]",
    "code": r"(?:USD|GBP|EUR|JPY|CNY|RMB|INR|KRW)",
    "magnitude": rf"(?:[\s-]?({_BIG}|[kKmMbBtT]n?)(?![A-Za-z\d]))?",
    "street": f"(?i:{either(_STREETS)})",
    "mail": r"[A-Za-zÀ-ɏ\d][A-Za-zÀ-ɏ\d._%+-]{0,63}@(?:[A-Za-zÀ-ɏ\d-]{1,63}\.){1,5}[A-Za-z]{2,24}(?:/[\w/.-]{0,200}(?<!\.))?",
    "path": r"[A-Za-zÀ-ɏ\d._~:/?#@!$&'()*+,;=%-]",
}

_RULES = Rules(_PARTS_OF_PATTERNS)
_rule, _always, _compile = _RULES.at, _RULES.always, _RULES.compile


def _pieces(match: re.Match[str], *said: tuple[int, str]) -> list[Piece]:
    """A piece for each of these groups that matched."""
    return [Piece(*match.span(group), spoken, "en") for group, spoken in said if match.group(group)]


def _stop(match: re.Match[str], text: str | None) -> str:
    """The full stop of an abbreviation that ends a sentence too."""
    ends = text and text.endswith(".") and re.match(r"\s*$|[\"”)]?\s+[A-Z\"“(]", after(match))
    return "." if ends else ""


# Addresses, files, names with signs in them


def camel(word: str) -> list[str]:
    """ "HappyNewYear" -> Happy, New, Year."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\WA-Z\d_]+|\d+|[^\W\d_]", word) or [word]


def name_part(part: str) -> str:
    """A run of letters or digits in an address or file name: words as words, codes letter by letter."""
    if part.isdigit():
        return cardinal(part) if len(part) == 4 and part.endswith("000") else digits(part)
    spelled = part.lower() in ("www", "http", "https", "html", "pdf", "xml")
    if spelled or len(part) == 1 or (len(part) < 5 and not re.search(r"[aeiouy]", part, re.I)):
        return part.upper()
    return " ".join(camel(part))


@_rule(
    "letter",
    r"(?:https?|ftp|file)://<path>{1,2000}(?<![.,;:!?')])",
    "<mail>",
    r"www\.<path>{1,2000}(?<![.,;:!?)])",
)
@_rule("digit", "<mail>")
def _address(match: re.Match[str]) -> str:
    text = match.group()
    said = []
    for part in re.findall(r"[^\W\d_]+|\d+|[^\w\s]|_", text[:400]):
        if part.isalnum():
            said.append(name_part(part))
        elif part in _SIGNS_IN_NAMES:
            said.append(_SIGNS_IN_NAMES[part])
    spoken = " ".join(said)
    # A country at the end is spelled ("dot U K"), everyday endings are words ("dot com").
    tail = re.search(r" dot (\w{2,3})$", spoken)
    if tail and tail.group(1) not in _EVERYDAY_DOMAINS and ("@" in text or len(tail.group(1)) == 2):
        spoken = spoken[: tail.start(1)] + tail.group(1).upper()
    return spoken


_FILE = "|".join(words("english", "file"))


@_rule("letter", rf"[<l>\d_-]{{1,63}}(?:\.[<l>\d_-]{{1,63}}){{0,6}}\.(?i:{_FILE})(?![<l>\d/@]|\.[<l>\d])")
def _file(match: re.Match[str]) -> str | list[Piece] | None:
    initials = re.search(r"(?:^|\.)\w\.[A-Za-z]$|\.[A-Z]$", match.group())  # B.C is no source file
    return None if initials else _address(match)


@_rule(
    "letter",
    rf"(?:[<l>\d-]{{1,63}}\.){{1,5}}(?:{DOMAINS})(?![<l>\d])(?::\d{{1,5}})?(?:/<path>{{0,2000}}(?<![.,;:!?)]))?",
)
def _domain(match: re.Match[str]) -> str | list[Piece] | None:
    text = match.group()
    return _address(match) if text.islower() or "/" in text or re.search(r"\.(?:com|org|net)", text) else None


@_rule("letter", r"[A-Za-z]:(?:\\[<l>\d_. -]{1,60}){1,12}")
def _windows_path(match: re.Match[str]) -> str | list[Piece] | None:
    return _address(match)


def _in_words(part: str) -> str:
    return serial(part) if part.isdigit() else " ".join(camel(part))


@_rule("sign", r"(#)([<l>][<l>\d_]{0,80})", r"(@)([<l>\d][<l>\d_]{0,60})")
def _hashtag(match: re.Match[str]) -> str | None:
    if re.search(r"\w$", before(match, 1)):
        return None
    said = " ".join(map(_in_words, re.findall(r"\d+|[^\W\d_]+", match.group(2))))
    return ("hashtag " if match.group(1) == "#" else "at ") + said


# Fixed phrases and numbers that are names

_always(
    "digit",
    {
        r"24/7(?![\d/])": "twenty four seven",
        r"9/11(?![\d/])": "nine eleven",
        r"50/50(?![\d/])": "fifty fifty",
    },
)


@_rule("digit", r"(?<!/)20/(20(?![\d/])|\d{2,3}(?=\s(?:vision|eyesight)\b))")
def _eyesight(match: re.Match[str]) -> str:
    return f"twenty {cardinal(match.group(1))}"


@_rule("digit", r"(40[13])\(?([kKbB])\)?(?![A-Za-z])")
def _pension(match: re.Match[str]) -> str:
    return f"{digits(match.group(1), 'oh')} {match.group(2).upper()}"


@_rule("digit", r"\d{1,3}(?:\.\d{1,3}){3}(?:\.\d{1,3})?(?![\d.]*\d)")
def _ip(match: re.Match[str]) -> str:
    return " dot ".join(map(digits, match.group().split(".")))


# Dates


def _date(day: str, month: str, year_text: str, day_first: bool) -> str | None:
    """Words of a date in figures; None if there is no such day."""
    if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
        return None
    name = MONTHS[int(month) - 1]
    said = digits(year_text, "oh") if len(year_text) == 2 and year_text[0] == "0" else year(year_text)
    return f"the {ordinal(int(day))} of {name} {said}" if day_first else f"{name} {ordinal(int(day))} {said}"


@_rule("digit", r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::\d\d(?:\.\d{1,9})?)?(Z)?(?![A-Za-z\d:])")
def _timestamp(match: re.Match[str]) -> str | None:
    """2024-02-29T13:45:00Z, to the minute."""
    year_text, month, day, hour, minute, zone = match.groups()
    date = _date(day, month, year_text, day_first=False)
    if not date or int(hour) > 24 or int(minute) > 59:
        return None
    return f"{date} at {_hour_minute(hour, minute)}" + (" UTC" if zone else "")


@_rule("digit", r"(\d{4})([-/.])(0?[1-9]|1[0-2])\2(3[01]|[12]\d|0?[1-9])(?![\d-])")
def _year_month_day(match: re.Match[str]) -> str | None:
    return _date(match.group(4), match.group(3), match.group(1), day_first=False)


@_rule(
    "digit",
    r"(\d{1,2})([-/.])(\d{1,2})\2((?:1[0-9]|20)\d{2})(?![\d-])",
    r"(\d{1,2})(/)(\d{1,2})/(\d{2})(?![\d/])",
)
def _month_day_year(match: re.Match[str]) -> str | None:
    first, _, second, year_text = match.groups()
    if int(first) > 12:
        return _date(first, second, year_text, day_first=True)
    return _date(second, first, year_text, day_first=False)


# Telephone numbers and the like: groups of digits


@_rule(
    "digit",
    r"(?:\d{1,2}[-. ])?\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}(?:-\d{1,4})?(?![\d-])",
    r"\d{1,7}(?:-\d{1,7}){3,7}(?![\d-])|\d{4}(?: \d{4}){2,5}(?!\d)",  # ISBN, cards
    r"\d{3}-\d{2}-\d{4}(?![\d-])|\d{3}-\d{4}(?![\d-])",
    r"0\d{2,4}(?: \d{3,4}){2}(?![\d-])|0\d{4} \d{6}(?!\d)",  # 0800 123 456
    r"1-8\d\d(?:-[A-Z\d]{1,8}){1,4}(?![A-Za-z\d-])",
)
@_rule(
    "sign",
    r"\+\d{1,3}[-. ]?(?:\(\d{1,4}\)[-. ]?)?\d{1,4}(?:[-. ]\d{1,4}){1,4}(?![\d-])|\+\d{7,15}(?!\d)",
    r"\(\d{3}\)\s?\d{3}[-. ]\d{4}(?![\d-])",
)
def _phone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+|[A-Z]+", match.group())
    said = [
        "eight hundred" if g == "800" and i < 2 else digits(g) if g.isdigit() else g
        for i, g in enumerate(groups)
    ]
    return ("plus " if match.group()[0] == "+" else "") + ", ".join(said)


# Times


def _hour_minute(hour: str, minute: str) -> str:
    """ "6", "05" -> "six oh five"."""
    if minute == "00":
        return cardinal(int(hour)) + " o'clock"
    return f"{cardinal(int(hour))} " + ("oh " + ONES[int(minute)] if minute[0] == "0" else cardinal(minute))


def _half_day(text: str | None) -> str:
    return "" if not text else " AM" if text[0] in "Aa" else " PM"


def _count(text: str, unit: str) -> str:
    return f"{cardinal(int(text))} {unit}" + ("" if int(text) == 1 else "s")


@_rule(
    "digit",
    r"(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s?(<half>))?<zone>(?![\d:])",
    r"(\d{1,2})\.([0-5]\d)()\s?(<half>)<zone>",
)
def _clock(match: re.Match[str]) -> str | None:
    hour, minute, second, half, zone = match.groups()
    if int(hour) > 24 or int(minute) > 59 or (second and int(second) > 59):
        return None
    tail = _half_day(half) + (f" {zone.upper()}" if zone else "") + _stop(match, half)
    said_minute = "oh " + ONES[int(minute)] if minute[0] == "0" else cardinal(minute)
    if second and half:
        return f"{cardinal(int(hour))} {said_minute} and {_count(second, 'second')}{tail}"
    if second:
        return f"{_count(hour, 'hour')} {_count(minute, 'minute')} and {_count(second, 'second')}{tail}"
    if minute == "00":
        return cardinal(int(hour)) + ("" if half else " o'clock") + tail
    return f"{cardinal(int(hour))} {said_minute}{tail}"


@_rule("digit", r"(\d{1,2})\s?(<half>)<zone>")
def _hour(match: re.Match[str]) -> str | None:
    hour, half, zone = match.groups()
    if int(hour) > 24:
        return None
    return cardinal(int(hour)) + _half_day(half) + (f" {zone.upper()}" if zone else "") + _stop(match, half)


@_rule("digit", r"(\d{1,3}):(\d{1,6})(?![\d:])")
def _ratio(match: re.Match[str]) -> str:
    return f"{cardinal(match.group(1))} to {cardinal(match.group(2))}"


# Dates with the name of the month


@_rule("digit", r"(\d{1,2})(?:st|nd|rd|th)?(?:\sof)?[\s-](<month>)(\.)?(?![A-Za-z])(?:,?[\s-]<year>)?")
def _day_month(match: re.Match[str]) -> list[Piece] | None:
    day, month, dot, year_text = match.groups()
    if not 1 <= int(day) <= 31 or (month in ("may", "mar", "march") and not year_text):
        return None  # "5 may be enough"
    # The full stop of "Sept." belongs to the month, that of "July." to the sentence.
    of_month = dot and month.capitalize() not in MONTHS and after(match, 3).strip()
    if dot and not of_month:
        year_text = None
    end = match.end(3) if of_month else match.end(2)
    comma = "," if year_text and "," in match.string[end : match.start(4)] else ""
    the = "" if re.search(r"\bthe\s$", before(match, 5), re.I) else "the "
    said = f"{the}{ordinal(int(day))} of {_MONTHS[month.lower()]}{comma}"
    return [
        Piece(match.start(), end, said, "en"),
        *(_pieces(match, (4, year(year_text))) if year_text else []),
    ]


@_rule("letter", r"(<month>)\.?[\s-](\d{1,2}(?i:st|nd|rd|th)?)(?![\d:A-Za-z%]|[.,]\d)(?:(,?)[\s-]<year>)?")
def _month_day(match: re.Match[str]) -> list[Piece] | None:
    month, day, comma, year_text = match.groups()
    day = re.sub(r"\D", "", day)
    if not 1 <= int(day) <= 31 or (month in ("may", "march", "mar") and not year_text):
        return None
    said = [(1, _MONTHS[month.lower()]), (2, ordinal(int(day)) + (comma or ""))]
    return _pieces(match, *said, *([(4, year(year_text))] if year_text else []))


@_rule("letter", r"(<month>)\.?,?\s<year>(?!s)")
def _month_year(match: re.Match[str]) -> list[Piece] | None:
    if match.group(1) in ("may", "march", "mar"):
        return None
    return _pieces(match, (1, _MONTHS[match.group(1).lower()]), (2, year(match.group(2))))


@_rule("letter", r"(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)(?:\.(?=\s[A-Za-z\d])|(?=\s\d))")
def _month(match: re.Match[str]) -> str:
    return _MONTHS[match.group(1).lower()]


@_rule("letter", r"(<day>)(?:\.?\s?([-–])\s?)(<day>)(?![a-z])")
def _days(match: re.Match[str]) -> list[Piece]:
    return _pieces(match, (1, _DAYS[match.group(1)]), (2, "to"), (3, _DAYS[match.group(3)]))


@_rule("letter", r"(<day>)(\.|(?=,?\s(?:\d|<month>\b)))(?![A-Za-z])")
def _day(match: re.Match[str]) -> str | None:
    if match.group(1) in ("Sun", "Sat") and match.group(2) and not re.match(r"\s[a-z\d]", after(match)):
        return None  # "under the Sun."
    return _DAYS[match.group(1)] + _stop(match, match.group())


@_rule("letter", r"(Mo|Tu|We|Th|Fr)(?=\s\(?\d)")
def _day_of_two(match: re.Match[str]) -> str:
    return _DAYS_OF_TWO[match.group(1)]


@_rule("digit", r"([12])([HQ])(\d{4}|\d{2})(?![A-Za-z\d])")
def _part_of_year(match: re.Match[str]) -> str:
    which, kind, of = match.groups()
    said = cardinal(of) if len(of) == 2 else year(of)
    return f"the {ordinal(int(which))} {'half' if kind == 'H' else 'quarter'} of {said}"


# Postal addresses


@_rule(
    "digit",
    r"(\d{1,5})(?=\s(?:[NSEW]\.?\s)?(?:[A-Z0-9]\w{1,20}\s){1,3}(?:<street>|Street|Avenue|Road|Boulevard|Lane|Drive)(?![A-Za-z]))",
)
def _house(match: re.Match[str]) -> str:
    text = match.group(1)
    return digits(text) if len(text) == 5 or (len(text) == 3 and text[1] == "0") else serial(text)


@_rule("letter", rf"({either(_STATES)})(?=,?\s\d{{5}}(?!\d))")
def _state(match: re.Match[str]) -> str:
    return _STATES[match.group(1)]


@_rule("letter", r"([NSEW])\.?(?=\s(?:\d+(?:st|nd|rd|th)|[A-Z][a-z]+)\s(?:St|Ave|Rd|Blvd|Dr|Ln|Street|st)\b)")
def _direction(match: re.Match[str]) -> str:
    return _COMPASS[match.group(1)]


# Money


def _point(amount: str) -> str:
    """ "1,5" -> "1.5": a comma that no three digits follow is a decimal one."""
    return amount.replace(",", ".") if re.fullmatch(r"\d{1,3},\d{1,2}", amount) else amount


def _in_a_list(match: re.Match[str]) -> bool:
    """ "1,2,5 kg" is three numbers."""
    return bool(re.search(r"\d,$", before(match, 2)))


def _amount(text: str, sign: str, magnitude: str | None) -> str:
    """ "3.50", "$" -> "three dollars fifty cents"; with a magnitude "three point five million dollars"."""
    one, many, *parts = _CURRENCY[sign]
    text = text.replace(",", "")
    if magnitude:
        return f"{number(text)} {_MAGNITUDES.get(magnitude, magnitude.lower())} {many}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > 2 or not parts or len(text) > 18:
        return f"{number(whole + ('.' + fraction if fraction else ''))} {many}"
    units, hundredths = int(whole or 0), int(fraction.ljust(2, "0") or 0)
    said = []
    if units or not hundredths:
        said.append(f"{cardinal(units)} {one if units == 1 else many}")
    if hundredths:
        said.append(f"{cardinal(hundredths)} {parts[0] if hundredths == 1 else parts[1]}")
    return " ".join(said)


@_rule("sign", r"()(<currency>)\s?(<comma>|<n>)(?:\s?[-–~]\s?(<comma>|<n>)(?!\d))?<magnitude><per>")
@_rule("letter", r"(US|C|CA|A|AU|HK|S|NZ|NT|R)(\$)\s?(<n>)(?:\s?[-–~]\s?(<n>))?<magnitude><per>")
@_rule("letter", r"()(<code>|Rs\.?)\s?(<n>)()<magnitude>()")
def _money(match: re.Match[str]) -> str:
    country, sign, amount, upper, magnitude, per = match.groups()
    sign = _CODES.get(sign, sign)
    said = _amount(_point(upper or amount), sign, magnitude)
    if upper:
        said = f"{number(_point(amount))} to {said}"
    if country:
        one, many = _CURRENCY[sign][:2]
        said = re.sub(rf"\b({many}|{one})\b", rf"{_COUNTRIES[country]} \1", said, count=1)
    return said + (f" per {_PER[per]}" if per else "")


@_rule("digit", r"(<n>|<comma>)\s?(<big>|[kKmMbB]n?|tn)?\s?([€£¥₹₩元]|<code>(?![A-Za-z]))")
def _money_behind(match: re.Match[str]) -> str | None:
    amount, magnitude, sign = match.groups()
    if "," in amount and _in_a_list(match):
        return None
    return _amount(_point(amount), _CODES.get(sign, sign), magnitude)


@_rule("digit", r"(<n>)\s?¢")
def _cents(match: re.Match[str]) -> str:
    return f"{number(match.group(1))} {'cent' if match.group(1) == '1' else 'cents'}"


# Fractions, measures


def _fraction_words(top: int, bottom: int) -> str:
    if bottom < 2:
        return f"{cardinal(top)} over {cardinal(bottom)}"
    if bottom == 2:
        return "one half" if top == 1 else f"{cardinal(top)} halves"
    return f"{cardinal(top)} {'quarter' if bottom == 4 else ordinal(bottom)}{'' if top == 1 else 's'}"


@_rule("digit", r"()(?:(\d{1,4})\s)?(\d{1,6})\s?/\s?([1-9]\d{0,5}|0)(?i:th|rd|nd|st|ths|rds)?(?![\d/A-Za-z])")
@_rule("sign", r"(-)()(\d{1,6})/([1-9]\d{0,5})(?![\d/])")
def _fraction(match: re.Match[str]) -> str | None:
    minus, whole, top, bottom = match.groups()
    if re.search(r"[A-Za-z]-$", before(match, 2)) or (len(top) > 1 and top[0] == "0"):
        return None
    if minus and not _can_be_negative(match):
        return None
    if " " in match.group() and "=" in before(match, 3) + after(match, 3):
        return f"{cardinal(top)} divided by {cardinal(bottom)}"
    said = _fraction_words(int(top), int(bottom))
    if whole:
        said = f"{cardinal(whole)} and " + ("a half" if said == "one half" else said)
    return ("minus " if minus else "") + said


@_rule("digit", r"(\d{1,6})\s?([½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚])")
def _mixed_number(match: re.Match[str]) -> str:
    said = SIGNS[match.group(2)]
    return f"{cardinal(match.group(1))} and " + ("a half" if said == "one half" else said)


@_rule("digit", r"(\d{1,2})'\s?(?:(\d{1,2})(?:\"|''|″)?)?(?![\w'])")
def _feet(match: re.Match[str]) -> str:
    feet, inches = match.groups()
    said = f"{cardinal(feet)} {'foot' if inches or feet == '1' else 'feet'}"
    return f"{said} {cardinal(inches)}" if inches else said


@_rule("digit", r"(\d{1,4}(?:\.\d{1,4})?)[\"″]")
def _inches(match: re.Match[str]) -> str | None:
    if len(re.findall(r'(?<!\d)"', before(match, 300))) % 2:
        return None  # closes a quotation
    return f"{number(match.group(1))} {'inch' if match.group(1) == '1' else 'inches'}"


@_rule("digit", r"(\d+(?:,\d{3})*)((?i:st|nd|rd|th))<end>")
def _ordinal(match: re.Match[str]) -> str | None:
    text = match.group(1).replace(",", "")
    if len(text) > 12:
        return None
    return ordinal(text) if ordinal_ending(int(text)) == match.group(2).lower() else None


@_rule("digit", r"(\d{4}|\d0)'?s(?![A-Za-z\d])", r"(\d{4})\ss(?![A-Za-z\d])")
@_rule("sign", r"'(\d0)s(?![A-Za-z\d])")
def _decade(match: re.Match[str]) -> str | None:
    text = match.group(1)
    if text == "2000":
        return "two thousands"
    if len(text) == 4:
        return plural(year(text)) if text.endswith("0") and text[0] in "12" else None
    return plural(TENS[int(text[0])]) if int(text) >= 20 else None


@_rule("digit", r"()((?:\d{1,5}\.){2,5}\d{1,5})(?![\d.]*\d)")
@_rule("letter", r"([vV])(\d{1,4}(?:\.\d{1,5}){1,5})(?![A-Za-z\d])")
def _version(match: re.Match[str]) -> str:
    named = not match.group(1) or re.search(r"(?i)\bversion\s$", before(match, 9))
    return ("" if named else "version ") + " point ".join(map(cardinal, match.group(2).split(".")))


@_rule("digit", r"(<n>)\s(<big>)\s(<unit>)<end>")
def _measure_of_many(match: re.Match[str]) -> list[Piece]:
    amount, big, unit = match.groups()
    return _pieces(match, (1, number(amount)), (2, big), (3, _UNITS[unit][1]))


@_rule(
    "digit",
    r"()(<n>|<comma>)\s?(<unit>)(?:/(<per_name>))?(?:(?<=[a-z])\.(?=[,;)]|\s[a-z])|<end>)".replace(
        "<per_name>", either(_PER)
    ),
)
@_rule("sign", r"(-)(<n>|<comma>)\s?(<unit>)(?:/(<per_name>))?<end>".replace("<per_name>", either(_PER)))
def _measure(match: re.Match[str]) -> str | None:
    minus, amount, unit, per = match.groups()
    if (minus and not _can_be_negative(match)) or ("," in amount and _in_a_list(match)):
        return None
    lone_letter = unit in ("m", "V", "N", "W", "J", "L", "h", "g", "l") and not per
    if lone_letter and after(match, 1) in ("-", "'", "’"):
        return None
    one, many = _UNITS[unit]
    said = f"{number(_point(amount))} {one if amount in ('1', '1.0', '1.00') else many}"
    return ("minus " if minus else "") + said + (f" per {_PER[per]}" if per else "")


@_rule("digit", r"(\d{1,5}(?:\.\d{1,3})?)\s?([x×])(?=\s?\d)")
def _dimension(match: re.Match[str]) -> list[Piece] | None:
    if re.match(r"\s?[\d.]+\s?=", after(match)) or re.search(r"[=+]\s?$", before(match)):
        return None
    return _pieces(match, (1, number(match.group(1))), (2, "by"))


@_rule("digit", r"(\d{1,5}(?:\.\d{1,3})?)[xX](?![A-Za-z\d])")
def _multiple(match: re.Match[str]) -> str:
    compared = re.match(r" (?:faster|slower|more|as|the|larger|higher|bigger|smaller)\b", after(match))
    return f"{number(match.group(1))} {'times' if compared else 'x'}"


@_rule("digit", r"(<n>)\s?(bn|mn|tn)(?![A-Za-z\d])", r"(<n>)([kKMBbT])(?![A-Za-z\d])")
def _magnitude(match: re.Match[str]) -> str:
    """3bn and 5k are numbers; 4K, 0.1 K, 2M and 3B may be anything: the letter is said."""
    amount, letter = match.groups()
    thousands = letter == "k" or (letter == "K" and "." not in amount and amount not in ("2", "4", "8"))
    said = "thousand" if thousands else _MAGNITUDES[letter] if len(letter) == 2 else letter
    return f"{number(amount)} {said}"


# Numbers within names, and plain numbers


@_rule("digit", r"(<n>)[eE]([-+])(\d{1,3})<end>")
def _scientific(match: re.Match[str]) -> str:
    """1.5e-5."""
    amount, sign, power = match.groups()
    minus = "minus " if sign == "-" else ""
    return f"{number(amount)} times ten to the power of {minus}{cardinal(int(power))}"


@_rule("digit", r"\d{1,6}[<l>]+[<l>\d]*")
def _serial(match: re.Match[str]) -> str | None:
    """A321, 4x4, H2O: letters and digits in turn."""
    parts = re.findall(r"[^\W\d_]+|\d+", match.group()[:80])
    if len(match.group()) > 60:
        return None
    return " ".join(p.upper() if len(p) == 1 and p.isalpha() else _in_words(p) for p in parts)


_DIGITS_FOLLOW = re.compile(
    r"(?i)\b(?:code|pin|password|passcode|zip|zipcode|account|serial|extension|ext|otp|id|ssn|phone|tel|telephone|fax|"
    r"call|dial|text)(?:\s+(?:number|no|is|was|at|me|us|of|to|ending in)){0,3}\s*[.:#]?\s*$"
)
_STATE_BEFORE = re.compile(rf"\b(?:[A-Z]{{2}}|{either(set(_STATES.values()))}),?\s$")
_COUNTED_FOLLOWS = re.compile(
    r"\s+(?!(?:[a-z]+\s+)?(?:was|is|has|as|its|this|does|goes)\b)(?:[a-z]+\s+)?[a-z]{2,}(?<!ss)(?<!us)(?<!is)s\b"
)
_RANGE_OF_UNITS = _compile(r"\s?[-–]\s?[\d.,]+\s?(?:<unit>)<end>")


@_rule("digit", r"()(<n>)")
@_rule("sign", r"(-)(<n>)", r"()(\.\d+)")
def _number(match: re.Match[str]) -> str | None:
    minus, text = match.groups()
    if minus:
        return "minus " + number(text) if _can_be_negative(match) else None
    if text.isdigit() and len(text) > 2:
        left, right = before(match), after(match)
        if _DIGITS_FOLLOW.search(left) or (len(text) == 5 and _STATE_BEFORE.search(left)):
            return digits(text)
        if len(text) > 6 and not text.endswith("000"):
            return digits(text)
        if (
            len(text) == 4
            and 1100 <= int(text) <= 2099
            and int(text) % 1000
            and not _RANGE_OF_UNITS.match(right)
            # A year, or hundreds ("1500 people"); but "1984 dogs" are counted.
            and (text.endswith("00") or not _COUNTED_FOLLOWS.match(right))
        ):
            return year(text)
        if (
            len(text) == 4
            and "1009" < text < "1100"
            and re.search(r"(?i)\b(?:in|since|until|year|battle of \w+,?)\s$", left)
        ):
            return year(text)
    return number(text)


def _can_be_negative(match: re.Match[str]) -> bool:
    return not re.search(r"[\w)%.°\]-]$", before(match, 1))


# Abbreviations, titles, Roman numerals


@_rule("letter", r"(Ph\.\s?D)\.?(?![a-z])")
def _doctorate(_: re.Match[str]) -> str:
    return "PhD"


_BEGINS_SENTENCE = "The|He|She|It|We|They|You|This|That|There|I|In|On|At|And|But"


@_rule("letter", rf"St\.(?=\s[a-z]|[,;:!?)\"”]|\s*$|\s(?:{_BEGINS_SENTENCE})\s)")
def _named_street(match: re.Match[str]) -> str | None:
    """Not "St. Mary", nor "St. Elsewhere" after a name."""
    named = re.search(r"\b(?:[A-Z][a-z]+|\d+(?:st|nd|rd|th)) $", before(match))
    return "Street" + _stop(match, match.group()) if named else None


@_rule("letter", rf"({either(_TITLES)})\.?(?=\s[A-Z][\w.])(?![A-Za-z])")
def _title(match: re.Match[str]) -> str | None:
    word = match.group(1)
    if word == "St" and re.search(r"(?<![.!?] )(?<!^)\b[A-Z][a-z]+ $|\d(?:st|nd|rd|th) $", before(match)):
        return None  # "1428 Elm St. Mary": a street
    return _TITLES[word]


@_rule("letter", r"(<street>)(?:\.|(?=[\s,]|$))")
def _street(match: re.Match[str]) -> str | None:
    word = match.group(1)
    in_address = re.search(r"(?:^|[^\w.])\d{1,5}\s(?:[NSEW]\.?\s)?(?:[A-Z0-9]\w*\s){1,3}$", before(match, 60))
    if word.isupper() or not in_address:
        return None
    return _STREETS[word.lower()] + _stop(match, match.group())


@_rule("letter", r"(?i:no)\.\s?(?=\d)")
def _number_abbreviated(_: re.Match[str]) -> str:
    return "number"


@_rule("letter", rf"(?i:{either(k for k in _ABBREVIATIONS if k[0].isalpha())})(?![A-Za-z\d])")
def _abbreviation(match: re.Match[str]) -> str | None:
    key, right = match.group().lower(), after(match)
    if key in _ABBREVIATIONS_OF_NUMBERS and not re.match(r"\s?[\dIVX]", right):
        return None
    said = _ABBREVIATIONS[key]
    if said.endswith(",") and right.startswith(","):
        return said[:-1]
    ends = not right.strip() or (key in _ABBREVIATIONS_THAT_END and _stop(match, key))
    return said.rstrip(",") + "." if key.endswith(".") and ends else said


@_rule(
    "letter",
    r"[B-HJ-Z]\.(?=\s?(?:[A-Z]\.\s?){0,3}[A-Z][a-z])|[AI]\.(?=\s[A-Z]\.)",
    r"(?:[A-Z]\.){2,10}(?![a-z])",
)
def _initials(match: re.Match[str]) -> str:
    """J. K. Rowling, U.S.A."""
    letters = match.group().replace(".", "")
    return letters + ("." if len(letters) > 2 and not after(match).strip() else "")


@_rule("letter", rf"({either(words('english', 'counted'))})\s([IVXLC]{{1,7}})(?![\w'])")
def _roman_cardinal(match: re.Match[str]) -> list[Piece] | None:
    value = roman(match.group(2))
    return _pieces(match, (1, match.group(1)), (2, cardinal(value))) if value else None


@_rule("letter", rf"({either(words('english', 'regnal'))})\s([IVX]{{1,7}})(?![\w'])")
def _roman_ordinal(match: re.Match[str]) -> list[Piece] | None:
    value = roman(match.group(2))
    alone = re.match(r"\s*(?:[,.;:!?)—–-]|$|(?:of|was|and|had|ruled|died)\b)", after(match))
    if not 0 < value <= 30 or (match.group(2) == "I" and not alone):
        return None  # "as John I went": the pronoun
    return _pieces(match, (1, match.group(1)), (2, "the " + ordinal(value)))


@_rule("letter", r"(?:III|II|IV|VI{1,3}|IX|XI{1,3}|XIV|XVI{0,3}|XIX|XXI{0,3})(?![\w'-])")
def _roman_alone(match: re.Match[str]) -> str:
    return cardinal(roman(match.group()))


FORMULAS = ("CO", "NO", "SO", "NH", "CH")


@_rule("letter", rf"({either(FORMULAS)})([234])(?![<l>\d])")
def _formula(match: re.Match[str]) -> str:
    """CO2: letters, not a word."""
    return " ".join(match.group(1)) + " " + cardinal(match.group(2))


_rule("letter", r"[<l>]+\d+[<l>\d]*")(_serial)


@_rule("letter", rf"(?i:{either(_PAIRS)})(?![<l>\d/])", r"[sS]/he(?![<l>\d/])")
def _either(match: re.Match[str]) -> str:
    """he/she: either of the two."""
    return re.sub("^s/", "she/", match.group(), flags=re.I).replace("/", " or ")


@_rule("letter", r"[<l>\d]{1,60}(?:_[<l>\d]{1,60}){1,20}")
def _snake(match: re.Match[str]) -> str:
    return " ".join(map(_in_words, re.findall(r"\d+|[^\W\d_]+", match.group())))


# --- signs ---------------------------------------------------------------------------------------

_always("sign", {r"#(?=\s?\d)": "number", ">=": "greater than or equal to", "<=": "less than or equal to"})
_always("sign", {"!=": "is not equal to", "=>|->|<-": "to", "={2,3}": "equals"})
_always("sign", {r"(?:\^2|²)(?!\d)": "squared", r"(?:\^3|³)(?!\d)": "cubed"})


@_rule("sign", r"~(?=\s?[\d$£€.])")
def _about(match: re.Match[str]) -> str | None:
    return None if re.search(r"\d\s?$", before(match, 2)) else "about"


_NUMERIC_END = re.compile(r"(?:[\d%°$£€½¼¾]|[\d%°]\s?[A-Za-z²³/]{1,5}|\d\s?[ap]\.m\.)$")


def _dash(text: str, at: int, left: str, right: str, previous: str) -> str | None:
    """ "to" between numbers, "minus" in an equation; else silent."""
    spaced = left[-1:] == right[:1] == " "
    if text[at] == "-" and "=" in text[max(0, at - 60) : at + 60]:
        operand = re.match(r"\s?[\w(√]", right) and re.search(r"(?:^|[\w²³)(=,±]\s?)$", left)
        if operand and (spaced or not left[-1:].isalnum()):
            return "minus"
    if not _NUMERIC_END.search(previous) or not re.match(r"\s?[$£€¥]?\.?\d", right):
        return None
    chain = re.search(r"[A-Za-z\d]-[A-Za-z\d.]{1,8}$", left) or re.match(
        r"[A-Za-z\d.]{1,8}-[A-Za-z\d]", right
    )
    if text[at] == "-" and chain and not spaced:
        return None  # 5-3-Ws
    if text[at] != "~" and (
        re.search(r"[=+×÷*]\s?[\d.]+\s?$", left) or re.match(r"\s?[\d.]+\s?[=+×÷*]", right)
    ):
        return "minus"
    return "to"


def _sign(text: str, at: int, previous_end: int) -> str | None:
    """What a single sign says in its place: None where it is silent."""
    char, left, right = text[at], text[max(0, at - 30) : at], text[at + 1 : at + 31]
    between_operands = re.search(r"[\w)\]%]\s?$", left) and re.match(r"\s?[-\w(.$]", right)
    match char:
        case "-" | "–" | "—" | "~":
            adjacent = not text[previous_end:at].strip()
            return _dash(
                text, at, left, right, text[max(0, previous_end - 12) : previous_end] if adjacent else ""
            )
        case "/":
            if between_operands:
                if re.search(r"\band$", left) and re.match(r"or\b", right):
                    return None
                equation = "=" in text[max(0, at - 60) : at + 60]
                return "over" if equation and re.search(r"\b[a-z]\s$|\d\s$|\)\s?$", left) else "slash"
            return "slash" if re.match(r"[\w$£€]", right) and not left.strip() else None
        case "*" | "^":
            return ("times" if char == "*" else SIGNS["^"]) if between_operands else None
        case "<" | ">":
            said = between_operands or (re.match(r"\s?\d", right) and not left[-1:].isalnum())
            return ("less than" if char == "<" else "greater than") if said else None
        case "#":
            return "hash" if left[-1:].strip() or not right[:1].strip() else None
    return SIGNS.get(char)


# --- words ---------------------------------------------------------------------------------------

_WORD = _compile(r"[<l>]+(?:'[<l>]+)*(?:-(?:[<l>]+(?:'[<l>]+)*))*(?:(?<=s)'(?![<l>]))?")
# A small word before another or a comma: no rule can concern it, unless it is in a table.
_PLAIN_WORD = _compile(r"[a-zß-öø-ÿ][<l>]+(?=\s[a-z]|[,!?;]\s)")
_LISTED = {
    w.split(".")[0].lower() for w in (*_ABBREVIATIONS, *_TITLES, *_STREETS, *_DAYS, *_DAYS_OF_TWO, *_MONTHS)
}


def read(text: str, at: int, previous_end: int, words_only: bool = False) -> list[Piece]:
    """Say what stands at ``text[at]``.

    Args:
        text: without markup.
        at: where a token begins: not a space, not punctuation that only shapes the melody.
        previous_end: where the last thing that was said ended.
        words_only: the sentence is in another language; only this word is English.

    Returns:
        The pieces said, in order, the last of which ends after ``at``; none where this one character is silent.
    """
    kind = kind_of(text[at])
    if kind == "letter":
        plain = _PLAIN_WORD.match(text, at)
        if plain and plain.group().lower() not in _LISTED:
            return [Piece(*plain.span(), plain.group(), "en")]
    if kind == "letter" or not words_only:
        pieces = _RULES.read(kind, text, at, "en")
        if pieces:
            return pieces
    if kind == "letter":
        word = _WORD.match(text, at)
        if word:
            return [Piece(*word.span(), word.group(), "en")]
        if text[at - 1 : at].isalpha() or text[at + 1 : at + 2].isalpha():
            return []  # another script; a Greek letter alone has a name
    spoken = _sign(text, at, previous_end)
    return [Piece(at, at + 1, spoken, "en")] if spoken else []
