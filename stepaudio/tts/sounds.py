"""Sounds between words that are no words: a breath, a sigh. Air through a mouth is noise with formants.

Laughter is not among them: what can be made of a voice that was trained on reading aloud is no laughter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from stepaudio.tts.prosody import FRAME, RATE

FRAMES = {"breath": 14, "sigh": 34}
"""How long each is, in frames of 25 ms."""
_LEVELS_DB = {"breath": -40.0, "sigh": -36.0}  # at its loudest, RMS
_FORMANTS = {  # Hz at its beginning and its end, bandwidth in Hz, how strong; in a sigh the mouth closes
    "breath": ((900, 1000, 400, 0.6), (1700, 1900, 500, 1.0), (3200, 3300, 900, 0.5)),
    "sigh": ((1000, 600, 350, 1.0), (1600, 1200, 400, 0.8), (2900, 2600, 800, 0.3)),
}
_PEAK = {"breath": 0.7, "sigh": 0.25}  # where it is loudest: air is drawn in faster and faster, and let go


class Sounds:
    """Adds sounds to audio as it comes.

    Args:
        places: the frames at which they begin, counted from the first sample, and their names.
    """

    def __init__(self, places: Sequence[tuple[int, str]]) -> None:
        self._places = [(frame * FRAME, sound(name)) for frame, name in places]
        self._at = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take audio; the same, with the sounds in it."""
        out = samples.copy()
        for begin, made in self._places:
            first, stop = max(begin, self._at), min(begin + len(made), self._at + len(samples))
            if first < stop:
                out[first - self._at : stop - self._at] += made[first - begin : stop - begin]
        self._at += len(samples)
        return out

    def flush(self) -> np.ndarray:
        """Nothing: no sample is held back."""
        return np.zeros(0, np.float32)


@cache
def sound(name: str) -> np.ndarray:
    """float32 at 24 kHz, always the same; raises KeyError for a name not in ``FRAMES``."""
    size, hop = 2 * FRAME, FRAME
    count = FRAMES[name] + 1
    noise = np.random.default_rng(len(name)).standard_normal((count, size))
    hz = np.fft.rfftfreq(size, 1 / RATE)
    window = np.sqrt(np.hanning(size + 1)[:-1])
    made = np.zeros((count + 1) * hop)
    for i in range(count):
        place = i / (count - 1)
        shape = sum(
            strength / (1 + ((hz - (begin + (end - begin) * place)) / width) ** 2)
            for begin, end, width, strength in _FORMANTS[name]
        )
        peak = _PEAK[name]
        swell = np.sin(np.pi / 2 * (place / peak if place < peak else (1 - place) / (1 - peak))) ** 2
        frame = np.fft.irfft(np.fft.rfft(noise[i] * window) * shape * swell)
        made[i * hop : i * hop + size] += frame * window
    made = made[hop : hop + FRAMES[name] * FRAME]
    loudest = np.sqrt(np.convolve(made**2, np.ones(hop) / hop, "same").max())
    return (made * 10 ** (_LEVELS_DB[name] / 20) / loudest).astype(np.float32)
