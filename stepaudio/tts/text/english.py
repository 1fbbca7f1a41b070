"""English as written -> English as said: numbers, dates, money, units, addresses, signs, abbreviations.

A rule is a pattern and a function that says what it matched; rules are tried in order wherever a
token may begin, so every spoken phrase knows its written piece. House style is American, without "and" in
numbers ("one hundred five"). Patterns repeat only what is bounded or cannot match what follows it,
so the work stays linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Piece(NamedTuple):
    """``text[start:end]`` is said as ``spoken`` in ``language``."""

    start: int
    end: int
    spoken: str
    language: str


# --- numbers -----------------------------------------------------------------------------------

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ["", "thousand", "million", "billion", "trillion", "quadrillion"]
_IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
}
_IRREGULAR["twelve"] = "twelfth"


def digits(text: str, zero: str = "zero") -> str:
    """Digit by digit: "405" -> "four zero five"."""
    return " ".join(zero if c == "0" else _ONES[int(c)] for c in text if c.isascii() and c.isdigit())


def cardinal(number: str | int) -> str:
    """ "1,234" -> "one thousand two hundred thirty four"; digit by digit with a leading zero or over 18 digits."""
    text = str(number).replace(",", "")
    if len(text) > 18 or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    n = int(text)
    if n < 20:
        return _ONES[n]
    if n < 100:
        return _TENS[n // 10] + (" " + _ONES[n % 10] if n % 10 else "")
    if n < 1000:
        return _ONES[n // 100] + " hundred" + (" " + cardinal(n % 100) if n % 100 else "")
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
    return f"{cardinal(high)} " + (
        "hundred" if not low else f"oh {_ONES[low]}" if low < 10 else cardinal(low)
    )


def plural(words: str) -> str:
    """ "eighty" -> "eighties", "nineteen hundred" -> "nineteen hundreds"."""
    return words[:-1] + "ies" if words.endswith("y") else words + ("es" if words.endswith("x") else "s")


def number(text: str) -> str:
    """A plain number, with thousands separators or a decimal point."""
    whole, point, fraction = text.partition(".")
    if not point:
        return cardinal(whole)
    return (cardinal(whole) + " " if whole else "") + "point " + digits(fraction)


def _serial_number(text: str) -> str:
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
        "hundred" if tail == "00" else f"oh {_ONES[int(tail)]}" if tail[0] == "0" else cardinal(tail)
    )


_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_ROMAN_FORM = re.compile(r"(?=[IVXLCDM])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")


def roman(text: str) -> int:
    """Value of a Roman numeral, 0 if it is none."""
    if not _ROMAN_FORM.fullmatch(text):
        return 0
    values = [_ROMAN[c] for c in text]
    return sum(-v if v < max(values[i + 1 :], default=0) else v for i, v in enumerate(values))


# --- tables ------------------------------------------------------------------------------------

MONTHS = "January February March April May June July August September October November December".split()
_MONTH = {m[:3].lower(): m for m in MONTHS} | {m.lower(): m for m in MONTHS} | {"sept": "September"}
_FULL_MONTHS = {m.lower() for m in MONTHS}
_DAYS = {d[:3]: d for d in "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()}
_DAYS |= {"Tues": "Tuesday", "Thur": "Thursday", "Thurs": "Thursday", "Weds": "Wednesday"}
_DAYS_SHORT = {"Mo": "Monday", "Tu": "Tuesday", "We": "Wednesday", "Th": "Thursday", "Fr": "Friday"}

_UNITS: dict[str, tuple[str, str]] = {}
for _row in (
    "km kilometer|m meter|cm centimeter|mm millimeter|nm nanometer|μm micrometer|um micrometer|kg kilogram|g gram|"
    "mg milligram|μg microgram|mcg microgram|lb pound pounds|lbs pound pounds|oz ounce|ft foot feet|yd yard|"
    "mi mile|l liter|L liter|ml milliliter|mL milliliter|dl deciliter|cl centiliter|cc cubic_centimeter|gal gallon|"
    "kph kilometer_per_hour kilometers_per_hour|km/h kilometer_per_hour kilometers_per_hour|mph mile_per_hour "
    "miles_per_hour|kmh kilometer_per_hour kilometers_per_hour|Hz hertz hertz|hz hertz hertz|kHz kilohertz kilohertz|"
    "khz kilohertz kilohertz|MHz megahertz megahertz|mhz megahertz megahertz|GHz gigahertz gigahertz|"
    "ghz gigahertz gigahertz|KB kilobyte|kB kilobyte|kb kilobit|MB megabyte|GB gigabyte|TB terabyte|PB petabyte|"
    "gb gigabyte|mb megabyte|tb terabyte|Mb megabit|Gb gigabit|kbps kilobit_per_second kilobits_per_second|"
    "Kbps kilobit_per_second kilobits_per_second|mbps megabit_per_second megabits_per_second|"
    "Mbps megabit_per_second megabits_per_second|gbps gigabit_per_second gigabits_per_second|"
    "Gbps gigabit_per_second gigabits_per_second|fps frame_per_second frames_per_second|rpm revolution_per_minute "
    "revolutions_per_minute|RPM revolution_per_minute revolutions_per_minute|bpm beat_per_minute beats_per_minute|"
    "BPM beat_per_minute beats_per_minute|h hour|hr hour|hrs hour hours|min minute|mins minute minutes|sec second|"
    "secs second seconds|ms millisecond|μs microsecond|ns nanosecond|W watt|kW kilowatt|MW megawatt|GW gigawatt|"
    "kWh kilowatt_hour|MWh megawatt_hour|V volt|kV kilovolt|mV millivolt|mA milliamp|mAh milliamp_hour|"
    "A ampere|J joule|kJ kilojoule|kcal kilocalorie|cal calorie|Pa pascal|kPa kilopascal|hPa hectopascal|"
    "MPa megapascal|psi pound_per_square_inch pounds_per_square_inch|N newton|dB decibel|db decibel|Ω ohm|kΩ kilohm|"
    "mol mole|lm lumen|lx lux lux|ha hectare|ac acre|sqft square_foot square_feet|px pixel|dpi dot_per_inch dots_per_inch|"
    "ppm part_per_million parts_per_million|°C degree_Celsius degrees_Celsius|°F degree_Fahrenheit degrees_Fahrenheit|"
    "°c degree_Celsius degrees_Celsius|°f degree_Fahrenheit degrees_Fahrenheit|°K kelvin kelvins|K_ kelvin|"
    "° degree|% percent percent|‰ per_mille per_mille|pct percent percent|pp percentage_point|tsp teaspoon|tbsp tablespoon"
).split("|"):
    _sign, _one, *_many = _row.split()
    _one = _one.replace("_", " ")
    _UNITS[_sign] = (_one, _many[0].replace("_", " ") if _many else _one + "s")
for _sign in ("km", "m", "cm", "mm", "mi", "ft", "in", "yd"):
    _one, _many = _UNITS.get(_sign, ("inch", "inches"))
    for _mark, _power in (("²", "square"), ("2", "square"), ("³", "cubic"), ("3", "cubic")):
        _UNITS[_sign + _mark] = (f"{_power} {_one}", f"{_power} {_many}")
    _UNITS["sq " + _sign] = (f"square {_one}", f"square {_many}")
_PER = {"s": "second", "h": "hour", "hr": "hour", "hour": "hour", "min": "minute", "d": "day", "day": "day"}
_PER |= {
    "wk": "week",
    "week": "week",
    "w": "week",
    "mo": "month",
    "month": "month",
    "yr": "year",
    "y": "year",
}
_PER |= {"year": "year", "kg": "kilogram", "lb": "pound", "L": "liter", "l": "liter", "m²": "square meter"}
_PER |= {
    "s²": "second squared",
    "m³": "cubic meter",
    "m": "meter",
    "km": "kilometer",
    "person": "person",
    "oz": "ounce",
}

_CURRENCY = {  # sign -> one, many, hundredth, hundredths
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "元": ("yuan", "yuan", "fen", "fen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "₺": ("lira", "lira", "kurus", "kurus"),
    "₫": ("dong", "dong", "hao", "hao"),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "₱": ("peso", "pesos", "centavo", "centavos"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "฿": ("baht", "baht", "satang", "satang"),
    "₴": ("hryvnia", "hryvnias", "kopiyka", "kopiykas"),
}
_CODES = {
    "USD": "$",
    "GBP": "£",
    "EUR": "€",
    "JPY": "¥",
    "CNY": "元",
    "RMB": "元",
    "INR": "₹",
    "KRW": "₩",
    "RUB": "₽",
}
_CODES |= {"Rs": "₹", "Rs.": "₹", "BTC": "₿"}
_COUNTRY = {
    "US": "US",
    "C": "Canadian",
    "CA": "Canadian",
    "A": "Australian",
    "AU": "Australian",
    "HK": "Hong Kong",
}
_COUNTRY |= {"S": "Singapore", "NZ": "New Zealand", "NT": "New Taiwan", "R": "Brazilian"}
_MAGNITUDE = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "mn": "million",
    "mm": "million",
}
_MAGNITUDE |= {
    "b": "billion",
    "B": "billion",
    "bn": "billion",
    "t": "trillion",
    "T": "trillion",
    "tn": "trillion",
}
_BIG = "hundred|thousand|million|billion|trillion"

# Read before a capitalised name; without a name after it "Dr." is Drive, "St." Street.
_TITLES = {
    "Mr": "mister", "Mrs": "missus", "Ms": "miz", "Dr": "doctor", "Prof": "professor", "St": "saint", "Mt": "mount",
    "Ft": "fort", "Gen": "general", "Gov": "governor", "Sen": "senator", "Rep": "representative", "Capt": "captain",
    "Lt": "lieutenant", "Col": "colonel", "Sgt": "sergeant", "Cmdr": "commander", "Rev": "reverend", "Maj": "major",
    "Adm": "admiral", "Pres": "president", "Hon": "honorable", "Cpl": "corporal", "Pvt": "private", "Fr": "father",
}  # fmt: skip
_TITLES["Mrs"] = "misses"
_STREET = {
    "st": "Street", "ave": "Avenue", "rd": "Road", "blvd": "Boulevard", "ln": "Lane", "ct": "Court", "hwy": "Highway",
    "expy": "Expressway", "pkwy": "Parkway", "dr": "Drive", "pl": "Place", "sq": "Square", "ter": "Terrace", "cir": "Circle",
}  # fmt: skip
_ABBREVIATIONS = {
    "e.g.": "for example,", "i.e.": "that is,", "etc.": "et cetera", "vs.": "versus", "vs": "versus", "v.s.": "versus",
    "approx.": "approximately", "dept.": "department", "est.": "established", "no.": "number", "nos.": "numbers",
    "vol.": "volume", "vols.": "volumes", "pp.": "pages", "fig.": "figure", "figs.": "figures", "ch.": "chapter",
    "sec.": "section", "eq.": "equation", "ed.": "edition", "eds.": "editors", "inc.": "incorporated", "ltd.": "limited",
    "corp.": "corporation", "co.": "company", "bros.": "brothers", "jr.": "junior", "sr.": "senior", "ave.": "avenue",
    "blvd.": "boulevard", "rd.": "road", "hwy.": "highway", "apt.": "apartment", "bldg.": "building", "univ.": "university",
    "assn.": "association", "govt.": "government", "cf.": "compare", "al.": "al", "ca.": "circa", "viz.": "namely",
    "misc.": "miscellaneous", "tel.": "telephone", "ext.": "extension", "min.": "minimum", "max.": "maximum",
    "avg.": "average", "temp.": "temperature", "w/": "with", "w/o": "without", "b/c": "because", "aka": "also known as",
    "a.k.a.": "also known as", "p.s.": "P S", "ph.d.": "PhD", "ph.d": "PhD", "b.c.": "BC", "b.c": "BC", "a.d.": "AD",
    "b.c.e.": "BCE", "a.m.": "AM", "p.m.": "PM", "a.m": "AM", "p.m": "PM", "u.s.": "US", "u.k.": "UK", "u.n.": "UN",
    "u.s.a.": "USA", "d.c.": "DC", "mr": "mister", "mrs": "misses", "ms": "miz", "r&d": "R and D", "q&a": "Q and A", "c++": "C plus plus",
    "c#": "C sharp", "f#": "F sharp", "wi-fi": "Wi-Fi", "mph": "miles per hour", "tv": "TV", "ok": "okay", "asap": "A S A P",
    "thru": "through", "4ever": "forever", "b2b": "B to B", "b2c": "B to C", "p2p": "P to P", "24/7": "twenty four seven",
    "9/11": "nine eleven", "50/50": "fifty fifty", "dept": "department", "approx": "approximately", "ft.": "feet", "mt.": "mount",
    "maj.": "major", "rev.": "reverend", "prof.": "professor", "gen.": "general", "gov.": "governor", "sgt.": "sergeant",
    "capt.": "captain", "lt.": "lieutenant", "col.": "colonel", "sen.": "senator", "rep.": "representative", "mr.": "mister",
    "mrs.": "misses", "ms.": "miz", "ssn": "SSN",
}  # fmt: skip
for _word in ("mr", "ms", "mrs"):
    del _ABBREVIATIONS[_word]
_ONLY_BEFORE_DIGIT = {
    "no.",
    "nos.",
    "fig.",
    "figs.",
    "ch.",
    "sec.",
    "eq.",
    "vol.",
    "pp.",
    "ed.",
    "ext.",
    "est.",
}
_MAY_END = {
    "etc.",
    "a.m.",
    "p.m.",
    "inc.",
    "ltd.",
    "corp.",
    "jr.",
    "sr.",
    "al.",
    "ph.d.",
    "b.c.",
    "a.d.",
    "u.s.a.",
    "d.c.",
}
_STATES = dict(
    pair.split(":")
    for pair in (
        "AL:Alabama AK:Alaska AZ:Arizona AR:Arkansas CA:California CO:Colorado CT:Connecticut DE:Delaware FL:Florida "
        "GA:Georgia HI:Hawaii ID:Idaho IL:Illinois IN:Indiana IA:Iowa KS:Kansas KY:Kentucky LA:Louisiana ME:Maine "
        "MD:Maryland MA:Massachusetts MI:Michigan MN:Minnesota MS:Mississippi MO:Missouri MT:Montana NE:Nebraska "
        "NV:Nevada OH:Ohio OK:Oklahoma OR:Oregon PA:Pennsylvania TN:Tennessee TX:Texas UT:Utah VT:Vermont VA:Virginia "
        "WA:Washington WI:Wisconsin WY:Wyoming NY:New_York NJ:New_Jersey NC:North_Carolina SC:South_Carolina"
    ).split()
)
_COUNTED = (
    "Chapter|Part|Act|Scene|Section|Volume|Vol|Book|Phase|Article|War|Mark|Type|Level|Stage|Class|Grade|Bowl|Apollo|"
    "Gemini|Fantasy|Episode|Round|Rocky|Title|Figure|Table|Appendix|Amendment|Tier|Category|Group|Unit|Lesson|Step|"
    "Version|Season|Movement|Symphony|Sonata|Opus|Factor|Division|Region|Zone|Saturn|Photosystem|Civilization|Dragon"
)
_REGNAL = (
    "Pope|King|Queen|Emperor|Tsar|Henry|Louis|Edward|George|William|Charles|James|Richard|Elizabeth|Napoleon|Pius|"
    "Benedict|Leo|Paul|Ramses|Ramesses|Frederick|Philip|Alexander|Nicholas|Peter|Catherine|Ivan|Umberto|Emmanuel|Gustav|"
    "Christian|Ferdinand|Francis|Mary|John|Albert|Leopold|Wilhelm|Otto|Gregory|Clement|Innocent|Urban|Darius|Xerxes|"
    "Ptolemy|Cleopatra|Theodosius|Constantine|Joseph|Carlos|Juan|Alfonso|Felipe|Harald|Olaf|Haakon|Akbar|Mehmed|Murad"
)
_ACRONYM_TLD = {"com", "net", "org", "info", "gov", "io", "biz", "app", "dev"}
_TLDS = (
    "com|org|net|edu|gov|mil|int|io|ai|co|uk|us|de|fr|jp|cn|ru|in|au|ca|br|it|nl|es|se|no|ch|eu|info|biz|me|tv|app|dev|"
    "sm|kr|tw|hk|sg|nz|za|mx|pl|abc|xyz|tech|cloud|gg|ly|fm|edu"
)
_FILES = (
    "pdf|docx?|xlsx?|pptx?|txt|csv|tsv|json|ya?ml|toml|xml|html?|css|js|ts|py|rb|rs|go|java|cpp|c|h|sh|md|ini|cfg|conf|log|"
    "zip|tar|gz|rar|7z|exe|dll|so|apk|iso|jpe?g|png|gif|svg|webp|bmp|mp3|mp4|wav|flac|ogg|m4a|mov|avi|mkv|webm|onnx|gguf|sql|db"
)
_SIGNS = {
    "&": "and", "+": "plus", "=": "equals", "%": "percent", "@": "at", "±": "plus or minus", "×": "times", "÷": "divided by",
    "≈": "approximately equals", "≠": "is not equal to", "≤": "less than or equal to", "≥": "greater than or equal to",
    "√": "square root of", "∞": "infinity", "∑": "sum of", "∫": "integral of", "°": "degrees", "©": "copyright", "§": "section",
    "→": "to", "€": "euro", "£": "pound", "$": "dollar", "¥": "yen", "₩": "won", "₹": "rupee", "¢": "cents", "²": "squared",
    "³": "cubed", "½": "one half", "¼": "one quarter", "¾": "three quarters", "⅓": "one third", "⅔": "two thirds",
    "⅛": "one eighth", "⅜": "three eighths", "⅝": "five eighths", "⅞": "seven eighths", "⅕": "one fifth", "⅖": "two fifths",
    "⅗": "three fifths", "⅘": "four fifths", "⅙": "one sixth", "⅚": "five sixths", "‰": "per mille", "^": "to the power of",
    "∈": "in", "∂": "partial", "∆": "delta", "′": "prime",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "λ": "lambda", "μ": "mu", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Δ": "delta", "Σ": "sigma", "Ω": "omega", "Φ": "phi", "Π": "pi", "Λ": "lambda", "Θ": "theta", "Γ": "gamma", "Ψ": "psi",
}  # fmt: skip
_SIGNS_IN_NAMES = {
    ".": "dot",
    "/": "slash",
    "-": "dash",
    "_": "underscore",
    "@": "at",
    ":": "colon",
    "?": "question mark",
}
_SIGNS_IN_NAMES |= {
    "=": "equals",
    "&": "and",
    "#": "hash",
    "%": "percent",
    "+": "plus",
    "~": "tilde",
    "\\": "backslash",
}

# --- patterns ----------------------------------------------------------------------------------

_N = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"  # 1,234.5  12  .5
_L = r"A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ"
_END = rf"(?![{_L}\d])"
_MONTHS = "|".join(sorted((m.capitalize() for m in _MONTH), key=len, reverse=True))
_MONTHS = rf"(?i:{_MONTHS})"
_ALT = lambda words: "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))  # noqa: E731
_AMPM = r"[AaPp](?:\.\s?[Mm](?:\.|(?![A-Za-z]))|[Mm](?![A-Za-z]))"
_ZONE = r"(?:\s?(?i:(est|edt|pst|pdt|cst|cdt|mst|gmt|utc|cet|cest|bst|jst))(?![A-Za-z]))?"

Say = Callable[[re.Match[str]], "str | list[Piece] | None"]


def _before(match: re.Match[str], size: int = 40) -> str:
    return match.string[max(0, match.start() - size) : match.start()]


def _after(match: re.Match[str], size: int = 40) -> str:
    return match.string[match.end() : match.end() + size]


def _in_order(match: re.Match[str], *parts: tuple[int, str]) -> list[Piece]:
    """A piece for every group of the match that says something."""
    return [Piece(*match.span(group), spoken, "en") for group, spoken in parts if match.group(group)]


def _letters(word: str) -> str:
    return " ".join(word.upper())


_VOWELLESS = re.compile(r"[^aeiouyAEIOUY]{2,}")


def _name_part(part: str) -> str:
    """A run of letters or digits in an address or file name: words as words, codes letter by letter."""
    if part.isdigit():
        return digits(part) if len(part) != 4 or not part.endswith("000") else cardinal(part)
    if len(part) == 1 or part.lower() in ("www", "http", "https", "html", "pdf", "xml") or (
        len(part) < 5 and _VOWELLESS.fullmatch(part)
    ):
        return part.upper()
    return " ".join(_camel(part))


def _camel(word: str) -> list[str]:
    """ "HappyNewYear" -> Happy New Year."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\WA-Z\d_]+|\d+|[^\W\d_]", word) or [word]


