"""What a reference recording says of its speaker: an embedding (CAM++) and the prompt's mel spectrogram.

``mel22k`` makes the spectrogram that the flow is prompted with; ``fbank`` and ``CAMPlus`` the embedding of
192 numbers. Checkpoints ship the network as ``campplus.onnx``; ``SpeakerEncoder`` runs either form.

Formulas: Kaldi's filter banks as torchaudio computes them; librosa's Slaney mel scale; CAM++
(arXiv 2303.00332), names of modules as in 3D-Speaker.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepaudio import checkpoint
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError
from stepaudio.core.resampling import resample_sinc

MEL_RATE = 22050
MEL_FFT, MEL_HOP, MEL_BINS, MEL_TOP_HZ = 1024, 256, 80, 8000
"""The prompt's mel: samples of a window and a hop, bins, and where the highest ends."""
RATE = 16000
"""Of the audio that CAM++ hears, Hz."""
WINDOW, SHIFT, FFT, BINS = 400, 160, 512, 80
"""Of its filter banks: 25 ms and 10 ms in samples, points, bins."""
LOWEST_HZ, PREEMPHASIS = 20, 0.97
MIN_SECONDS = 0.5
"""A shorter reference says too little of a voice to be tried."""


def _too_short(seconds: float) -> AudioError:
    return AudioError(f"a reference of {seconds:.2f} s is too short for a voice: use 3 to 10 s of speech")


@cache
def mel_filters() -> Tensor:
    """[80, 513] of the 22.05 kHz mel: triangles of equal area, evenly spaced on Slaney's scale."""

    def to_hz(
        mel: np.ndarray,
    ) -> np.ndarray:  # linear below 1 kHz = 15 mel, then 27 steps for a factor of 6.4
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))

    top = 15 + math.log(MEL_TOP_HZ / 1000) * 27 / math.log(6.4)
    edges = to_hz(np.linspace(0, top, MEL_BINS + 2))
    bins = np.linspace(0, MEL_RATE / 2, MEL_FFT // 2 + 1)
    widths = np.diff(edges)
    slopes = edges[:, None] - bins
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    weights = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(weights.astype(np.float32))


def mel22k(samples: Tensor) -> Tensor:
    """Audio of 22.05 kHz, [n] -> natural-log mel, [n // 256, 80].

    Raises:
        AudioError: too short for a window to be mirrored at its ends.
    """
    pad = (MEL_FFT - MEL_HOP) // 2
    if len(samples) <= pad:
        raise _too_short(len(samples) / MEL_RATE)
    padded = F.pad(samples[None], (pad, pad), mode="reflect")
    window = torch.hann_window(MEL_FFT, device=samples.device)
    spectrum = torch.stft(padded, MEL_FFT, MEL_HOP, window=window, center=False, return_complex=True)[0]
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    return (mel_filters().to(samples.device) @ magnitude).clamp(min=1e-5).log().T


@cache
def kaldi_filters() -> Tensor:
    """[80, 257]: triangles, straight on the scale 1127 ln(1 + f / 700); 0 at the last bin."""

    def to_mel(hz: np.ndarray | float) -> Any:
        return 1127 * np.log(1 + np.asarray(hz) / 700)

    edges = np.linspace(to_mel(LOWEST_HZ), to_mel(RATE / 2), BINS + 2)[:, None]
    bins = to_mel(np.arange(FFT // 2) * RATE / FFT)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy(np.pad(weights, ((0, 0), (0, 1))).astype(np.float32))


def fbank(samples: Tensor) -> Tensor:
    """Audio of 16 kHz within ±1, [n] -> log filter-bank energies, [frames, 80]. No dither, whole windows.

    Raises:
        AudioError: shorter than one window.
    """
    if len(samples) < WINDOW:
        raise _too_short(len(samples) / RATE)
    frames = samples.unfold(0, WINDOW, SHIFT)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - PREEMPHASIS * torch.cat((frames[:, :1], frames[:, :-1]), 1)
    povey = torch.hann_window(WINDOW, periodic=False, device=samples.device).pow(0.85)
    power = torch.fft.rfft(frames * povey, FFT).abs().square()
    energies = power @ kaldi_filters().to(samples.device).T
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


@dataclass(frozen=True, slots=True)
class CAMPlusConfig:
    """Sizes of CAM++; defaults are those of the public checkpoint.

    Attributes:
        growth: channels that a dense layer adds; bottleneck: times as many within it.
        init: channels at first.
        layers, dilations: of the three dense blocks.
        head: channels of the 2-D head; embedding: size of the result.
    """

    growth: int = 32
    bottleneck: int = 4
    init: int = 128
    layers: tuple[int, ...] = (12, 24, 16)
    dilations: tuple[int, ...] = (1, 2, 2)
    head: int = 32
    embedding: int = 192


SEGMENT = 100
"""Frames (of 20 ms) that a context mean is taken over."""


class _Norm(nn.Module):
    """BatchNorm and ReLU under their checkpoint names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.batchnorm(x))


class _HeadBlock(nn.Module):
    """A residual block in time and frequency; a stride is one of frequency."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class _Head(nn.Module):
    """[batch, bins, time] -> [batch, channels * bins / 8, time]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(_HeadBlock(channels, 2), _HeadBlock(channels, 1))
        self.layer2 = nn.Sequential(_HeadBlock(channels, 2), _HeadBlock(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x[:, None])))
        x = F.relu(self.bn2(self.conv2(self.layer2(self.layer1(x)))))
        return x.flatten(1, 2)


class _ContextGate(nn.Module):
    """Convolution, gated by what its surroundings and the whole recording sound like ("CAM")."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(inputs, inputs // 2, 1)
        self.linear2 = nn.Conv1d(inputs // 2, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        segments = F.avg_pool1d(x, SEGMENT, SEGMENT, ceil_mode=True)  # the last by its real length
        around = segments.repeat_interleave(SEGMENT, -1)[..., : x.shape[-1]]
        context = x.mean(-1, keepdim=True) + around
        return self.linear_local(x) * self.linear2(F.relu(self.linear1(context))).sigmoid()


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, config: CAMPlusConfig, dilation: int) -> None:
        super().__init__()
        middle = config.bottleneck * config.growth
        self.nonlinear1 = _Norm(inputs)
        self.linear1 = nn.Conv1d(inputs, middle, 1, bias=False)
        self.nonlinear2 = _Norm(middle)
        self.cam_layer = _ContextGate(middle, config.growth, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))


class _Linear(nn.Module):
    """Convolution before ("tdnn") or after ("transit") a norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, before: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.nonlinear = _Norm(outputs if before else inputs)
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x)) if self.before else self.linear(self.nonlinear(x))


class _Last(nn.Module):
    """Linear and BatchNorm without weights of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inputs, outputs, 1, bias=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(outputs, affine=False)))

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x[..., None])[..., 0])


