"""Hibari: the fast voice for English, distilled from Kokoro's af_heart.

A network says, for every 12.5 ms, how loud each frequency of a pulse train and of a noise is, and signal
processing (``hibari.dsp``) makes audio of it. That is some twenty times less work than Kokoro, so a clause is
made whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hibari import dsp

from stepaudio.core.audio import AudioChunk
from stepaudio.core.clauses import Clause
from stepaudio.tts.base import Capabilities, Speech, Voice
from stepaudio.tts.prosody import FRAME, RATE, SILENT, audible, layout, runs, session, word_marks
from stepaudio.tts.voices import HIBARI

if TYPE_CHECKING:
    from stepaudio.tts.text import Pronouncer

RECIPE = "durations-2"
"""Names what ``expose_durations`` makes (for ``ModelStore.derived``); it changes when that does."""

MAX_SYMBOLS = 240
"""Longest run in phonemes (about 16 s)."""
GAIN = 1.46
"""As loud as af_heart: 3.3 dB, the mean over eight sentences of ``bench tts`` (2.6 to 4.0) of the difference
in mean power of the frames above -45 dB."""

MODEL = "hibari.onnx"
_LENGTHS = "/Cast_32_output_0"  # (tokens,): frames of 25 ms
_ENERGY = "/Mul_62_output_0"  # (1, 2 * frames)


class Hibari:
    """Hibari's voice "heart" on the CPU, in one thread. Threads may share it.

    Args:
        model: folder of the model (``vocab.json``).
        derived: folder that ``expose_durations`` filled.
        pronouncer: written text -> words with phonemes.
    """

    rate = RATE
    capabilities = Capabilities(languages=frozenset({"en"}), speed=(0.5, 2.0))

    def __init__(self, model: Path, derived: Path, pronouncer: Pronouncer) -> None:
        self._vocabulary: dict[str, int] = json.loads((model / "vocab.json").read_text("utf-8"))
        self._pronouncer = pronouncer
        self._network = session(derived / MODEL, threads=1)

    def voices(self) -> tuple[Voice, ...]:
        """The one voice."""
        return (HIBARI,)

    def synthesize(self, clause: Clause, voice: Voice) -> Iterator[Speech]:
        """Speak a clause: in one piece, unless it is very long."""
        words = self._pronouncer.pronounce(clause.text, "en", voice.language)
        symbols, spans = layout([word.phonemes for word in words], self._vocabulary)
        if all(symbol in SILENT for symbol in symbols):
            return
        slowest, fastest = self.capabilities.speed
        speed = min(max(clause.style.speed or 1.0, slowest), fastest)
        base = 0  # frames of the runs before this one
        for first, stop in runs(symbols, MAX_SYMBOLS):
            samples, bounds = self._speak(symbols[first:stop], speed)
            marks = word_marks(words, spans, (first, stop), bounds, base)
            yield Speech(AudioChunk(samples, RATE, base * FRAME), tuple(marks))
            base += len(samples) // FRAME

    def _speak(self, symbols: str, speed: float) -> tuple[np.ndarray, np.ndarray]:
        """Audio of a run, and the frame at which each of its symbols begins (and the last one ends)."""
        tokens = np.array([[0, *(self._vocabulary[symbol] for symbol in symbols), 0]])
        lengths, energy, *parts = self._network.run(
            [_LENGTHS, _ENERGY, "lh", "theta", "ln", "lr", "phi", "f0"],
            {"ids": tokens, "speed": np.array([speed], np.float32)},
        )
        bounds = np.cumsum(lengths)[:-1]
        begin, end = audible(symbols, energy[0])
        # Two columns a frame; one frame more at each end, for the synthesis is loud at the very ends.
        low, high = max(0, begin - 1), min(int(lengths.sum()), end + 1)
        lh, theta, ln, lr, phi, f0 = (part[0, ..., 2 * low : 2 * high] for part in parts)
        samples = dsp.synth(lh, theta, ln, lr, phi, f0, np.random.default_rng(0))  # the same noise every time
        samples = samples[(begin - low) * FRAME : (end - low) * FRAME] * np.float32(GAIN)
        return samples, np.clip(bounds, begin, end) - begin


def expose_durations(model: Path, out: Path) -> None:
    """Write the published model with two more outputs: how many frames each phoneme lasts, and the energy.

    Args:
        model: folder with the published model.
        out: folder to write to.
    """
    import onnx

    published = onnx.load(model / MODEL)
    for name, kind, shape in (
        (_LENGTHS, onnx.TensorProto.INT64, ["tokens"]),
        (_ENERGY, onnx.TensorProto.FLOAT, [1, "half_frames"]),
    ):
        published.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    onnx.save(published, out / MODEL)