def _address(match: re.Match[str]) -> str:
    """URL, e-mail address, file name."""
    words: list[str] = []
    text = match.group()
    for part in re.findall(rf"[{_L}]+|\d+|[^\w\s]|_", text[:400]):
        if part[0].isdigit() or part[0].isalpha():
            words.append(_name_part(part))
        elif part in _SIGNS_IN_NAMES:
            words.append(_SIGNS_IN_NAMES[part])
    spoken = " ".join(words)
    # A country at the end is spelled ("dot U K"), everyday endings are words ("dot com").
    tail = re.search(r" dot (\w{2,3})$", spoken)
    if tail and tail.group(1) not in _ACRONYM_TLD and (text.count("@") or len(tail.group(1)) == 2):
        spoken = spoken[: tail.start(1)] + tail.group(1).upper()
    return spoken


def _phone(match: re.Match[str]) -> str:
    text = match.group()
    groups = re.findall(r"\d+|[A-Z]+", text)
    said = []
    for index, group in enumerate(groups):
        if group.isdigit():
            said.append("eight hundred" if group == "800" and index < 2 else digits(group))
        else:
            said.append(
                group if len(group) > 3 or group in ("GO",) else _letters(group) if len(group) > 2 else group
            )
    return ("plus " if text.startswith("+") else "") + ", ".join(said)


