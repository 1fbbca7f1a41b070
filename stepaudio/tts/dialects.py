"""Tones drawn onto a plan: how a voice that learned Mandarin says the tones of another dialect.

The voices have no sign for a tone of 21 or 213, or for Cantonese's six; their pitch can be given, though. A
contour in Chao's five levels is laid over the frames of a syllable's rime, in semitones around the middle of
the voice, and falls a little over the phrase, as speech does. Onsets glide from one rime to the next. All
else of the plan stays as the voice would have it.

It does not know intonation: a question has the tones of its words, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepaudio.tts.text.tones import Tone

DECLINATION = 2.0
"""Semitones that a phrase falls from its beginning to its end."""
_SMOOTH = 1.5
"""Standard deviation of the smoothing between syllables, in half frames (19 ms)."""
_VOICED = 40.0
"""Hz; below this the voices do not sound the source."""
_FAINT = -2.0
"""Energy under which nothing is heard: the last rime of a phrase is said to last until the pause is over."""


def span(middle: float) -> float:
    """Semitones between the lowest and the highest level, for a voice whose median pitch is ``middle`` Hz.

    Voices of women carry the 11 that speakers of Sichuanese use; a low voice turns to creak at the bottom of
    them: 7.5.
    """
    return float(np.interp(middle, [130.0, 200.0], [7.5, 11.0]))


def contour(
    pitch: np.ndarray,
    energy: np.ndarray,
    bounds: np.ndarray,
    tones: Sequence[Tone],
    *,
    width: float | None = None,
    decline: float = DECLINATION,
) -> np.ndarray:
    """A pitch contour with tones drawn on it.

    Args:
        pitch: (2 * frames,) Hz at 12.5 ms, as the voice would have it; under 40: unvoiced.
        energy: (2 * frames,) the same of its loudness.
        bounds: (symbols + 1,) frame at which each symbol begins; the last is the end of the last.
        tones: of the symbols that they name, in order, without overlap.

    Returns:
        (2 * frames,) float32 Hz. Where there are no tones within half a second, it is the given one.
    """
    voiced = pitch > _VOICED
    if not tones or not voiced.any():
        return pitch
    middle = float(np.median(pitch[voiced]))
    width = span(middle) if width is None else width
    at, semitones = [], []  # half frames, and what is drawn there
    covered = np.zeros(len(pitch), bool)
    for tone in tones:
        first, last = 2 * int(bounds[tone.begin]), 2 * int(bounds[tone.end])
        heard = np.flatnonzero(energy[first:last] > _FAINT)
        if len(heard):
            first, last = first + int(heard[0]), first + int(heard[-1]) + 1
        places = np.arange(first, last)
        levels = np.interp(places, np.linspace(first, max(first, last - 1), len(tone.levels)), tone.levels)
        at += list(places)
        semitones += list((levels - 3) / 4 * width)
        covered[first:last] = True
    everywhere = np.arange(len(pitch))
    drawn = np.interp(everywhere, at, semitones)
    drawn = _smooth(drawn)
    begin, end = at[0], at[-1] + 1
    drawn -= decline * (np.clip((everywhere - begin) / max(1, end - begin), 0, 1) - 0.5)
    result = middle * 2 ** (drawn / 12)
    return np.where(covered | voiced, result, pitch).astype(np.float32)


def _smooth(values: np.ndarray) -> np.ndarray:
    reach = np.arange(-6, 7)
    kernel = np.exp(-0.5 * (reach / _SMOOTH) ** 2)
    return np.convolve(np.pad(values, 6, mode="edge"), kernel / kernel.sum(), "valid")
