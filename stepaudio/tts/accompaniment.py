"""What may sound beside a sung or rapped voice: clicks, plucked chords, a beat. Made by us, note by note.

Pure: numpy only. A ``Backing`` is a list of struck sounds on the time line of the song; it is added to the
voice's audio as that comes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from stepaudio.tts.prosody import RATE

MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
"""How well each degree fits a key (Krumhansl & Kessler 1982)."""
_TRIADS = {  # degrees of a scale with their chords: root and whether it is minor
    False: ((0, False), (2, True), (4, True), (5, False), (7, False), (9, True)),
    True: ((0, True), (3, False), (5, True), (7, False), (8, False), (10, False)),
}
LEVEL_DB = {"click": -14.0, "chords": -19.0, "beat": -13.0}
"""Of a struck sound at its loudest, relative to full scale; a voice peaks at about -6."""


@dataclass(frozen=True, slots=True, order=True)
class Strike:
    """A sound that begins at ``time`` (seconds): "click", "accent", "kick", "snare", "hat", or a pitch."""

    time: float
    sound: str
    pitch: float = 0.0
    seconds: float = 0.05


class Backing:
    """Adds struck sounds to audio that comes piece by piece.

    Args:
        strikes: in any order.
        kind: "click", "chords" or "beat": how loud.
        begin_s: time of the first sample.
    """

    def __init__(self, strikes: Iterable[Strike], kind: str, begin_s: float) -> None:
        self._waiting = sorted(strikes)
        heapq.heapify(self._waiting)
        self._sounding: list[tuple[int, np.ndarray]] = []
        self._gain = 10 ** (LEVEL_DB[kind] / 20)
        self._begin_s, self._at = begin_s, 0

    def add_to(self, samples: np.ndarray) -> np.ndarray:
        """The next samples, with what is struck in them; bent where both together are too loud."""
        mixed = samples.astype(np.float32)
        stop = self._at + len(mixed)
        while self._waiting and self._place(self._waiting[0]) < stop:
            strike = heapq.heappop(self._waiting)
            self._sounding.append((self._place(strike), self._gain * struck(strike)))
        for begin, sound in self._sounding:
            first, last = max(begin, self._at), min(begin + len(sound), stop)
            if first < last:
                mixed[first - self._at : last - self._at] += sound[first - begin : last - begin]
        self._sounding = [(b, sound) for b, sound in self._sounding if b + len(sound) > stop]
        self._at = stop
        over = np.abs(mixed) > 0.89
        mixed[over] = np.sign(mixed[over]) * (0.89 + 0.11 * np.tanh((np.abs(mixed[over]) - 0.89) / 0.11))
        return mixed

    def rest(self, longest_s: float = 1.5) -> np.ndarray:
        """What still sounds after the voice has ended."""
        ends = [begin + len(sound) for begin, sound in self._sounding]
        count = min(max((end - self._at for end in ends), default=0), round(longest_s * RATE))
        self._waiting = []
        return self.add_to(np.zeros(count, np.float32)) * np.linspace(1, 0, count, dtype=np.float32)

    def _place(self, strike: Strike) -> int:
        return round((strike.time - self._begin_s) * RATE)


def struck(strike: Strike) -> np.ndarray:
    """The audio of one sound: float32, 1 at its loudest."""
    if strike.sound != "tone":
        return _drum(strike.sound)
    seconds = min(strike.seconds + 0.4, 6.0)
    times = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((strike.pitch - 69) / 12)
    wave = sum(
        np.sin(2 * np.pi * n * hz * times) * np.exp(-times * (1.2 + 1.3 * n)) / n**1.6 for n in (1, 2, 3, 4)
    )
    wave *= np.minimum(1, times / 0.008) * np.clip((seconds - times) / 0.3, 0, 1)
    return (wave / 1.6).astype(np.float32)


@cache
def _drum(name: str) -> np.ndarray:
    noise = np.random.default_rng(len(name))
    if name in ("click", "accent"):
        times = np.arange(round(0.05 * RATE)) / RATE
        hz = 1760.0 if name == "accent" else 1175.0
        wave = np.sin(2 * np.pi * hz * times) * np.exp(-times / 0.012)
    elif name == "kick":
        times = np.arange(round(0.3 * RATE)) / RATE
        wave = np.sin(2 * np.pi * (48 * times + 5.2 * (1 - np.exp(-times / 0.04)) / 1.3)) * np.exp(
            -times / 0.09
        )
    elif name == "snare":
        times = np.arange(round(0.2 * RATE)) / RATE
        rattle = np.diff(noise.standard_normal(len(times) + 1)) * 0.3
        wave = 0.5 * np.sin(2 * np.pi * 190 * times) * np.exp(-times / 0.05) + rattle * np.exp(-times / 0.06)
    elif name == "hat":
        times = np.arange(round(0.06 * RATE)) / RATE
        wave = np.diff(noise.standard_normal(len(times) + 2), 2) * np.exp(-times / 0.015) * 0.12
    else:
        raise ValueError(name)
    return (wave * np.minimum(1, times / 0.001)).astype(np.float32)


def clicks(beats: Iterable[tuple[float, bool]]) -> list[Strike]:
    """A click on every (time, whether a bar begins)."""
    return [Strike(time, "accent" if first else "click") for time, first in beats]


def beat(begin_s: float, bars: int, bpm: float) -> list[Strike]:
    """A drum pattern for rap: kick on 1 and the "and" of 3, snare on 2 and 4, hats between."""
    eighth, found = 30 / bpm, []
    for bar in range(bars):
        for place in range(8):
            time = begin_s + (8 * bar + place) * eighth
            found.append(Strike(time, "hat"))
            if place in (0, 5) or (place == 3 and bar % 2):
                found.append(Strike(time, "kick"))
            if place in (2, 6):
                found.append(Strike(time, "snare"))
    return found


def key_of(notes: Sequence[tuple[float, float]], fifths: int | None = None) -> tuple[int, bool]:
    """The key of a tune: its tonic (0 is C) and whether it is minor, by the profile that fits best.

    Args:
        notes: MIDI number and length of each.
        fifths: the key signature, which leaves two keys to choose from; None: all are possible.
    """
    weights = np.zeros(12)
    for pitch, length in notes:
        weights[round(pitch) % 12] += length
    if notes:
        weights[round(notes[-1][0]) % 12] += 0.3 * max(weights)  # tunes come home
    best, found = -np.inf, (0, False)
    for tonic, minor in itertools.product(range(12), (False, True)):
        major = (tonic + 3) % 12 if minor else tonic
        if fifths is not None and (7 * fifths) % 12 != major:
            continue
        score = float(np.corrcoef(weights, np.roll(MINOR if minor else MAJOR, tonic))[0, 1])
        if weights.any() and score > best:
            best, found = score, (tonic, minor)
    return found


def harmony(
    bars: Sequence[Sequence[tuple[float, float]]], tonic: int, minor: bool
) -> list[tuple[int, bool] | None]:
    """A chord for every bar: the triads of the key that hold most of its notes; home at both ends.

    Args:
        bars: MIDI number and length of the notes of each.

    Returns:
        For each bar the pitch class of a root and whether the triad is minor.
    """
    triads = [((tonic + degree) % 12, soft) for degree, soft in _TRIADS[minor]]
    cost = np.zeros((len(bars), len(triads)))
    for i, bar in enumerate(bars):
        for j, (root, soft) in enumerate(triads):
            inside = {root, (root + (3 if soft else 4)) % 12, (root + 7) % 12}
            total = sum(length for _, length in bar) or 1.0
            cost[i, j] = -sum(length for pitch, length in bar if round(pitch) % 12 in inside) / total
            cost[i, j] += (0.0, 0.15, 0.25, 0.05, 0.03, 0.12)[j]  # the simple ones first
    if len(bars):
        cost[[0, -1], 0] -= 0.4
    change = 0.08 * (1 - np.eye(len(triads)))  # rather stay
    way = np.zeros_like(cost, int)
    for i in range(1, len(bars)):
        total = cost[i - 1][:, None] + change
        way[i] = total.argmin(axis=0)
        cost[i] += total.min(axis=0)
    chosen = [int(cost[-1].argmin())] if len(bars) else []
    for i in range(len(bars) - 1, 0, -1):
        chosen.append(int(way[i, chosen[-1]]))
    return [triads[j] for j in reversed(chosen)]


def chords(found: Sequence[tuple[float, float, tuple[int, bool] | None]]) -> list[Strike]:
    """Plucked triads with a bass: (begin, seconds, chord) of each."""
    strikes = []
    for begin, seconds, chord in found:
        if chord is None:
            continue
        root, minor = chord
        bass = 36 + root % 12 + (0 if root % 12 >= 4 else 12)
        tones = [bass, *sorted(52 + (root + step - 52) % 12 for step in (0, 3 if minor else 4, 7))]
        for place, pitch in enumerate(tones):
            strikes.append(Strike(begin + 0.012 * place, "tone", float(pitch), seconds))
    return strikes