def _date(day: str, month: str, year_text: str, day_first: bool) -> str | None:
    """Words of a date whose month is a number or a name; None if there is no such day."""
    if month.isdigit():
        if not 1 <= int(month) <= 12:
            return None
        month = MONTHS[int(month) - 1]
    else:
        month = _MONTH[month.lower().rstrip(".")]
    if not 1 <= int(day) <= 31:
        return None
    said_year = ""
    if year_text:
        said_year = " " + (
            digits(year_text, "oh") if len(year_text) == 2 and year_text[0] == "0" else year(year_text)
        )
    return (
        f"the {ordinal(int(day))} of {month}" if day_first else f"{month} {ordinal(int(day))}"
    ) + said_year


def _ymd(match: re.Match[str]) -> str | None:
    return _date(match.group(4), match.group(3), match.group(1), False)


def _numeric_date(match: re.Match[str]) -> str | None:
    first, second, year_text = match.group(1), match.group(3), match.group(4)
    if int(first) > 12:
        return _date(first, second, year_text, True)
    return _date(second, first, year_text, False)


def _day_month(match: re.Match[str]) -> list[Piece] | None:
    day, month, year_text = match.group(1), match.group(2), match.group(4)
    if not 1 <= int(day) <= 31:
        return None
    if month.lower() in ("may", "mar", "march", "sat", "sun") and month.islower() and not year_text:
        return None  # "5 may be enough"
    the = "" if re.search(r"\bthe\s$", _before(match, 5), re.I) else "the "
    said = f"{the}{ordinal(int(day))} of {_MONTH[month.lower()]}"
    # The full stop of "Sept." belongs to the month, that of "July." to the sentence.
    dotted = match.group(3) and month.lower() not in _FULL_MONTHS and _after(match, 3).strip()
    if match.group(3) and not dotted:
        year_text = None
    end = match.end(3) if dotted else match.end(2)
    comma = "," if year_text and "," in match.string[end : match.start(4)] else ""
    pieces = [Piece(match.start(), end, said + comma, "en")]
    return pieces + ([Piece(*match.span(4), year(year_text), "en")] if year_text else [])


