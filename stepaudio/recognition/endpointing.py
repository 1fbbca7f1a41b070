"""End of turn with Smart Turn v3.2 through onnxruntime: has the speaker finished, or only paused?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from stepaudio.core.audio import AudioChunk
from stepaudio.recognition.base import RATE
from stepaudio.recognition.features import log_mel

_SECONDS = 8  # what the model sees; shorter turns stand at its end, after zeros


class SmartTurn:
    """Smart Turn v3.2: a Whisper-tiny encoder with one output, trained on 23 languages.

    Args:
        path: the ``smart-turn-v3.2-cpu.onnx`` file.
        threads: of the one inference at the end of a pause.
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def score(self, audio: AudioChunk) -> float:
        """Probability 0..1 that the turn is complete.

        Args:
            audio: the turn so far at 16 kHz with the pause at its end; the last 8 s are used.

        Raises:
            ValueError: the audio is not at 16 kHz.
        """
        if audio.rate != RATE:
            raise ValueError(f"Smart Turn hears {RATE} Hz, not {audio.rate}")
        heard = audio.samples[-_SECONDS * RATE :].astype(np.float32, copy=False)
        heard = np.pad(heard, (_SECONDS * RATE - len(heard), 0))
        # The model was trained on audio of zero mean and unit variance, the zeros before it counted in.
        heard = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
        # Zeros are now a faint constant, whose bands are rounding noise in float32: 0.1 in a score.
        features = log_mel(heard.astype(np.float64))
        # The output carries the name "logits" and holds probabilities.
        probability = self._session.run(None, {"input_features": features[None]})[0]
        return float(np.asarray(probability).reshape(-1)[0])
