"""Whether a recording is fit to make a voice of: one person's speech, enough of it, and little else.

The measures are of real recordings; what they do not see is an echoing room or a bad microphone, which a
voice made of it will have, too.
"""

from __future__ import annotations

import numpy as np

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError
from stepaudio.recognition.base import RATE, VoiceActivity
from stepaudio.recognition.vad import probabilities, speech_spans

LEAST_S, MOST_S = 10.0, 60.0
"""Seconds of speech that a voice is made of; of more, the first are taken."""
SPEECH_POWER = 0.8
"""Least share of the power that must be within speech."""
TWO_VOICES = 0.72
"""Likeness of the two halves into which windows fall apart, below which two people speak."""
SMALLER_HALF = 0.12
"""Share of the windows that a second voice has at least; fewer are a cough, or one odd word."""
ONE_VOICE = 0.82
"""Likeness of the windows to their mean, on average, below which people take turns so short that most windows
hold both. 132 pieces of one voice, some with noise at 10 dB or in an echoing room, had 0.824 and more. Of two
voices in 24 s, in turns of 2 s, 41 of 42 pairs are refused with it (5 without); in turns of 1 s, or both at
once, only a fifth."""


def speech_of(audio: AudioChunk, vad: VoiceActivity, least_s: float = LEAST_S) -> AudioChunk:
    """The speech of a recording, without what is between.

    Args:
        audio: at 16 kHz.
        vad: hears where speech is.
        least_s: seconds of speech that must be there.

    Raises:
        AudioError: there is too little of it, or too much else; the message says what to record.
    """
    if not len(audio.samples) or np.abs(audio.samples).max() < 1e-4:
        raise AudioError("the recording is silent; check the microphone, and record speech")
    if audio.seconds < least_s:
        raise AudioError(
            f"the recording has {audio.seconds:.1f} s; record {least_s:.0f} to {MOST_S:.0f} s of speech"
        )
    spans = speech_spans(probabilities(vad, audio))
    parts = [audio.samples[span.start : span.end] for span in spans]
    speech = np.concatenate([np.zeros(0, np.float32), *parts])
    power, whole = (float(np.square(part, dtype=np.float64).sum()) for part in (speech, audio.samples))
    if len(speech) < 0.1 * len(audio.samples) or power < SPEECH_POWER * whole:
        raise AudioError(
            f"{round(100 * (1 - power / whole))} % of the sound in the recording is no speech (music, noise, "
            "singing?); record one person who speaks, in a quiet place"
        )
    if len(speech) < least_s * RATE:
        raise AudioError(
            f"the recording has {len(speech) / RATE:.1f} s of speech; record {least_s:.0f} to {MOST_S:.0f} s"
        )
    return AudioChunk(speech[: round(MOST_S * RATE)], RATE)


def check_one_voice(windows: np.ndarray) -> None:
    """Whether one person speaks.

    Args:
        windows: embeddings of windows of a recording, (n, size), as ``SpeakerEncoder.windows`` gives them.

    Raises:
        AudioError: it is more than one.
    """
    likeness, share = halves(windows)
    together = float(np.linalg.norm(windows.mean(axis=0)))  # the mean likeness to the mean: all have length 1
    if (likeness < TWO_VOICES and share >= SMALLER_HALF) or together < ONE_VOICE:
        raise AudioError(
            "more than one voice is heard in the recording, or one that changes much; cut the others out, or "
            "record one person alone, in a quiet place and one manner of speech"
        )


def halves(windows: np.ndarray) -> tuple[float, float]:
    """How windows fall into two groups (2-means on the sphere, from the two most unlike).

    Returns:
        Likeness (cosine) of the groups' means, and the smaller one's share.
    """
    alike = windows @ windows.T
    middles = windows[list(np.unravel_index(alike.argmin(), alike.shape))]
    second = np.zeros(len(windows), bool)
    for _ in range(10):
        second = windows @ middles[1] > windows @ middles[0]
        if second.all() or not second.any():
            return 1.0, 0.0
        middles = np.stack([windows[~second].mean(axis=0), windows[second].mean(axis=0)])
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    share = float(second.mean())
    return float(middles[0] @ middles[1]), min(share, 1 - share)
