"""Rules of reading: patterns in order, each with a function that says what it matched.

Rules are tried in the order in which they were registered, wherever a token may begin, so every
spoken phrase knows its written piece. A pattern may repeat only what is bounded, or what cannot match
its own follower: the work stays linear in the length of the text.
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


Say = Callable[[re.Match[str]], "str | list[Piece] | None"]
"""What a match says: words for all of it, or pieces; None: it is another rule's business."""


class Rules:
    """Rules of one language, by what a token begins with: "digit", "letter" or "sign".

    Args:
        parts: names for parts of patterns: ``<name>`` in a pattern stands for ``parts["name"]``.
    """

    def __init__(self, parts: dict[str, str]) -> None:
        self._parts = parts
        self._rules: dict[str, list[tuple[re.Pattern[str], Say]]] = {"digit": [], "letter": [], "sign": []}

    def compile(self, pattern: str) -> re.Pattern[str]:
        return re.compile(re.sub(r"<(\w+)>", lambda match: self._parts[match.group(1)], pattern))

    def at(self, begins_with: str, *patterns: str) -> Callable[[Say], Say]:
        """Register a function for these patterns."""

        def register(say: Say) -> Say:
            self._rules[begins_with] += [(self.compile(pattern), say) for pattern in patterns]
            return say

        return register

    def always(self, begins_with: str, said: dict[str, str]) -> None:
        """Register patterns that always say the same."""
        for pattern, spoken in said.items():
            self.at(begins_with, pattern)(lambda _match, spoken=spoken: spoken)

    def read(self, kind: str, text: str, at: int, language: str) -> list[Piece]:
        """The pieces that the first rule with something to say makes of ``text[at:]``; none without one."""
        for pattern, say in self._rules[kind]:
            match = pattern.match(text, at)
            said = say(match) if match else None
            if match and isinstance(said, str):
                return [Piece(at, at + len(match.group().rstrip()), said, language)]
            if said:
                return list(said)  # type: ignore[arg-type]
        return []


def kind_of(char: str) -> str:
    """What a token that begins with this character is looked up under."""
    return "digit" if char.isdigit() else "letter" if char.isalpha() else "sign"


def before(match: re.Match[str], size: int = 40) -> str:
    return match.string[max(0, match.start() - size) : match.start()]


def after(match: re.Match[str], size: int = 40) -> str:
    return match.string[match.end() : match.end() + size]