def _month_day(match: re.Match[str]) -> list[Piece] | None:
    month, day, year_text = match.group(1), match.group(3).rstrip("stndrhSTNDRH"), match.group(4)
    if not 1 <= int(day) <= 31 or (month in ("may", "march", "mar") and not year_text):
        return None
    gap = match.string[match.end(3) : match.start(4)] if year_text else ""
    return _in_order(
        match,
        (1, _MONTH[month.lower()]),
        (3, ordinal(int(day)) + ("," if "," in gap else "")),
        *([(4, year(year_text))] if year_text else []),
    )


def _month_year(match: re.Match[str]) -> list[Piece] | None:
    if match.group(1) in ("may", "march", "mar"):
        return None
    return _in_order(match, (1, _MONTH[match.group(1).lower()]), (3, year(match.group(3))))


def _half_day(text: str | None) -> str:
    return "" if not text else " AM" if text[0] in "Aa" else " PM"


def _clock(match: re.Match[str]) -> str | None:
    hour, minute, second, half, zone = match.groups()
    if int(hour) > 24 or int(minute) > 59 or (second and int(second) > 59):
        return None
    tail = _half_day(half) + (f" {zone.upper()}" if zone else "") + _kept_stop(match, 4)
    if second:
        count = lambda n, unit: f"{cardinal(int(n))} {unit}" + ("" if int(n) == 1 else "s")  # noqa: E731
        if half:
            return f"{cardinal(int(hour))} {digits(minute, 'oh') if minute[0] == '0' else cardinal(minute)} and {count(second, 'second')}{tail}"
        return f"{count(hour, 'hour')} {count(minute, 'minute')} and {count(second, 'second')}{tail}"
    said = cardinal(int(hour))
    if minute == "00":
        return said + (tail if half else " o'clock" + tail)
    return f"{said} {'oh ' + _ONES[int(minute)] if minute[0] == '0' else cardinal(minute)}{tail}"


def _kept_stop(match: re.Match[str], group: int) -> str:
    """The full stop of "p.m." also ends the sentence where a capital or nothing follows."""
    half = match.group(group)
    if half and half.endswith(".") and re.match(r"\s*$|\s+[A-Z\"“(]", _after(match)):
        return "."
    return ""


def _hour(match: re.Match[str]) -> str | None:
    if int(match.group(1)) > 24:
        return None
    zone = match.group(3)
    return (
        cardinal(int(match.group(1)))
        + _half_day(match.group(2))
        + (f" {zone.upper()}" if zone else "")
        + _kept_stop(match, 2)
    )


def _amount(text: str, sign: str, magnitude: str | None) -> str:
    """ "3.50", "$" -> "three dollars fifty cents"; with a magnitude "three point five million dollars"."""
    one, many, cent, cents = _CURRENCY[sign]
    text = text.replace(",", "")
    if magnitude:
        big = _MAGNITUDE.get(magnitude, magnitude.lower())
        return f"{number(text)} {big} {many}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > 2 or not cent or len(text) > 18:
        return f"{number(whole + ('.' + fraction if fraction else ''))} {many}"
    count, parts = int(whole or 0), int(fraction.ljust(2, "0") or 0)
    said = []
    if count or not parts:
        said.append(f"{cardinal(count)} {one if count == 1 else many}")
    if parts:
        said.append(f"{cardinal(parts)} {cent if parts == 1 else cents}")
    return " ".join(said)


def _money(match: re.Match[str]) -> str:
    country, sign, amount, upper, big, per = match.groups()
    said = _amount(upper or amount, _CODES.get(sign, sign), big)
    if upper:
        said = f"{number(amount)} to {said}"
    if country:
        one, many = _CURRENCY[_CODES.get(sign, sign)][:2]
        said = re.sub(rf"\b({many}|{one})\b", rf"{_COUNTRY[country]} \1", said, count=1)
    return said + (f" per {_PER[per]}" if per else "")


def _money_after(match: re.Match[str]) -> str:
    return _amount(match.group(1), _CODES.get(match.group(3), match.group(3)), match.group(2))


def _plural_of(text: str) -> int:
    return 0 if text.replace(",", "") in ("1", "1.0", "1.00") else 1


def _measure(match: re.Match[str]) -> str | None:
    minus, amount, unit, per = match.groups()
    if (
        unit in ("m", "K", "A", "V", "N", "W", "J", "L", "h", "g", "l", "T")
        and per is None
        and match.end() < len(match.string)
    ):
        if match.string[match.end()] in "-'’":
            return None
    if (
        unit in ("A", "h", "l", "ac", "cal", "mi", "in", "min")
        and " " in match.group()
        and per is None
        and unit in ("A", "ac")
    ):
        return None
    said = ("minus " if minus else "") + number(amount) + " " + _UNITS[unit][_plural_of(amount)]
    return said + (f" per {_PER[per]}" if per else "")


def _measure_big(match: re.Match[str]) -> list[Piece] | None:
    amount, big, unit = match.groups()
    return _in_order(match, (1, number(amount)), (2, big), (3, _UNITS[unit][1]))


_PARTS = {2: "half", 4: "quarter"}


def _fraction_words(top: str, bottom: str) -> str:
    a, b = int(top), int(bottom)
    if b in (0, 1):
        return f"{cardinal(a)} over {cardinal(b)}"
    if b == 2:
        return "one half" if a == 1 else f"{cardinal(a)} halves"
    name = _PARTS.get(b) or ordinal(b)
    if b == 1000:
        name = "one thousandth"
    return f"{cardinal(a)} {name}{'' if a == 1 else 's'}"


def _fraction(match: re.Match[str]) -> str | None:
    minus, whole, top, bottom = match.groups()
    if (
        re.search(r"[A-Za-z]-$", _before(match, 2))
        or len(top) > 6
        or len(bottom) > 6
        or (top[0] == "0" and len(top) > 1)
        or bottom[0] == "0"
    ):
        return None
    if " " in match.group() and "=" in _before(match, 3) + _after(match, 3):
        return f"{cardinal(top)} divided by {cardinal(bottom)}"
    said = _fraction_words(top, bottom)
    if whole:
        said = f"{cardinal(whole)} and " + ("a half" if said == "one half" else said)
    return ("minus " if minus else "") + said


