"""What the engines of voices share: words laid out as phonemes, cut into runs, and timed; pauses.

Kokoro and Hibari read the same alphabet of phonemes (misaki's), give each a length in frames of 25 ms, and
make audio of 24 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from stepaudio.core.clauses import Mark

if TYPE_CHECKING:
    from stepaudio.tts.text import SpokenWord

RATE = 24_000
FRAME = 600
"""Samples in a frame (25 ms)."""
LEAD = 2
"""Frames kept before the first sound. The models make some 14, 350 ms for which people would wait. They need
them to find their voice, so they are left out only where they cost: in the decoder."""

PHRASE_ENDS = ".!?…;:,—"
_NOT_SIGNS = ' "()“”'
SILENT = PHRASE_ENDS + _NOT_SIGNS

_TAILS = dict.fromkeys(".!?…", 10) | dict.fromkeys(",;:—", 3)
"""Frames kept after the last sound, by the sign that follows it. With the next clause's lead, clauses are
0.3 s and 0.15 s apart. The models would make 0.5 s after any sign."""
_TAIL = 2
"""The same where there is no sign."""
_FAINT = -2.0
"""Energy below this is not heard: the audio is under -50 dB there (seven sentences of af_heart). What the
last phoneme is said to last does not tell: it takes in most of the silence after it."""


def layout(phonemes: Sequence[str], vocabulary: dict[str, int]) -> tuple[str, list[tuple[int, int]]]:
    """Words in a row: the symbols that the model knows, and where each word's sounds begin and end in them.

    Signs and spaces after a word are not part of its span; spaces at the very end are left out. A word
    without sounds lies where it stands, at the end on the last symbol.
    """
    kept = ["".join(symbol for symbol in word if symbol in vocabulary) for word in phonemes]
    symbols = "".join(kept).rstrip()
    spans, at = [], 0
    for word in kept:
        begin = max(0, min(at, len(symbols) - 1))
        spans.append((begin, max(begin, min(at + len(word.rstrip(SILENT)), len(symbols)))))
        at += len(word)
    return symbols, spans


def runs(symbols: str, limit: int) -> Iterator[tuple[int, int]]:
    """Cut what is too long for one run: after a sign, or a word, or (if there is neither) anywhere."""
    begin = 0
    while len(symbols) - begin > limit:
        window = symbols[begin : begin + limit]
        cut = max(window.rfind(sign) for sign in PHRASE_ENDS) + 1 or window.rfind(" ") + 1 or limit
        yield begin, begin + cut
        begin += cut
    if begin < len(symbols):
        yield begin, len(symbols)


def word_marks(
    words: Sequence[SpokenWord],
    spans: Sequence[tuple[int, int]],
    run: tuple[int, int],
    bounds: np.ndarray,
    base: int = 0,
) -> list[Mark]:
    """Times of the words that begin in a run.

    Args:
        words: of the whole clause.
        spans: of the words, see ``layout``.
        run: first symbol of the run, and one past its last.
        bounds: (symbols of the run + 1,) frame at which each symbol begins; the last is the end of the last.
        base: frames before the run.
    """
    first, stop = run
    marks = []
    for word, (begin, end) in zip(words, spans, strict=True):
        if first <= begin < stop:
            start_ms, end_ms = ((base + int(bounds[min(i, stop) - first])) * 25 for i in (begin, end))
            marks.append(Mark(word.written, start_ms, end_ms))
    return marks


def whole_frames(lengths: np.ndarray) -> np.ndarray:
    """Lengths in whole frames, at least 1 each, whose running sum follows the exact one without drifting."""
    ends = [0]
    for exact in np.cumsum(lengths):
        ends.append(max(ends[-1] + 1, round(float(exact))))
    return np.diff(ends)


def audible(symbols: str, energy: np.ndarray) -> tuple[int, int]:
    """Begin and end of the frames of a run that are worth hearing.

    Args:
        symbols: of the run; the sign at its end says how long to pause.
        energy: (2 * frames,) what the model says of its loudness.
    """
    heard = np.flatnonzero(energy.reshape(-1, 2).max(axis=1) > _FAINT)
    frames = len(energy) // 2
    first, last = (int(heard[0]), int(heard[-1])) if len(heard) else (0, frames - 1)
    tail = _TAILS.get(symbols.rstrip(_NOT_SIGNS)[-1:], _TAIL)
    return max(0, first - LEAD), min(frames, last + 1 + tail)


def session(path: Path, threads: int) -> Any:
    """An ONNX model on the CPU (an ``InferenceSession``): small in memory, leaves waiting cores to others.

    Typed as Any: its ``run`` is declared to return sparse tensors and maps, too, which no model here does.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Pieces differ in length, and a plan of the memory is kept for every length there was. Without plans, and
    # with the arena to reuse blocks, ten seconds of Kokoro peak at 0.46 GB instead of 1.06, and are quicker.
    options.enable_mem_pattern = False
    # The language model writes at the same time on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
