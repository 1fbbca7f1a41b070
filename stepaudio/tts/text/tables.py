"""Tables of what is said for what is written: tab-separated files beside this one.

A row is a kind, what is written, and what is said (one column or several); "#" begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources


def rows(language: str, kind: str) -> list[tuple[str, ...]]:
    """The rows of one kind, without the kind; ``language`` names the file ("english")."""
    text = (resources.files("stepaudio.tts.text") / f"{language}.tsv").read_text("utf-8")
    split = (line.split("\t") for line in text.splitlines() if line and line[0] != "#")
    return [tuple(row[1:]) for row in split if row[0] == kind]


def table(language: str, kind: str) -> dict[str, str]:
    """Written -> said, of the rows of one kind."""
    return {row[0]: row[1] for row in rows(language, kind)}


def words(language: str, kind: str) -> list[str]:
    """What is written in the rows of one kind."""
    return [row[0] for row in rows(language, kind)]


def either(written: Iterable[str]) -> str:
    """A regular expression for any of these, the longest first."""
    return "|".join(re.escape(word) for word in sorted(written, key=len, reverse=True))
