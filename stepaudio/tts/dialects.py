"""Dialects: which a voice can be asked for, and how one that learned Mandarin says the tones of another.

The voices have no sign for a tone of 21 or 213, or for Cantonese's six; their pitch can be given, though. A
contour in Chao's five levels is laid over the frames of a syllable's rime, in semitones around the middle of
the voice, and falls a little over the phrase, as speech does. Onsets glide from one rime to the next. All
else of the plan stays as the voice would have it.

It does not know intonation: a question has the tones of its words, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stepaudio.tts.prosody import VOICED_HZ, ProsodyPlan

if TYPE_CHECKING:
    from stepaudio.tts.base import Grade
    from stepaudio.tts.text.tones import Tone

SPAN = 9.0
"""Semitones between the lowest level and the highest. With more, voices of men creak; with less, they follow
the contours less well."""
DECLINATION = 2.0
"""Semitones that a phrase falls from its beginning to its end."""
_SMOOTH = 1.5
"""Standard deviation of the smoothing between syllables, in half frames (19 ms)."""
_GLIDE = 40
"""Half frames (0.5 s): tones farther apart are not joined by a glide, there are other words between them."""
_FAINT = -2.0
"""Energy under which nothing is heard: the last rime of a phrase is said to last until the pause is over."""


_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_WRITTEN = {
    "cmn": ("Chinese", _HAN),
    "yue": ("Chinese", _HAN),
    "en": ("English", re.compile("[A-Za-z\u00c0-\u024f]")),
}
_PLAIN = frozenset({"en", "cmn"})
"""They name a language, which is a hint for numbers and signs; text of another one is read as what it is."""


def objection(
    dialect: str | None, texts: Iterable[str], grades: Mapping[str, Grade], *, experimental: bool = False
) -> str | None:
    """Why texts cannot be spoken in a dialect, and what to do about it; None: they can.

    Args:
        dialect: ``SpeechStyle.dialect``.
        texts: all that is to be spoken in it.
        grades: ``Capabilities.dialects`` of the voices.
        experimental: whether what is hardly understood is allowed.
    """
    if dialect is None or dialect in _PLAIN:
        return None
    if dialect not in grades:
        return f"no voice here speaks {dialect!r}; there are {', '.join(sorted(grades))}"
    if grades[dialect] == "experimental" and not experimental:
        return (
            f"{dialect!r} is experimental, most of its words are not understood yet: allow it with "
            "--experimental (tts.experimental), or leave the dialect out"
        )
    language, letter = _WRITTEN[dialect.partition("-")[0]]
    text = "".join(texts)
    if any(map(str.isalpha, text)) and not letter.search(text):
        return (
            f"{dialect!r} reads {language}, and this text is none: leave the dialect out, or write {language}"
        )
    return None


def draw(plan: ProsodyPlan, tones: Sequence[Tone], *, decline: float = DECLINATION) -> ProsodyPlan:
    """A plan with tones drawn on its pitch.

    Args:
        plan: as the voice would say it.
        tones: of its symbols, in order, without overlap. Words without them keep their melody.
        decline: semitones that the tones fall from the first to the last.
    """
    tones = [tone for tone in tones if tone.end <= len(plan.symbols)]
    voiced = plan.pitch >= VOICED_HZ
    if not tones or not voiced.any():
        return plan
    middle = float(np.median(plan.pitch[voiced]))
    at, drawn = [], []  # half frames, and the semitones there
    own = np.zeros(len(plan.pitch), bool)  # where the tones hold, the glides between them included
    before = None
    for tone, (first, last) in zip(tones, rimes(plan, tones), strict=True):
        places = np.arange(first, last)
        levels = np.interp(places, np.linspace(first, last - 1, len(tone.levels)), tone.levels)
        at.append(places)
        drawn.append((levels - 3) / 4 * SPAN)
        own[first if before is None or first - before > _GLIDE else before : last] = True
        before = last
    steps = np.arange(len(plan.pitch))
    melody = _smooth(np.interp(steps, np.concatenate(at), np.concatenate(drawn)))
    begin, end = int(at[0][0]), int(at[-1][-1])
    melody -= decline * (np.clip((steps - begin) / max(1, end - begin), 0, 1) - 0.5)
    sung = np.zeros(len(plan.pitch), bool)
    for places in at:
        sung[places] = True
    # An onset without voice stays so; a rime has voice, also where the voice itself would creak.
    pitch = np.where(own & (sung | voiced), middle * 2 ** (melody / 12), plan.pitch)
    return plan.edit(pitch=pitch.astype(np.float32))


def rimes(plan: ProsodyPlan, tones: Iterable[Tone]) -> list[tuple[int, int]]:
    """Begin and end of what carries each tone, in half frames, without silence that it is said to last."""
    places = []
    for tone in tones:
        first, last = (2 * int(plan.bounds[i]) for i in (tone.begin, tone.end))
        heard = np.flatnonzero(plan.energy[first:last] > _FAINT)
        places.append((first + int(heard[0]), first + int(heard[-1]) + 1) if len(heard) else (first, last))
    return places


def _smooth(values: np.ndarray) -> np.ndarray:
    reach = np.arange(-6, 7)
    kernel = np.exp(-0.5 * (reach / _SMOOTH) ** 2)
    return np.convolve(np.pad(values, 6, mode="edge"), kernel / kernel.sum(), "valid")