def _vulgar(match: re.Match[str]) -> str:
    said = _SIGNS[match.group(2)]
    return f"{cardinal(match.group(1))} and " + (
        said.replace("one ", "a ", 1) if said == "one half" else said
    )


_SUFFIX = {1: "st", 2: "nd", 3: "rd"}


def _ordinal(match: re.Match[str]) -> str | None:
    text, suffix = match.group(1).replace(",", ""), match.group(2).lower()
    if len(text) > 12:
        return None
    n = int(text)
    right = "th" if 10 < n % 100 < 14 else _SUFFIX.get(n % 10, "th")
    return ordinal(n) if right == suffix else None


def _decade(match: re.Match[str]) -> str | None:
    text = match.group(1)
    if len(text) == 4:
        if text == "2000":
            return "two thousands"
        return plural(year(text)) if text.endswith("0") else None
    return plural(_TENS[int(text[0])]) if int(text) >= 20 else None


def _room(match: re.Match[str]) -> str:
    return (
        digits(match.group(), "oh")
        if len(match.group()) == 3 and match.group()[1] == "0"
        else _serial_number(match.group())
    )


_DIGIT_WORDS = re.compile(
    r"(?i)\b(?:code|pin|password|passcode|zip|zipcode|account|serial|extension|ext|otp|id|ssn|phone|tel|telephone|fax|call|dial|text)"
    r"(?:\s+(?:number|no|is|was|at|me|us|of|to|ending in)){0,3}\s*[.:#]?\s*$"
)
_STATE_BEFORE = re.compile(r"\b(?:[A-Z]{2}|" + "|".join(set(_STATES.values())).replace("_", " ") + r"),?\s$")
_COUNTABLE = re.compile(r"\s+(?:[a-z]+\s+)?[a-z]{2,}(?<!ss)(?<!us)(?<!is)s\b")
_NOT_COUNTABLE = re.compile(r"\s+(?:was|is|has|as|its|this|does|goes|[a-z]+\s+(?:was|is|has|as|its|this))\b")


def _number(match: re.Match[str]) -> str:
    minus, text = match.groups()
    said = "minus " if minus else ""
    if re.fullmatch(r"\d{4}", text) and not minus:
        n = int(text)
        if _DIGIT_WORDS.search(_before(match)):
            return digits(text)
        after = _after(match)
        if re.match(rf"\s?[-–]\s?[\d.,]+\s?(?:{_UNIT_ALT}){_END}", after):
            return number(text)
        if (
            1100 <= n <= 2099
            and n % 1000
            and (n % 100 == 0 or not _COUNTABLE.match(after) or _NOT_COUNTABLE.match(after))
        ):
            return year(n)
    elif text.isdigit() and len(text) >= 4:
        if _DIGIT_WORDS.search(_before(match)):
            return digits(text)
        if len(text) == 5 and _STATE_BEFORE.search(_before(match)):
            return digits(text)
        if len(text) > 6 and not text.endswith("000"):
            return said + digits(text)
    elif text.isdigit() and len(text) == 3 and _DIGIT_WORDS.search(_before(match)):
        return digits(text)
    return said + number(text)


def _version(match: re.Match[str]) -> str:
    parts = match.group(2).split(".")
    v = "version " if match.group(1) else ""
    return v + " point ".join(cardinal(p) for p in parts)


def _ip(match: re.Match[str]) -> str:
    return " dot ".join(digits(part) for part in match.group().split("."))


def _scores(match: re.Match[str]) -> str:
    return f"{cardinal(match.group(1))} to {cardinal(match.group(2))}"


def _serial(match: re.Match[str]) -> str:
    parts = re.findall(rf"[{_L}]+|\d+", match.group())
    said = []
    for part in parts:
        if part.isdigit():
            said.append(_serial_number(part))
        elif len(part) == 1:
            said.append(part.upper())
        else:
            said += _camel(part)
    return " ".join(said)


def _hashtag(match: re.Match[str]) -> str:
    return "hashtag " + " ".join(_spell_out(part) for part in re.findall(r"\d+|[^\W\d_]+", match.group(1)))


def _spell_out(part: str) -> str:
    return _serial_number(part) if part.isdigit() else " ".join(_camel(part))


def _handle(match: re.Match[str]) -> str:
    return "at " + " ".join(_spell_out(part) for part in re.findall(r"\d+|[^\W\d_]+", match.group(1)))


def _snake(match: re.Match[str]) -> str:
    return " ".join(_spell_out(part) for part in re.findall(r"\d+|[^\W\d_]+", match.group()))


def _abbreviation(match: re.Match[str]) -> str | None:
    word = match.group()
    key = word.lower()
    after = _after(match)
    if key in _ONLY_BEFORE_DIGIT and not re.match(r"\s?[\dIVX]", after):
        return None
    said = _ABBREVIATIONS[key]
    if said.endswith(",") and after.startswith(","):
        return said[:-1]
    at_end = not after.strip() or (key in _MAY_END and re.match(r"[\"”)]?\s+[A-Z]", after))
    return said.rstrip(",") + "." if word.endswith(".") and at_end else said


def _title(match: re.Match[str]) -> str | None:
    word = match.group(1)
    if (
        word == "St"
        and re.search(r"(?:\d|[A-Z][a-z]+|\dst|nd|rd|th) $", _before(match))
        and not re.search(r"(?:^|[.!?] )[A-Z]\w* $", _before(match))
    ):
        return None  # "1428 Elm St. Mary": a street
    return _TITLES[word]


def _street(match: re.Match[str]) -> str | None:
    word = match.group(1)
    if word.isupper() and len(word) > 1:
        return None
    if not re.search(r"(?:^|[^\w.])\d{1,5}\s(?:[NSEW]\.?\s)?(?:[A-Z0-9]\w*\s){1,3}$", _before(match, 60)):
        return None
    dot = match.group().endswith(".") and re.match(r"\s*$|\s+[A-Z]", _after(match))
    return _STREET[word.lower()] + ("." if dot else "")


_HOUSE = re.compile(
    rf"(\d{{1,5}})(?=\s(?:[NSEW]\.?\s)?(?:[A-Z0-9]\w{{1,20}}\s){{1,3}}(?:{_ALT(w.capitalize() for w in _STREET)}|"
    rf"{_ALT(_STREET)}|Street|Avenue|Road|Boulevard|Lane|Drive|Highway)(?![A-Za-z]))"
)


def _house(match: re.Match[str]) -> str:
    text = match.group(1)
    return (
        digits(text)
        if len(text) == 3 and text[1] == "0"
        else _serial_number(text)
        if len(text) < 5
        else digits(text)
    )


def _roman_after(match: re.Match[str]) -> list[Piece] | None:
    value = roman(match.group(2))
    if not value:
        return None
    return [
        Piece(*match.span(1), match.group(1), "en"),
        Piece(*match.span(2), cardinal(value), "en"),
    ]


def _regnal(match: re.Match[str]) -> list[Piece] | None:
    value = roman(match.group(2))
    if not 0 < value <= 30:
        return None
    if match.group(2) == "I" and not re.match(
        r"\s*(?:[,.;:!?)—–-]|$|of\b|was\b|and\b|had\b|ruled\b|died\b)", _after(match)
    ):
        return None  # "as John I went": the pronoun
    return [Piece(*match.span(1), match.group(1), "en"), Piece(*match.span(2), "the " + ordinal(value), "en")]


def _roman_alone(match: re.Match[str]) -> str | None:
    return cardinal(roman(match.group()))