class CAMPlus(nn.Module):
    """Features -> speaker embedding. Meant to be used in ``eval`` mode."""

    def __init__(self, config: CAMPlusConfig) -> None:
        super().__init__()
        self.head = _Head(config.head)
        layers: dict[str, nn.Module] = {
            "tdnn": _Linear(config.head * BINS // 8, config.init, kernel=5, stride=2, before=True)
        }
        channels = config.init
        for number, (count, dilation) in enumerate(zip(config.layers, config.dilations, strict=True), 1):
            block = nn.Module()
            for layer in range(count):
                block.add_module(f"tdnnd{layer + 1}", _DenseLayer(channels, config, dilation))
                channels += config.growth
            layers |= {f"block{number}": block, f"transit{number}": _Linear(channels, channels // 2)}
            channels //= 2
        layers |= {"out_nonlinear": _Norm(channels), "dense": _Last(2 * channels, config.embedding)}
        self.xvector = nn.Sequential()
        for name, layer in layers.items():
            self.xvector.add_module(name, layer)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, frames, 80], each recording minus its mean -> [batch, embedding]."""
        x = self.head(features.transpose(1, 2))
        for name, layer in self.xvector.named_children():
            if name.startswith("block"):
                for dense in layer.children():
                    x = torch.cat((x, dense(x)), 1)
            elif name == "dense":
                x = layer(torch.cat((x.mean(-1), x.std(-1)), 1))
            else:
                x = layer(x)
        return x


class SpeakerEncoder:
    """CAM++ from a file: ``campplus.onnx``, or tensors (``.safetensors``, ``.pt``) for a ``CAMPlusConfig``.

    Raises:
        ModelMissing, ConfigError: see ``stepaudio.checkpoint``.
    """

    def __init__(self, path: Path, config: CAMPlusConfig | None = None) -> None:
        self._session: Any = None
        if path.suffix == ".onnx":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(
                checkpoint.present(path).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        else:
            self._network = CAMPlus(config or CAMPlusConfig()).eval()
            checkpoint.load(self._network, checkpoint.read_tensors(path), path)

    @torch.inference_mode()
    def __call__(self, audio: AudioChunk) -> Tensor:
        """A recording at any rate -> [192] float32, not normalised (the flow does that).

        Raises:
            AudioError: shorter than ``MIN_SECONDS``.
        """
        if audio.seconds < MIN_SECONDS:
            raise _too_short(audio.seconds)
        features = fbank(torch.from_numpy(resample_sinc(audio.samples, audio.rate, RATE)))
        features = (features - features.mean(0))[None]
        if self._session is None:
            return self._network(features)[0]
        (embedding,) = self._session.run(None, {self._session.get_inputs()[0].name: features.numpy()})
        return torch.from_numpy(embedding[0])
