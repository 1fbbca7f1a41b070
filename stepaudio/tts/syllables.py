"""Syllables: where in a row of phonemes the vowels are that a song or a beat takes hold of.

A syllable is onset, vowel, coda. Between vowels, as many consonants go to the next one as a word may begin
with (the maximal onset principle, Kahn 1976). A stress mark or tone arrow belongs to its vowel: put before
the beat, it would make every syllable 50 ms early.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

VOWELS = frozenset("AIOQWYaeiouyæøœɐɑɒɔəɚɛɜɤɨɪʊʌᵊᵻɯ")
"""Each is a vowel or a whole diphthong (misaki's capitals)."""
TONES = frozenset("→↗↘↓")
STRESS = {"ˈ": 2, "ˌ": 1}
UNVOICED = frozenset("ptkfθsʃʧhʰɕʂʦʨxꭧʔ")
_LIQUIDS = frozenset("lɹwj")
_OBSTRUENTS = frozenset("pbtdkɡɡfθvʃhmn")


@dataclass(frozen=True, slots=True)
class Syllable:
    """A syllable in a row of symbols: the onset ``[begin:peak)``, the vowel with its marks ``[peak:rest)``,
    the coda ``[rest:end)``.

    Attributes:
        word: number of its word.
        stress: 2 main, 1 secondary, 0 none; a Chinese syllable has 1, in the neutral tone 0.
    """

    begin: int
    peak: int
    rest: int
    end: int
    word: int
    stress: int


def syllables(symbols: str, spans: Sequence[tuple[int, int]], languages: Sequence[str]) -> list[Syllable]:
    """The syllables of words in order; a word without a vowel ("hmm") is one, its last consonant the vowel.

    Args:
        symbols: phonemes.
        spans: of every word in them.
        languages: "en" or "zh", of every word.
    """
    found: list[Syllable] = []
    for word, ((begin, end), language) in enumerate(zip(spans, languages, strict=True)):
        if end <= begin:
            continue
        peaks = _peaks(symbols, begin, end, language)
        if not peaks:
            peaks = [(end - 1, end)]
        for number, (peak, rest) in enumerate(peaks):
            stress = max((STRESS.get(mark, 0) for mark in symbols[peak:rest]), default=0)
            if language == "zh":
                last = peaks[number + 1][0] if number + 1 < len(peaks) else end
                stress = int(any(mark in TONES for mark in symbols[peak:last]))
            start = begin if number == 0 else found[-1].end
            found.append(Syllable(start, peak, rest, end, word, stress))
            if number:  # the consonants between this vowel and the one before it are shared out
                before = found[-2]
                cut = before.rest + _coda(symbols[before.rest : peak], language)
                found[-2] = Syllable(before.begin, before.peak, before.rest, cut, before.word, before.stress)
                found[-1] = Syllable(cut, peak, rest, end, word, stress)
    return found


def _peaks(symbols: str, begin: int, end: int, language: str) -> list[tuple[int, int]]:
    """Begin and end of the vowels with their marks. Chinese vowels side by side are one."""
    peaks: list[tuple[int, int]] = []
    at = begin
    while at < end:
        start = at
        while at < end and symbols[at] in STRESS:
            at += 1
        if at == end or symbols[at] not in VOWELS:
            at = max(at, start + 1)
            continue
        at += 1
        if language == "zh":
            while at < end and symbols[at] in VOWELS:
                at += 1
        while at < end and (symbols[at] in TONES or symbols[at] == "ː"):
            at += 1
        peaks.append((start, at))
    return peaks


def _coda(between: str, language: str) -> int:
    """How many of the consonants between two vowels belong to the first one."""
    for count in range(len(between)):
        if _may_begin(between[count:].replace(" ", ""), language):
            return count
    return len(between)


def _may_begin(cluster: str, language: str) -> bool:
    if language == "zh":
        return not cluster.startswith(("n", "ŋ")) or len(cluster) == 1
    if len(cluster) <= 1:
        return cluster != "ŋ"
    if cluster[0] == "s" and len(cluster) <= 3:
        return cluster[1] in "ptkmnlwf" and (len(cluster) == 2 or _may_begin(cluster[1:], language))
    first, second = cluster[0], cluster[1]
    if len(cluster) == 3 and cluster[2] == "j":
        return False
    return (
        len(cluster) == 2
        and first in _OBSTRUENTS
        and second in _LIQUIDS
        and first + second not in ("tl", "dl", "θl", "mɹ", "nɹ", "ml", "nl", "mw", "nw")
    )


def shared_out(count: int, pieces: Sequence[str]) -> list[int]:
    """Which written piece of a word each of its ``count`` spoken syllables belongs to, in order.

    As many of each: one to one. More syllables ("Is-rael" has three): every piece has one, and those of long
    pieces more. Fewer ("lov-edst" has one): pieces go without, and prolong the one before.

    Args:
        pieces: the word as it is split under the notes.
    """
    total = len(pieces)
    if count == total or total == 1:
        return [min(i, total - 1) for i in range(count)]
    sizes = [max(1, len(piece)) for piece in pieces]
    edges = [0, *itertools.accumulate(sizes)]
    middles = [(a + b) / 2 / edges[-1] for a, b in itertools.pairwise(edges)]
    wanted = [(i + 0.5) / count for i in range(count)]
    if count > 16 or total > 16:  # no word: an even share
        return [min(total - 1, i * total // count) for i in range(count)]
    best: tuple[float, list[int]] = (float("inf"), [0] * count)
    if count < total:
        choices = ([0, *rest] for rest in itertools.combinations(range(1, total), count - 1))
    else:
        choices = (
            [sum(cut <= i for cut in cuts) for i in range(count)]
            for cuts in itertools.combinations(range(1, count), total - 1)
        )
    for choice in choices:
        cost = sum(abs(middles[piece] - want) for piece, want in zip(choice, wanted, strict=True))
        best = min(best, (cost, choice))
    return best[1]
