"""Vowels that are longer than any in speech: drawn short by a network, then held.

A network that was trained on speech has heard no vowel of a second. Asked for one, it may draw noise (Hibari
does of a long ɪ: most of that vowel's sound lies in the stress mark before it). So a vowel, with the marks
that belong to it, is drawn about as long as in speech, and a stretch in its middle is spread over the rest of
the time. A diphthong is held before it glides, as singers do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepaudio.tts.syllables import STRESS, TONES, VOWELS

DRAWN = 1.3
"""Times its length in speech that a vowel is drawn."""
LONG = 2.5
"""Times its length in speech from which on it is held; speech at half its speed stays below."""
FEWEST = 9
"""Frames of the shortest vowel that is held."""
_EARLY = 2.5
"""Half frames that a vowel sounds before its frames (power of Hibari's harmonics, three lines of songs)."""
_DIPHTHONGS = frozenset("AIOQWY")
_HOLD = {True: 0.35, False: 0.5}
"""Where in the drawn sound it is held, of a diphthong and of others."""


def vowels(symbols: str) -> Iterator[tuple[int, int]]:
    """Begin and end of the vowels, with stress marks before and tone arrows and length marks after."""
    at = 0
    while at < len(symbols):
        begin = at
        while at < len(symbols) and symbols[at] in STRESS:
            at += 1
        if at < len(symbols) and symbols[at] in VOWELS:
            at += 1
            while at < len(symbols) and (symbols[at] in TONES or symbols[at] == "ː"):
                at += 1
            yield begin, at
        else:
            at = max(at, begin + 1)


def drawn(symbols: str, lengths: np.ndarray, natural: np.ndarray) -> np.ndarray:
    """The lengths that a network is asked for; ``lengths`` itself where nothing is to be held.

    Args:
        lengths: (n + 2,) frames that there shall be.
        natural: (n + 2,) frames that there would be in speech.
    """
    short = lengths
    for begin, end in vowels(symbols):
        own = slice(begin + 1, end + 1)  # the first is the silence before
        wanted, spoken = int(lengths[own].sum()), float(natural[own].sum())
        if wanted >= FEWEST and wanted > LONG * spoken:
            short = lengths.copy() if short is lengths else short
            short[own] = np.maximum(1, np.round(DRAWN * natural[own]))
    return short


def places(symbols: str, lengths: np.ndarray, short: np.ndarray) -> np.ndarray:
    """Where among the half frames of ``short`` lengths (of ``drawn``) each half frame of ``lengths`` lies.

    Returns:
        (2 * frames,) float, rising; whole numbers but in what is held.
    """
    ends, short_ends = 2 * np.cumsum(lengths), 2 * np.cumsum(short)
    here, there = [0.0], [0.0]
    for first, last in vowels(symbols):
        brief = short_ends[last] - short_ends[first]
        more = ends[last] - ends[first] - brief
        if more:
            held = max(
                short_ends[first] + _HOLD[symbols[last - 1] in _DIPHTHONGS] * brief - _EARLY, there[-1] + 0.5
            )
            begin = here[-1] + held - 0.5 - there[-1]
            here += [begin, begin + more + 1]
            there += [held - 0.5, held + 0.5]
    here.append(float(ends[-1]))
    there.append(float(short_ends[-1]))
    return np.interp(np.arange(ends[-1]) + 0.5, here, there) - 0.5


def spread(curves: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Columns (the last axis) at places between them, linearly."""
    low = np.clip(np.floor(at).astype(int), 0, curves.shape[-1] - 1)
    high = np.minimum(low + 1, curves.shape[-1] - 1)
    share = np.clip(at - low, 0, 1).astype(np.float32)
    return curves[..., low] * (1 - share) + curves[..., high] * share
