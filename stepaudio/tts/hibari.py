"""Hibari: the fast voice for English, distilled from Kokoro's af_heart.

A network says, for every 12.5 ms, how loud each frequency of a pulse train and of a noise is, and signal
processing (``hibari.dsp``) makes audio of it. That is some twenty times less work than Kokoro, so a run is
made whole. ``split`` cuts the network into three: phonemes to lengths, lengths to pitch and energy, those to
the spectra.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hibari import dsp

from stepaudio.core.clauses import Clause
from stepaudio.core.tags import SPEEDS
from stepaudio.tts import holding, modes, performance
from stepaudio.tts.base import Capabilities, Speech, Voice
from stepaudio.tts.graph import Graph, session
from stepaudio.tts.prosody import FRAME, RATE, VOICED_HZ, ProsodyPlan
from stepaudio.tts.voices import DIALECTS, HIBARI, LANGUAGES

if TYPE_CHECKING:
    from stepaudio.tts.text import Pronouncer

RECIPE = "split-2"
"""Names what ``split`` makes (for ``ModelStore.derived``); it changes when that does."""

MAX_SYMBOLS = 240
"""Longest run in phonemes (about 16 s)."""
GAIN = 1.46
"""As loud as af_heart: 3.3 dB, the mean over eight sentences of ``bench tts`` (2.6 to 4.0) of the difference
in mean power of the frames above -45 dB."""

FIRMER = 0.2
"""Energy that a lowered voice is drawn with more, for each semitone: else it turns rough. DNSMOS falls by
0.27 at -5 and 0.17 at -3 without it, by 0.22 and 0.16 with it, by 0.30 and 0.20 with twice as much (the six
sentences of ``bench voice --only pitch``)."""

MODEL = "hibari.onnx"
# Names inside the published graph, with shapes.
_SOUNDS = "/Transpose_22_output_0"  # (1, 128, tokens): for the spectra
_MELODY = "/Transpose_55_output_0"  # (1, 192, tokens): for pitch and energy
_EXACT = "/Div_40_output_0"  # (1, tokens): frames of 25 ms, not rounded
_LENGTHS = "/Cast_32_output_0"  # (tokens,): frames, whole
_PITCH = "f0"  # (1, 2 * frames), Hz
_ENERGY = "/Mul_62_output_0"  # (1, 2 * frames)
_SPECTRA = ("lh", "theta", "ln", "lr", "phi")  # (1, 601, 2 * frames) each


class Hibari:
    """Hibari's voice "heart" on the CPU, in one thread. Threads may share it.

    Args:
        model: folder of the model (``vocab.json``).
        derived: folder that ``split`` filled.
        pronouncer: written text -> words with phonemes.
    """

    rate = RATE
    capabilities = Capabilities(languages=LANGUAGES["hibari"], speed=SPEEDS, dialects=DIALECTS["hibari"])
    limit = MAX_SYMBOLS

    def __init__(self, model: Path, derived: Path, pronouncer: Pronouncer) -> None:
        self.vocabulary: dict[str, int] = json.loads((model / "vocab.json").read_text("utf-8"))
        self._pronouncer = pronouncer
        self._text = session(derived / "text.onnx", threads=1)
        self._prosody = session(derived / "prosody.onnx", threads=1)
        self._spectra = session(derived / "spectra.onnx", threads=1)

    def voices(self) -> tuple[Voice, ...]:
        """The one voice."""
        return (HIBARI,)

    def synthesize(self, clause: Clause, voice: Voice) -> Iterator[Speech]:
        """Speak a clause: in one piece, unless it is very long."""
        return performance.perform(self, self.plan(clause, voice), voice)

    def plan(self, clause: Clause, voice: Voice) -> Iterator[ProsodyPlan]:
        """How a clause would be spoken."""
        words = self._pronouncer.pronounce(clause.text, "en", voice.language)
        lowered = max(0.0, -(clause.style.pitch or 0.0))
        for planned in performance.plan(self, words, clause, voice):
            if lowered and clause.style.mode not in modes.MODES:  # a key is no lowered voice
                more = np.where(planned.pitch > VOICED_HZ, FIRMER * lowered, 0).astype(np.float32)
                yield planned.edit(energy=planned.energy + more)
            else:
                yield planned

    def draft(self, symbols: str, voice: Voice) -> _Draft:
        """See ``ProsodyModel``."""
        tokens = np.array([[0, *(self.vocabulary[symbol] for symbol in symbols), 0]])
        sounds, melody, exact = self._text.run(
            [_SOUNDS, _MELODY, _EXACT], {"ids": tokens, "speed": np.ones(1, np.float32)}
        )
        return _Draft(self._prosody, exact.reshape(-1), sounds, melody)

    def render(self, plan: ProsodyPlan, voice: Voice, *, soon: bool = True) -> Iterator[np.ndarray]:
        """See ``ProsodyModel``."""
        draft = self.draft(plan.symbols, voice)
        lengths, pitch, energy = (
            holding.drawn(plan.symbols, plan.lengths, draft.lengths),
            plan.pitch,
            plan.energy,
        )
        if lengths is not plan.lengths:  # a song: its vowels are drawn as in speech, and held below
            at = holding.places(plan.symbols, plan.lengths, lengths)
            back = np.interp(np.arange(2 * lengths.sum()), at, np.arange(len(at)))
            pitch, energy = holding.spread(pitch, np.round(back)), holding.spread(energy, back)
        spectra = self._spectra.run(
            list(_SPECTRA),
            {
                _SOUNDS: draft.sounds,
                _LENGTHS: lengths,
                _PITCH: pitch[None],
                _ENERGY: energy[None],
            },
        )
        if lengths is not plan.lengths:
            spectra = [holding.spread(part, at) for part in spectra]
            # The same phases again and again would hum at the rate of the columns.
            still = np.gradient(at) < 0.9
            phases = np.random.default_rng(1).uniform(-np.pi, np.pi, (len(spectra[-1][0]), still.sum()))
            spectra[-1][0][:, still] = phases
        begin, end = plan.heard
        # Two columns a frame; one frame more at each end, for the synthesis is loud at the very ends.
        low, high = max(0, begin - 1), min(plan.frames, end + 1)
        lh, theta, ln, lr, phi = (part[0, :, 2 * low : 2 * high] for part in spectra)
        pitch = plan.pitch[2 * low : 2 * high]
        samples = dsp.synth(lh, theta, ln, lr, phi, pitch, np.random.default_rng(0))  # always the same noise
        yield samples[(begin - low) * FRAME : (end - low) * FRAME] * np.float32(GAIN)


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """See ``base.Draft``.

    Attributes:
        prosody: the network that draws pitch and energy.
        sounds: (1, 128, symbols + 2) float32.
        melody: (1, 192, symbols + 2) float32.
    """

    prosody: Any
    lengths: np.ndarray
    sounds: np.ndarray
    melody: np.ndarray

    def contours(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pitch, energy = self.prosody.run(
            [_PITCH, _ENERGY], {_SOUNDS: self.sounds, _MELODY: self.melody, _LENGTHS: lengths}
        )
        return pitch[0], energy[0]


def split(model: Path, out: Path) -> None:
    """Write ``text.onnx``, ``prosody.onnx`` and ``spectra.onnx``.

    Args:
        model: folder with the published model.
        out: folder to write to.
    """
    import onnx

    graph = Graph(onnx.load(model / MODEL))
    floats, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    sounds = {_SOUNDS: (floats, [1, 128, "tokens"])}
    melody = {_MELODY: (floats, [1, 192, "tokens"])}
    lengths = {_LENGTHS: (whole, ["tokens"])}
    contours = {_PITCH: (floats, [1, "half_frames"]), _ENERGY: (floats, [1, "half_frames"])}
    graph.write(
        out / "text.onnx",
        {"ids": (whole, [1, "tokens"]), "speed": (floats, [1])},
        {**sounds, **melody, _EXACT: (floats, None)},
    )
    graph.write(out / "prosody.onnx", {**sounds, **melody, **lengths}, contours)
    graph.write(
        out / "spectra.onnx",
        {**sounds, **lengths, **contours},
        {name: (floats, [1, 601, "half_frames"]) for name in _SPECTRA},
    )
