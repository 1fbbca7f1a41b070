"""English number words. House style is American, without "and": "one hundred five"."""

from __future__ import annotations

import re

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ["", "thousand", "million", "billion", "trillion", "quadrillion"]
_IRREGULAR = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip


def digits(text: str, zero: str = "zero") -> str:
    """Digit by digit: "405" -> "four zero five"."""
    return " ".join(zero if c == "0" else ONES[int(c)] for c in text if c.isascii() and c.isdigit())


def cardinal(number: str | int) -> str:
    """ "1,234" -> "one thousand two hundred thirty four"; digit by digit with a leading zero or over 18 digits."""
    text = str(number).replace(",", "")
    if len(text) > 18 or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    n = int(text)
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (" " + ONES[n % 10] if n % 10 else "")
    if n < 1000:
        return ONES[n // 100] + " hundred" + (" " + cardinal(n % 100) if n % 100 else "")
    words, scale = [], 0
    while n:
        n, group = divmod(n, 1000)
        if group:
            words.insert(0, f"{cardinal(group)} {_SCALES[scale]}".strip())
        scale += 1
    return " ".join(words)


def ordinal(number: str | int) -> str:
    """ "21" -> "twenty first"."""
    words = cardinal(number).split()
    last = words[-1]
    words[-1] = _IRREGULAR.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    if len(words) == 1 and words[0] in ("hundredth", "thousandth"):
        words.insert(0, "one")
    return " ".join(words)


def year(number: str | int) -> str:
    """ "1905" -> "nineteen oh five", "2008" -> "two thousand eight", "2024" -> "twenty twenty four"."""
    n = int(number)
    if n < 1000 or n > 9999 or 2000 <= n < 2010 or n % 1000 == 0:
        return cardinal(n)
    high, low = divmod(n, 100)
    return f"{cardinal(high)} " + ("hundred" if not low else f"oh {ONES[low]}" if low < 10 else cardinal(low))


def plural(words: str) -> str:
    """ "eighty" -> "eighties", "nineteen hundred" -> "nineteen hundreds"."""
    return words[:-1] + "ies" if words.endswith("y") else words + ("es" if words.endswith("x") else "s")


def number(text: str) -> str:
    """A plain number, with thousands separators or a decimal point."""
    whole, point, fraction = text.partition(".")
    if not point:
        return cardinal(whole)
    return (cardinal(whole) + " " if whole else "") + "point " + digits(fraction)


def serial(text: str) -> str:
    """Digits in a name: "24" -> "twenty four", "321" -> "three twenty one", "401" -> "four oh one"."""
    if (
        len(text) <= 2
        or text[0] == "0"
        or len(text) > 4
        or (len(text) == 4 and text[1:] != "000" and text[2] == "0")
    ):
        return (
            cardinal(text)
            if len(text) <= 2
            else year(text)
            if len(text) == 4 and text[0] != "0"
            else digits(text)
        )
    if text.endswith("000") or (len(text) == 3 and text.endswith("00")):
        return cardinal(text)
    head, tail = text[:-2], text[-2:]
    return f"{cardinal(head)} " + (
        "hundred" if tail == "00" else f"oh {ONES[int(tail)]}" if tail[0] == "0" else cardinal(tail)
    )


_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_ROMAN_FORM = re.compile(r"(?=[IVXLCDM])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")


def roman(text: str) -> int:
    """Value of a Roman numeral, 0 if it is none."""
    if not _ROMAN_FORM.fullmatch(text):
        return 0
    values = [_ROMAN[c] for c in text]
    return sum(-v if v < max(values[i + 1 :], default=0) else v for i, v in enumerate(values))
