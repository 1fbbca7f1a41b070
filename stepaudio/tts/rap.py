"""Rap: words in time with a beat, at the pitch of speech.

A line fills a bar (two, when it is long). Its syllables go onto the sixteenths of the bar: as near as may be
to where speech would put them, stressed ones on beats, none closer to the next than it can be said in.
Dynamic programming finds the best way. The melody is that of speech, flattened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepaudio.core.errors import ScoreError
from stepaudio.tts import holding
from stepaudio.tts.base import ProsodyModel, Voice
from stepaudio.tts.prosody import SILENT, VOICED_HZ, PlannedWord, ProsodyPlan
from stepaudio.tts.singing import LEAD_FRAMES, SECOND, Phrase, Sung, Tone, place, release, symbols_of
from stepaudio.tts.syllables import Syllable, syllables
from stepaudio.tts.text import SpokenWord

BPM = 92.0
BPM_RANGE = (60.0, 140.0)
"""Beats a minute at which words can be told apart; beyond, a bar is too short or too long for a line."""
LEADS_S = {"kokoro": 0.037, "hibari": 0.031}
"""How much earlier than its frames a voice sounds in quick speech (the bias that ``bench voice`` shows)."""
BAR = 16
"""Sixteenths."""
FULL = 13
"""Syllables of a line that fill a bar; more are spread over two."""
REST = 2
"""Sixteenths at the end of a line to breathe in."""
FLATTENED = 0.4
"""How much is left of the melody of speech, in semitones."""
CONSONANT = (1, 3)
"""Shortest and longest consonant, frames."""
_STRESSED = (0.0, 2.0, 6.0)
"""Cost of a stressed syllable on a beat, between two, and on a sixteenth (VOICE: rap)."""
_TOO_CLOSE = 30.0
"""Cost of a sixteenth that a syllable lacks to be said in, squared."""
_LAST_WEAK = 1.5
"""Cost of an unstressed syllable on a beat."""


def check_bpm(bpm: float) -> float:
    """The tempo itself. Raises ``ScoreError`` where no words can be said to it."""
    low, high = BPM_RANGE
    if not low <= bpm <= high:
        raise ScoreError(f"a beat of {bpm:g} a minute cannot be rapped to; take one from {low:g} to {high:g}")
    return bpm


def slots(
    natural: Sequence[float], least: Sequence[float], stresses: Sequence[int], bars: int = 1
) -> list[int]:
    """The sixteenth of every syllable, rising from 0.

    Args:
        natural: where each would begin, in sixteenths.
        least: sixteenths from each that it takes to say it.
        stresses: 2, 1 or 0.
        bars: that there are.

    Returns:
        One slot each.

    Raises:
        ScoreError: there are more syllables than sixteenths.
    """
    count, room = len(natural), BAR * bars
    if count > room:
        raise ScoreError(f"a line has {count} syllables, and its bars hold {room}; break it in two")
    cost = np.full((count, room), np.inf)
    before = np.zeros((count, room), int)
    for i in range(count):
        for slot in range(i, room - (count - 1 - i)):
            own = (slot - natural[i]) ** 2
            metre = 0 if slot % 4 == 0 else 1 if slot % 2 == 0 else 2
            if stresses[i]:
                own += _STRESSED[metre] * stresses[i] / 2
            elif metre == 0:
                own += _LAST_WEAK
            if i == 0:
                cost[0, slot] = own
                continue
            earlier = np.arange(slot)
            lacking = np.maximum(0, least[i - 1] - (slot - earlier))
            ways = cost[i - 1, :slot] + _TOO_CLOSE * lacking**2
            before[i, slot] = int(np.argmin(ways))
            cost[i, slot] = own + ways[before[i, slot]]
    found = [int(np.argmin(cost[-1]))]
    for i in range(count - 1, 0, -1):
        found.append(int(before[i, found[-1]]))
    return found[::-1]


def line(
    model: ProsodyModel, words: Sequence[SpokenWord], voice: Voice, bpm: float, begin_s: float
) -> tuple[Phrase, int]:
    """A line of words on the beat, and the bars that it takes.

    Args:
        begin_s: when its first bar begins.
    """
    symbols, places = symbols_of(words, model.vocabulary)
    found = syllables(symbols, places, [word.language for word in words])
    if not found:
        raise ScoreError("a line of the rap has no words that can be said; write some, or take it away")
    sixteenth = 15 / bpm
    own = np.clip(model.draft(symbols, voice).lengths[1:-1], 1, 5) / SECOND / sixteenth
    starts = np.concatenate([[0.0], np.cumsum(own)])
    peaks = np.array([starts[s.peak] for s in found])
    spoken = starts[len(symbols.rstrip(SILENT))] - peaks[0]
    bars = 1 if len(found) <= FULL and spoken <= BAR + 2 else 2
    if len(found) > BAR * bars:
        bars = -(-len(found) // (BAR - REST))
    room = BAR * bars - REST
    scale = min(1.6, max(0.6, room / max(spoken, 1e-6)))
    natural = (peaks - peaks[0]) * scale
    least = np.diff(np.append(peaks, peaks[-1] + 1)) * 0.8
    chosen = slots(natural.tolist(), least.tolist(), [s.stress for s in found], bars)
    times = [begin_s + slot * sixteenth for slot in chosen]
    last = times[-1] + max(own[found[-1].peak :].sum() * sixteenth, 1.5 * sixteenth)
    ends = [*times[1:], min(last, begin_s + bars * BAR * sixteenth)]
    tones = tuple((Tone(a, b, 0.0),) for a, b in zip(times, ends, strict=True))
    planned = tuple(PlannedWord(word.written, *span) for word, span in zip(words, places, strict=True))
    return Phrase(symbols, planned, tuple(found), tones), bars


def rapped(model: ProsodyModel, phrase: Phrase, voice: Voice) -> Sung:
    """A line as a plan."""
    draft = model.draft(phrase.symbols, voice)
    lengths, zero = place(phrase, draft.lengths, LEADS_S[voice.engine], CONSONANT)
    short = holding.drawn(phrase.symbols, lengths, draft.lengths)
    at = holding.places(phrase.symbols, lengths, short)
    pitch, energy = (holding.spread(contour, at).astype(np.float32) for contour in draft.contours(short))
    voiced = pitch > VOICED_HZ
    if voiced.any():
        median = float(np.median(pitch[voiced]))
        flat = median * (np.maximum(pitch, 1) / median) ** FLATTENED
        pitch = np.where(voiced, flat, pitch).astype(np.float32)
    frames = int(lengths.sum())
    heard = (LEAD_FRAMES - 2, frames - 2)
    nothing = np.zeros(2 * frames, np.float32)
    gain = release(phrase.symbols, lengths) + _accents(phrase.syllables, lengths)
    plan = ProsodyPlan(phrase.symbols, lengths, pitch, energy, gain, nothing, nothing, phrase.words, heard)
    plan.check()
    return Sung(plan, zero + heard[0] / SECOND)


def _accents(found: Sequence[Syllable], lengths: np.ndarray) -> np.ndarray:
    """Loudness of stressed syllables: 2 dB more."""
    ends = 2 * np.cumsum(lengths)
    gain = np.zeros(int(ends[-1]), np.float32)
    for syllable in found:
        if syllable.stress == 2:
            gain[ends[syllable.begin] : ends[syllable.end]] = 2.0
    smooth = np.hanning(7)[1:-1]
    return np.convolve(gain, smooth / smooth.sum(), "same").astype(np.float32)
