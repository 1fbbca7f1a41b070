"""Written signs that nobody says: Markdown, HTML and SSML tags, LaTeX, emoji, control characters.

``plain`` takes them out and remembers where every character that stays came from, so that whatever
is spoken later can be traced back to the text as written. Every expression here is linear in the
length of the text: what it repeats is bounded or cannot match its own follower.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Part = str | tuple[int, int]  # words to put in, or a span to keep


@dataclass(frozen=True, slots=True)
class Plain:
    """Text without markup.

    Attributes:
        text: what is left to say. A line feed means that a phrase ends there.
        origin: for every character of ``text``, its index in the text as written.
    """

    text: str
    origin: list[int]

    def sub(self, pattern: re.Pattern[str], parts: Callable[[re.Match[str]], Iterable[Part]]) -> Plain:
        """Replace every match by the parts that ``parts`` names, keeping track of the origins."""
        if not pattern.search(self.text):
            return self
        pieces: list[str] = []
        origin: list[int] = []
        at = 0
        for match in pattern.finditer(self.text):
            start, end = match.span()
            pieces.append(self.text[at:start])
            origin += self.origin[at:start]
            for part in parts(match):
                if isinstance(part, str):
                    pieces.append(part)
                    origin += [self.origin[start]] * len(part) if end > start else []
                else:
                    pieces.append(self.text[part[0] : part[1]])
                    origin += self.origin[part[0] : part[1]]
            at = end
        pieces.append(self.text[at:])
        origin += self.origin[at:]
        return Plain("".join(pieces), origin)


def _drop(_: re.Match[str]) -> Iterable[Part]:
    return ()


def _put(words: str) -> Callable[[re.Match[str]], Iterable[Part]]:
    return lambda _: (words,)


def _keep(group: int, before: str = "", after: str = "") -> Callable[[re.Match[str]], Iterable[Part]]:
    return lambda match: (before, match.span(group), after)


# Characters that NFKC would take apart although they are read as they are.
_AS_THEY_ARE = set("²³¹⁰⁴⁵⁶⁷⁸⁹½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞…·°©®™→×÷¥£€µ－～")
_AREA = {
    "㎡": "m²",
    "㎥": "m³",
    "㎢": "km²",
    "㎏": "kg",
    "㎎": "mg",
    "㎝": "cm",
    "㎜": "mm",
    "㎞": "km",
    "℃": "°C",
}
_OTHER = {
    "℉": "°F",
    "№": "No.",
    "－": "-",
    "‐": "-",
    "‑": "-",
    "‒": "-",
    "−": "-",
    "﹣": "-",
    "～": "~",
    "〜": "~",
    "∼": "~",
    "\u2028": "\n",
    "\u2029": "\n",
    "\x85": "\n",
    "\r": "\n",
    "‘": "'",
    "’": "'",
    "ʼ": "'",
    "＇": "'",
    "µ": "μ",
    "〇": "零",
    "●": "\n",
    "•": "\n",
    "▪": "\n",
    "◦": "\n",
}
_SAID_SYMBOLS = set("°©®™→№℃℉")


def _character(char: str) -> str:
    """The plain form of one character: full-width forms narrow, emoji a space, invisible ones nothing."""
    if char < "\x7f":
        return char if char >= " " or char == "\n" else ("\n" if char in "\r\v\f" else " ")
    if char in _AREA:
        return _AREA[char]
    if char in _OTHER:
        return _OTHER[char]
    if char in _AS_THEY_ARE:
        return char
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.digit(char))
    if category in ("Cf", "Cs", "Cn", "Co", "Mn", "Me"):  # invisible, half a character, unassigned
        return ""
    if category == "Cc" or category.startswith("Z"):
        return " "
    narrow = unicodedata.normalize("NFKC", char)
    if narrow.isdigit() and unicodedata.decomposition(char).startswith("<circle>"):
        return f" {narrow} "  # ①② are two numbers
    if narrow != char and not unicodedata.category(narrow[0]).startswith("M"):
        return narrow
    if category == "So" and char not in _SAID_SYMBOLS:
        return " "
    if category == "Sk":  # skin tones of emoji, free accents
        return ""
    return char


_BLOCK = "address|article|blockquote|br|dd|div|dl|dt|figure|footer|h[1-6]|header|hr|li|ol|p|pre|section|table|td|th|tr|ul"
_INLINE = (
    "a|abbr|audio|b|big|body|button|cite|code|del|em|emphasis|font|head|html|i|img|input|ins|kbd|label|mark|math|"
    "phoneme|prosody|q|s|samp|say-as|script|small|span|speak|strong|style|sub|sup|svg|think|u|var|voice|w"
)
_LATEX = {
    "times": "×", "cdot": "×", "div": "÷", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠",
    "neq": "≠", "approx": "≈", "infty": "∞", "to": "→", "rightarrow": "→", "sqrt": "√", "sum": "∑", "int": "∫",
    "pi": "π", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "lambda": "λ", "mu": "μ",
    "sigma": "σ", "phi": "φ", "omega": "ω", "epsilon": "ε", "Delta": "Δ", "Sigma": "Σ", "Omega": "Ω",
    "left": "", "right": "", "text": "", "mathrm": "", "mathbf": "", "textbf": "", "quad": " ", "begin": "",
    "end": "", "circ": "°", "degree": "°", "percent": "%", "ldots": "…", "dots": "…", "cdots": "…",
}  # fmt: skip


def _math(match: re.Match[str]) -> Iterable[Part]:
    """``$x^2$``: without its dollars if it looks like mathematics (and not like two prices)."""
    inside = match.group(1)
    if re.search(r"[\\^_={}+]", inside) or re.fullmatch(r"\s*[A-Za-z]\s*", inside):
        return (match.span(1),)
    return (match.span(),)


# A line feed ends a phrase, but for one that only wraps a line.
_WRAP = re.compile(r"(?<=[^\n])\n(?= ?[a-z])")

_STEPS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], Iterable[Part]]]] = [
    (_WRAP, _put(" ")),
    # code fences, HTML comments, tags (also a known one that was never closed), entities
    (re.compile(r"^ ?(?:```|~~~)[\w+#.-]{0,40} ?$", re.M), _put("\n")),
    (re.compile(r"<!--[^<>]*>?"), _drop),
    (re.compile(r"<((?:https?://|mailto:)[^<>\s]{1,2000})>"), _keep(1)),
    (re.compile(rf"</?(?:{_BLOCK})\b[^<>]*>", re.I), _put("\n")),
    (re.compile(r"</?break\b[^<>]*>", re.I), _put(", ")),
    (re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]*)?/?>", re.I), _drop),
    (re.compile(r"</?[A-Za-z][\w:-]{0,40}(?:[\s=/][^<>]*)?>"), _put(" ")),
    (re.compile(rf"</?(?:{_BLOCK}|{_INLINE})(?:\s[^<>\n]*)?$", re.I | re.M), _drop),
    (re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"), lambda m: _entity(m)),
    # LaTeX, lightly
    (re.compile(r"\\[()\[\]]|\$\$|\\[,;!]"), _put(" ")),
    (re.compile(r"(?<![\w$])\$([^$\n]{1,200})\$(?![\w$])"), _math),
    (re.compile(r"\\[dt]?frac\{([^{}\n]{1,80})\}\{([^{}\n]{1,80})\}"), lambda m: (m.span(1), " / ", m.span(2))),
    (re.compile(r"\\([A-Za-z]{2,20})(?![A-Za-z])\s?"), lambda m: _latex(m)),
    (re.compile(r"([_^])\{([^{}\n]{1,80})\}"), lambda m: (m.span(1) if m.group(1) == "^" else " ", m.span(2))),
    # images, links, references, footnotes
    (re.compile(r"!?\[([^\[\]\n]{0,300})\]\([^()\s]{0,1000}(?:\([^()\s]{0,200}\))?[^()\s]{0,200}(?:\s\"[^\"\n]{0,200}\")?\)"),
     _keep(1)),
    (re.compile(r"\[([^\[\]\n]{1,300})\]\[[^\[\]\n]{0,60}\]"), _keep(1)),
    (re.compile(r"\[\^[\w-]{1,30}\]:?|(?<=[\w.,!?。，！？”\"])\[\d{1,3}(?:\s?[,-]\s?\d{1,3}){0,5}\]"), _drop),
    # what stands at the start of a line
    (re.compile(r"^ ?(?:[-*_=] ?){3,}$", re.M), _put("\n")),
    (re.compile(r"^ ?\|?(?: ?:?-{2,}:? ?\|)+(?: ?:?-{2,}:? ?)?$", re.M), _put("\n")),
    (re.compile(r"^ ?(?:> ?)+", re.M), _drop),
    (re.compile(r"^ ?#{1,6} | #{1,6} ?$", re.M), _put("\n")),
    (re.compile(r"^ ?(?:[-*+–—]|\d{1,3}[.)](?= \[[ xX]\])) (?:\[[ xX]\] )?", re.M), _put("\n")),
    (re.compile(r"^ ?\| ?| ?\| ?$", re.M), _put("\n")),
    (re.compile(r"(?<=\S) ?\|{1,2} ?(?=\S)"), _put(", ")),
    # emphasis, code spans, escapes
    (re.compile(r"\\(?=[*_`~#\[\](){}<>|$&%!.+-])"), _drop),
    (re.compile(r"`+|~~+"), _drop),
    (re.compile(r"(?<![\d\s*)])\*+(?=\s|$|[^\w\s(*])|(?<![\w)])\*+(?=\S)|(?<=[^\W\d])\*+|\*+(?=[^\W\d])|\*\*+"), _drop),
    (re.compile(r"(?<![^\W_])_{1,3}(?=\S)|(?<=\S)_{1,3}(?![^\W_])"), _drop),
    # :smile: and :-)
    (re.compile(r"(?<![\w:]):[a-z][a-z0-9_+-]{1,40}:(?![\w:])"), _put(" ")),
    (re.compile(r"(?<![\w()])(?:[:;]['-]?[()DPpOo|*/\\]|[:;]-[\[\]]|\^_\^|<3)(?![\w/])"), _put(" ")),
]  # fmt: skip


def _entity(match: re.Match[str]) -> Iterable[Part]:
    sign = html.unescape(match.group())
    if sign == match.group():
        return (match.span(),)
    return ("".join(_character(char) for char in sign),)


def _latex(match: re.Match[str]) -> Iterable[Part]:
    name = match.group(1)
    return (_LATEX[name],) if name in _LATEX else (match.span(),)


def plain(text: str) -> Plain:
    """Take the markup out of a text.

    Args:
        text: anything, lone surrogates included.

    Returns:
        What is left to say, with the origin of every character.
    """
    chars: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text):
        form = _character(char)
        if form == " " and chars and chars[-1] == " ":
            continue  # no runs of spaces: what follows may then look for one space only
        if form:
            chars.append(form)
            origin += [index] * len(form)
    result = Plain("".join(chars), origin)
    for pattern, parts in _STEPS:
        result = result.sub(pattern, parts)
    return result
