"""Syllables of Chinese, and tones that the voices have no sign for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Tone(NamedTuple):
    """A tone, and the phonemes that carry it.

    Attributes:
        begin, end: of the carrying phonemes, within those of the syllable or word; ``end`` excluded.
        levels: the contour in Chao's five levels (Chao 1930), evenly spread: (2, 1, 3) falls, then rises.
        length: times as long as the voice would have them.
    """

    begin: int
    end: int
    levels: tuple[int, ...]
    length: float = 1.0

    def moved(self, by: int) -> Tone:
        return self._replace(begin=self.begin + by, end=self.end + by)


@dataclass(frozen=True, slots=True)
class Syllable:
    """One syllable of a dialect.

    Attributes:
        reading: as the dialect is spelt ("hao3", "ngo3", "hou2"); "" for what has none.
        phonemes: in Kokoro's alphabet.
        tone: its contour; None: as the voice says the phonemes.
    """

    reading: str
    phonemes: str
    tone: Tone | None = None