def _number_sign(match: re.Match[str]) -> str:
    return "number"


def _feet_inches(match: re.Match[str]) -> str:
    feet, inches = match.groups()
    said = f"{cardinal(feet)} {'foot' if inches or feet == '1' else 'feet'}"
    return f"{said} {cardinal(inches)}" if inches else said


def _inches(match: re.Match[str]) -> str | None:
    if len(re.findall(r'(?<!\d)"', _before(match, 300))) % 2:
        return None  # closes a quotation
    return f"{number(match.group(1))} {'inch' if match.group(1) == '1' else 'inches'}"


def _days(match: re.Match[str]) -> list[Piece]:
    gap = match.string[match.end(1) : match.start(2)]
    where = match.end(1) + next((i for i, c in enumerate(gap) if c in "-–—~"), 0)
    return [
        Piece(*match.span(1), _DAYS[match.group(1)], "en"),
        Piece(where, where + 1, "to", "en"),
        Piece(*match.span(2), _DAYS[match.group(2)], "en"),
    ]


def _half_year(match: re.Match[str]) -> str:
    kind, which = ("half", match.group(1)) if match.group(2) == "H" else ("quarter", match.group(1))
    return f"the {ordinal(int(which))} {kind} of {cardinal(match.group(3)) if len(match.group(3)) == 2 else year(match.group(3))}"


def _state(match: re.Match[str]) -> str:
    return _STATES[match.group(1)].replace("_", " ")


def _multiple(match: re.Match[str]) -> str:
    return f"{number(match.group(1))} {'times' if match.group(2) in 'x×X' and _after(match, 8).startswith((' faster', ' more', ' as', ' the', ' large', ' high', ' bigge', ' slowe', ' small')) else 'x'}"


def _dimension(match: re.Match[str]) -> list[Piece] | None:
    if re.match(r"\s?[\d.]+\s?=", _after(match)) or re.search(r"[=+]\s?$", _before(match)):
        return None
    return [
        Piece(*match.span(1), number(match.group(1)), "en"),
        Piece(*match.span(2), "by", "en"),
    ]


_UNIT_ALT = _ALT(u for u in _UNITS if u not in ("K_", "A", "N", "J", "px", "pp", "h", "min", "cal", "ac"))
_UNIT_ALT += "|min|cal|h|px|pp|J|N"
_PER_ALT = _ALT(_PER)
_CUR = r"[$£€¥₹₩₽₺₫₿₱₪฿₴]"


def _rule(pattern: str, say: Say | str) -> tuple[re.Pattern[str], Say]:
    return re.compile(pattern), (lambda _match, words=say: words) if isinstance(say, str) else say


# Order matters: the first rule that says something wins.
_AT_DIGIT: list[tuple[re.Pattern[str], Say]] = [
    _rule(r"24/7(?![\d/])", "twenty four seven"),
    _rule(r"9/11(?![\d/])", "nine eleven"),
    _rule(r"50/50(?![\d/])", "fifty fifty"),
    _rule(r"(?:401|403)\(?[kKbB]\)?(?![A-Za-z])", lambda m: digits(m.group(), "oh") + (" K" if "k" in m.group().lower() else " B")),
    _rule(rf"[{_L}\d][{_L}\d._%+-]{{0,63}}@(?:[{_L}\d-]{{1,63}}\.){{1,5}}[{_L}]{{2,24}}(?:/[{_L}\d_/.-]{{0,200}})?", _address),
    _rule(r"\d{1,3}(?:\.\d{1,3}){3}(?:\.\d{1,3})?(?![\d.]*\d)", _ip),
    _rule(r"(\d{4})([-/.])(0?[1-9]|1[0-2])\2(3[01]|[12]\d|0?[1-9])(?![\d-])", _ymd),
    _rule(r"(\d{1,2})([-/.])(\d{1,2})\2((?:1[0-9]|20)\d{2})(?![\d-])", _numeric_date),
    _rule(r"(\d{1,2})(/)(\d{1,2})/(\d{2})(?![\d/])", _numeric_date),
    _rule(r"(?:\d{1,2}[-. ])?\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}(?:-\d{1,4})?(?![\d-])", _phone),
    _rule(r"\d{1,7}(?:-\d{1,7}){3,7}(?![\d-])|\d{4}(?: \d{4}){2,5}(?!\d)", _phone),  # ISBN, cards
    _rule(r"\d{3}-\d{2}-\d{4}(?![\d-])|\d{3}-\d{4}(?![\d-])", _phone),
    _rule(r"1-8\d\d(?:-[A-Z\d]{1,8}){1,4}(?![A-Za-z\d-])", _phone),
    _rule(rf"(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?(?:\s?({_AMPM}))?{_ZONE}(?![\d:])", _clock),
    _rule(rf"(\d{{1,2}})\.([0-5]\d)()\s?({_AMPM}){_ZONE}", lambda m: _clock(m)),
    _rule(rf"(\d{{1,2}})\s?({_AMPM}){_ZONE}", _hour),
    _rule(rf"(\d{{1,3}}):(\d{{1,3}})(?![\d:])", _scores),
    _rule(rf"(\d{{1,2}})(?:st|nd|rd|th)?(?:\sof)?[\s-]({_MONTHS})(\.)?(?![A-Za-z])(?:,?[\s-]+((?:1\d|20)\d\d)(?!\d|,\d))?", _day_month),
    _rule(r"([12])([HQ])(\d{4}|\d{2})(?![A-Za-z\d])", _half_year),
    _HOUSE_RULE := (_HOUSE, _house),
    _rule(rf"({_N})\s?({_BIG}|[kKmMbB]n?|tn)?\s?([€£¥₩₹元]|(?:USD|GBP|EUR|JPY|CNY|RMB|INR|KRW)(?![A-Za-z]))", _money_after),
    _rule(rf"((?:\d+|\.\d+)(?:\.\d+)?)\s?()¢", lambda m: f"{number(m.group(1))} {'cent' if m.group(1) == '1' else 'cents'}"),
    _rule(r"()(?:(\d{1,4})\s)?(\d+)\s?/\s?(\d+)(?:th|rd|nd|st|TH|RD|ths|rds)?(?![\d/A-Za-z])", _fraction),
    _rule(r"(\d{1,6})\s?([½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚])", _vulgar),
    _rule(r"(\d{1,2})'\s?(?:(\d{1,2})(?:\"|''|″)?)?(?![\w'])", _feet_inches),
    _rule(r"(\d{1,4}(?:\.\d{1,4})?)(?:\"|″)", _inches),
    _rule(rf"(\d+(?:,\d{{3}})*)((?i:st|nd|rd|th)){_END}", _ordinal),
    _rule(r"(\d{4}(?=\ss)|\d{4}(?=['s])|\d0)(?:\s(?<=\d{4}\s)|')?s(?![A-Za-z\d])", _decade),
    _rule(r"()((?:\d{1,5}\.){2,5}\d{1,5})(?![\d.]*\d)", _version),
    _rule(rf"({_N})\s({_BIG})\s({_UNIT_ALT}){_END}", _measure_big),
    _rule(rf"()({_N})\s?({_UNIT_ALT})(?:/({_PER_ALT}))?(?:(?<=[a-z])\.(?=[,;)]|\s[a-z])|{_END})", _measure),
    _rule(r"(\d{1,5}(?:\.\d{1,3})?)\s?([x×])(?=\s?\d)", _dimension),
    _rule(r"(\d{1,5}(?:\.\d{1,3})?)([xX])(?![A-Za-z\d])", _multiple),
    _rule(rf"({_N})\s?(bn|mn|tn)(?![A-Za-z\d])", lambda m: f"{number(m.group(1))} {_MAGNITUDE[m.group(2)]}"),
    _rule(rf"({_N})([kKMBbT])(?![A-Za-z\d])",
          lambda m: f"{number(m.group(1))} {m.group(2)}" if m.group(2) in "MBT" or "." in m.group(1) and m.group(2) == "K" or m.group(1) in ("2", "4", "8") and m.group(2) == "K" or m.group(2) == "b" else f"{number(m.group(1))} thousand"),
    _rule(rf"\d{{1,6}}[{_L}]+[{_L}\d]*", lambda m: _serial(m) if len(m.group()) < 60 else None),
    _rule(rf"()({_N})", _number),
]  # fmt: skip

