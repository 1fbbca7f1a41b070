"""The speaker encoder in torch: how a voice would have to change to be more like another.

The same numbers as ``speakers.SpeakerEncoder`` (their difference is tested), but gradients flow through.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from stepaudio.recognition.base import RATE
from stepaudio.recognition.features import HOP, hann, mel_filters
from stepaudio.recognition.speakers import BANDS, LEVEL, PARTIAL, SIZE, WEIGHTS, WINDOW, read_legacy


class GradientEncoder:
    """Embeddings of voices, with gradients to the audio.

    Args:
        model: folder with the published weights.

    Raises:
        ConfigError: they cannot be read.
    """

    def __init__(self, model: Path) -> None:
        weights = {
            name: torch.from_numpy(np.copy(value)) for name, value in read_legacy(model / WEIGHTS).items()
        }
        self._lstm, self._linear = nn.LSTM(BANDS, SIZE, 3), nn.Linear(SIZE, SIZE)
        for part, prefix in ((self._lstm, "lstm."), (self._linear, "linear.")):
            part.load_state_dict(
                {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            )
            part.requires_grad_(False)
        self._filters = torch.from_numpy(np.asarray(mel_filters(BANDS, WINDOW), np.float32))
        self._hann = torch.from_numpy(np.asarray(hann(WINDOW), np.float32))

    def __call__(self, samples: torch.Tensor, rate: int) -> torch.Tensor:
        """The embedding of one window of 1.6 s: (SIZE,), length 1.

        Args:
            samples: (n,), at least 1.6 s, of which the rest is ignored.
            rate: Hz, of the samples.
        """
        heard = _resampled(samples, rate)
        power = heard.square().mean()
        heard = heard * torch.clamp(10 ** (LEVEL / 20) / power.sqrt(), min=1.0)
        spectrum = torch.stft(
            heard, WINDOW, HOP, window=self._hann, center=True, pad_mode="constant", return_complex=True
        )
        mel = self._filters @ (spectrum.real**2 + spectrum.imag**2)
        _, (hidden, _) = self._lstm(mel[:, :PARTIAL].T[:, None])
        found = torch.relu(self._linear(hidden[-1, 0]))
        return found / found.norm()


def _resampled(samples: torch.Tensor, rate: int) -> torch.Tensor:
    """At 16 kHz, by leaving out what a spectrum has above 8 kHz."""
    if rate == RATE:
        return samples
    length = len(samples) * RATE // rate
    spectrum = torch.fft.rfft(samples)[: length // 2 + 1]
    return torch.fft.irfft(spectrum, n=length) * (length / len(samples))