_AT_SIGN: list[tuple[re.Pattern[str], Say]] = [
    _rule(r"\+\d{1,3}[-. ]?(?:\(\d{1,4}\)[-. ]?)?\d{1,4}(?:[-. ]\d{1,4}){1,4}(?![\d-])|\+\d{7,15}(?!\d)", _phone),
    _rule(r"\(\d{3}\)\s?\d{3}[-. ]\d{4}(?![\d-])", _phone),
    _rule(rf"()({_CUR})\s?({_N})(?:\s?[-–~]\s?({_N})(?!\d))?(?:[\s-]?({_BIG}|(?:k|K|m|M|mn|b|B|bn|t|T|tn))(?![A-Za-z\d]))?(?:/({_PER_ALT})(?![A-Za-z]))?",
          _money),
    _rule(rf"(-)({_N})\s?({_UNIT_ALT})(?:/({_PER_ALT}))?{_END}", lambda m: _measure(m) if _can_be_negative(m) else None),
    _rule(r"(-)()(\d+)/(\d+)(?![\d/])", lambda m: _fraction(m) if _can_be_negative(m) else None),
    _rule(rf"(-)({_N})", lambda m: _number(m) if _can_be_negative(m) else None),
    _rule(rf"()(\.\d+)(?=\s?(?:{_BIG})?)", _number),
    _rule(r"'(\d0)s(?![A-Za-z\d])", _decade),
    _rule(r"#(?=\s?\d)", _number_sign),
    _rule(rf"#([{_L}][{_L}\d_]{{0,80}})", lambda m: _hashtag(m) if not re.search(r"\w$", _before(m, 1)) else None),
    _rule(rf"@([{_L}\d][{_L}\d_]{{0,60}})", lambda m: _handle(m) if not re.search(r"\w$", _before(m, 1)) else None),
    _rule(r"~(?=\s?[\d$£€.])", lambda m: None if re.search(r"\d\s?$", _before(m, 2)) else "about"),
    _rule(r">=", "greater than or equal to"),
    _rule(r"<=", "less than or equal to"),
    _rule(r"!=", "is not equal to"),
    _rule(r"={2,3}|=>|->|<-", lambda m: "equals" if m.group()[0] == "=" and ">" not in m.group() else "to"),
    _rule(r"(?:\^2|²)(?!\d)", "squared"),
    _rule(r"(?:\^3|³)(?!\d)", "cubed"),
]  # fmt: skip


def _can_be_negative(match: re.Match[str]) -> bool:
    return not re.search(r"[\w)%.°\]-]$", _before(match, 1))


_AT_LETTER: list[tuple[re.Pattern[str], Say]] = [
    _rule(rf"(?:https?|ftp|file)://[{_L}\d._~:/?#@!$&'()*+,;=%-]{{1,2000}}(?<![.,;:!?')])", _address),
    _rule(rf"[{_L}\d][{_L}\d._%+-]{{0,63}}@(?:[{_L}\d-]{{1,63}}\.){{1,5}}[{_L}]{{2,24}}(?:/[{_L}\d_/.-]{{0,200}}(?<![.]))?", _address),
    _rule(rf"www\.[{_L}\d._~:/?#@&*+,;=%-]{{1,2000}}(?<![.,;:!?])", _address),
    _rule(rf"[{_L}\d_-]{{1,63}}(?:\.[{_L}\d_-]{{1,63}}){{0,6}}\.(?i:{_FILES})(?![{_L}\d/@]|\.[{_L}\d])",
          lambda m: None if re.search(r"(?:^|\.)\w\.[A-Za-z]$|\.[A-Z]$", m.group()) else _address(m)),
    _rule(rf"(?:[{_L}\d-]{{1,63}}\.){{1,5}}(?:{_TLDS})(?![{_L}\d])(?::\d{{1,5}})?(?:/[{_L}\d._~:/?#@&*+,;=%-]{{0,2000}}(?<![.,;:!?]))?",
          lambda m: _address(m) if m.group().islower() or "/" in m.group() or re.search(r"\.(?:com|org|net)", m.group()) else None),
    _rule(rf"(?:[A-Za-z]:)?(?:\\[{_L}\d_. -]{{1,60}}){{2,12}}", _address),
    _rule(rf"({_ALT(_DAYS)})\.?\s?[-–]\s?({_ALT(_DAYS)})(?![a-z])", _days),
    _rule(r"(Mon|Tue|Tues|Wed|Thu|Thur|Thurs|Fri|Sat|Sun)(\.|(?=,?\s+(?:[A-Z\d]|at\b)))(?![A-Za-z])",
          lambda m: None if m.group(1) in ("Sun", "Sat", "Wed", "Fri", "Mon") and not m.group(2) and not re.match(r",?\s+\d", _after(m)) and not re.match(r",?\s+(?:" + _MONTHS + r")\b", _after(m)) else _DAYS[m.group(1)] + ("." if m.group(2) and re.match(r"\s*$", _after(m)) else "")),
    _rule(r"(Mo|Tu|We|Th|Fr)(?=\s\(?\d)", lambda m: _DAYS_SHORT[m.group(1)]),
    _rule(rf"({_MONTHS})(\.)?[\s-](\d{{1,2}}(?:st|nd|rd|th|ST|ND|RD|TH)?)(?![\d:A-Za-z%]|[.,]\d)(?:,?[\s-]+((?:1\d|20)\d\d)(?!\d|,\d))?", _month_day),
    _rule(rf"({_MONTHS})(\.)?,?\s((?:1\d|20)\d\d)(?!\d|,\d)(?!s)", _month_year),
    _rule(r"(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)(?:\.(?=\s[A-Za-z\d])|(?=\s\d))",
          lambda m: _MONTH[m.group(1).lower()]),
    _rule(rf"(US|C|CA|A|AU|HK|S|NZ|NT|R)(\$)\s?({_N})(?:\s?[-–~]\s?({_N}))?(?:[\s-]?({_BIG}|k|K|m|M|bn|b|B)(?![A-Za-z\d]))?(?:/({_PER_ALT})(?![A-Za-z]))?", _money),
    _rule(rf"()(USD|GBP|EUR|JPY|CNY|RMB|INR|KRW|Rs\.?)\s?({_N})()(?:\s?({_BIG}|k|K|m|M|bn|b|B)(?![A-Za-z\d]))?()", _money),
    _rule(r"(Ph\.\s?D)\.?(?![a-z])", "PhD"),
    _rule(r"(?<=[a-z] )St\.(?=\s[a-z]|[,;]|$)", lambda m: "Street" if re.search(r"\b[A-Z][a-z]+ $", _before(m)) else None),
    _rule(rf"({_ALT(_TITLES)})\.?(?=\s[A-Z][\w.]|\s[A-Z]\.)(?![A-Za-z])", _title),
    _rule(rf"((?i:{_ALT(_STREET)}))(?:\.|(?=[\s,]|$))", _street),
    _rule(rf"({_ALT(_STATES)})(?=,?\s\d{{5}}(?!\d))", _state),
    _rule(r"([NSEW])\.?(?=\s(?:\d+(?:st|nd|rd|th)|[A-Z][a-z]+)\s(?:St|Ave|Rd|Blvd|Dr|Ln|Street|st)\b)",
          lambda m: {"N": "North", "S": "South", "E": "East", "W": "West"}[m.group(1)]),
    _rule(r"(?i:no)\.\s?(?=\d)", "number"),
    _rule(rf"(?i:{_ALT(k for k in _ABBREVIATIONS if k[0].isalpha())})(?![A-Za-z\d])", lambda m: _abbreviation(m)),
    _rule(r"[B-HJ-Z]\.(?=\s?(?:[A-Z]\.\s?){0,3}[A-Z][a-z])|[AI]\.(?=\s?[A-Z]\.)", lambda m: m.group()[0]),  # J. K. Rowling
    _rule(r"(?:[A-Z]\.){2,10}(?![a-z])", lambda m: m.group().replace(".", "") + ("." if re.match(r"\s*$", _after(m)) and len(m.group()) > 6 else "")),
    _rule(rf"({_COUNTED})\s([IVXLC]{{1,7}})(?![\w'’])", _roman_after),
    _rule(rf"({_REGNAL})\s([IVX]{{1,7}})(?![\w'’])", _regnal),
    _rule(r"(?:III|II|IV|VI{1,3}|IX|XI{1,3}|XIV|XVI{0,3}|XIX|XXI{0,3})(?![\w'’-])", _roman_alone),
    _rule(r"(v|V)(\d{1,4}(?:\.\d{1,5}){1,5})(?![A-Za-z\d])", _version),
    _rule(rf"[{_L}]+\d+[{_L}\d]*", lambda m: _serial(m) if len(m.group()) < 60 else None),
    _rule(rf"[{_L}\d]{{1,60}}(?:_[{_L}\d]{{1,60}}){{1,20}}", _snake),
]  # fmt: skip

_WORD = re.compile(rf"[{_L}]+(?:'[{_L}]+)*(?:-(?:[{_L}]+(?:'[{_L}]+)*))*(?:(?<=s)'(?![{_L}]))?")
_QUICK = re.compile(rf"[{_L}]{{2,}}(?=\s[a-z]|[,!?;]\s)")  # a word that no rule can concern, unless listed
_LISTED = {w.split(".")[0].lower() for w in (*_ABBREVIATIONS, *_TITLES, *_STREET, *_DAYS, *_DAYS_SHORT)}
_LISTED |= set(_MONTH) | {
    "ii",
    "iii",
    "iv",
    "vi",
    "vii",
    "viii",
    "ix",
    "xi",
    "xii",
    "xiii",
    "xiv",
    "xv",
    "xvi",
    "xx",
    "xxi",
}
_NUMERIC_END = re.compile(r"(?:[\d%°$£€½¼¾]|[\d%°]\s?[A-Za-z²³/]{1,5}|\d\s?[ap]\.m\.)$")
_MATH_NEAR = re.compile(r"[^\n.!?]{0,40}?(?:[=×÷]|[<>≤≥])")


def _sign(text: str, at: int, previous_end: int, previous_numeric: bool) -> str | None:
    """What a single sign says in its place: None where it is silent."""
    char = text[at]
    before, after = text[max(0, at - 30) : at], text[at + 1 : at + 31]
    left, right = before[-1:], after[:1]
    if char in "-–—~":
        equation = "=" in text[max(0, at - 60) : at + 60]
        if (
            char == "-"
            and equation
            and re.match(r"\s?[\w(√]", after)
            and re.search(r"(?:^|[\w²³)(=,±]\s?)$", before)
        ):
            if left == right == " " or not left.isalnum():
                return "minus"
        numeric_after = re.match(r"\s?(?:[$£€¥]?\.?\d)", after)
        if not numeric_after:
            return None
        if previous_numeric and text[previous_end:at].strip() == "":
            spaced = left == " " and right == " "
            chain = re.search(r"[A-Za-z\d]-[A-Za-z\d.]{1,8}$", before) or re.match(
                r"[A-Za-z\d.]{1,8}-[A-Za-z\d]", after
            )
            if char == "-" and chain and not spaced:
                return None
            if char != "~" and (
                re.search(r"[=+×÷*]\s?[\d.]+\s?$", before) or re.match(r"\s?[\d.]+\s?[=+×÷*]", after)
            ):
                return "minus"
            if re.match(r"\s?[$£€¥]?[\d.,]+[A-Za-z]{0,3}", after):
                return "to"
        return None
    if char == "/":
        if re.search(r"[\w\])]\s?$", before) and re.match(r"\s?[\w(]", after):
            if re.search(r"\b(?:and|either)$", before) and re.match(r"or\b", after):
                return None
            return (
                "over"
                if re.search(r"\b[a-z]\s$|\d\s$|[)]\s?$", before) and "=" in text[max(0, at - 60) : at + 60]
                else "slash"
            )
        return "slash" if re.match(r"\w|[$£€]", after) and not before.strip() else None
    if char == "*":
        return "times" if re.search(r"[\w)]\s?$", before) and re.match(r"\s?[\w(]", after) else None
    if char in "<>":
        ok = re.search(r"[\w)%]\s?$", before) and re.match(r"\s?[-\w(.$]", after)
        ok = ok or (re.match(r"\s?\d", after) and not left.isalnum())
        return ("less than" if char == "<" else "greater than") if ok else None
    if char == "^":
        return _SIGNS[char] if re.search(r"[\w)]\s?$", before) and re.match(r"\s?[-\w(]", after) else None
    if char == "#":
        return "hash" if left.strip() or not right.strip() else None
    if char == "_":
        return None
    return _SIGNS.get(char)


def read(text: str, at: int, previous_end: int, words_only: bool = False) -> list[Piece]:
    """Say what stands at ``text[at]``.

    Args:
        text: without markup.
        at: where a token begins: not a space, not punctuation that only shapes prosody.
        previous_end: where the last thing that was said ended.
        words_only: the sentence is in another language and only this word is English.

    Returns:
        The pieces said, in order, the last of which ends after ``at``; an empty list where there is
        nothing to say: then the one character is silent.
    """
    char = text[at]
    if char.isascii() and char.isdigit():
        rules = _AT_DIGIT
    elif char.isalpha():
        quick = _QUICK.match(text, at)
        if quick and quick.group().lower() not in _LISTED and not quick.group()[0].isupper():
            return [Piece(*quick.span(), quick.group(), "en")]
        rules = _AT_LETTER
    else:
        rules = _AT_SIGN
    if not (words_only and rules is not _AT_LETTER):
        for pattern, say in rules:
            match = pattern.match(text, at)
            if match and match.end() > at:
                said = say(match)
                if said is None:
                    continue
                if isinstance(said, str):
                    end = match.end()
                    while end > at + 1 and text[end - 1].isspace():
                        end -= 1
                    return [Piece(at, end, said, "en")]
                if said:
                    return said
    if char.isalpha():
        word = _WORD.match(text, at)
        if word:
            return [Piece(*word.span(), word.group(), "en")]
        if char not in _SIGNS or text[at - 1 : at].isalpha() or text[at + 1 : at + 2].isalpha():
            return []  # another script; a Greek letter alone has a name
    numeric = bool(_NUMERIC_END.search(text[max(0, previous_end - 12) : previous_end])) and previous_end > 0
    spoken = _sign(text, at, previous_end, numeric)
    return [Piece(at, at + 1, spoken, "en")] if spoken else []
