"""HiFT: mel spectrogram -> waveform.

A pitch is predicted from the mel; a sine at the pitch and its harmonics, or noise where nothing is voiced, is
the *source*; convolutions shape its short-time spectrum by the mel, and an inverse STFT of 16 points makes
samples of it. Names of modules are those of the public ``hift.pt``, whose weight-normalised convolutions
``fold_weight_norm`` makes plain ones. Formulas: HiFTNet (arXiv 2309.09493), iSTFTNet (2203.02395), the
source of NSF (1904.12088).

Everything here but the source's phase sees a few frames around it (``context``): that is what lets
``decoder.py`` cut the mel into pieces. Random phases and noise are arguments, so that equal arguments make
equal audio.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class HiFTConfig:
    """Sizes of the vocoder. Defaults are those of Step-Audio-TTS-3B.

    Attributes:
        mel: bins; base: channels before the first upsampling; pitch: channels of the pitch predictor.
        harmonics: above the fundamental.
        sine, noise: amplitudes of the source; voiced_hz: what is above counts as voiced.
        upsample_rates, upsample_kernels: the transposed convolutions.
        fft, hop: of the STFT.
        kernels, dilations: of the residual blocks; source_kernels, source_dilations: of the source's.
        slope: of the leaky ReLUs between; limit: of the samples.
    """

    mel: int = 80
    sample_rate: int = 22050
    base: int = 512
    pitch: int = 512
    harmonics: int = 8
    sine: float = 0.1
    noise: float = 0.003
    voiced_hz: float = 10
    upsample_rates: tuple[int, ...] = (8, 8)
    upsample_kernels: tuple[int, ...] = (16, 16)
    fft: int = 16
    hop: int = 4
    kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_kernels: tuple[int, ...] = (7, 11)
    source_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5))
    slope: float = 0.1
    limit: float = 0.99

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any]) -> HiFTConfig:
        """From the section ``hift`` of a ``cosyvoice.yaml``; what is not there keeps its default.

        Raises:
            ConfigError: a value that does not fit.
        """
        istft, pitch = section.get("istft_params", {}), section.get("f0_predictor", section)
        values = {own: section[theirs] for own, theirs in _NAMES.items() if theirs in section}
        values |= {
            own: istft[theirs]
            for own, theirs in {"fft": "n_fft", "hop": "hop_len"}.items()
            if theirs in istft
        }
        if "cond_channels" in pitch:
            values["pitch"] = pitch["cond_channels"]
        return cls(**{own: _tuple(value) for own, value in values.items()})

    @property
    def frame(self) -> int:
        """Samples of a mel frame."""
        return self.hop * math.prod(self.upsample_rates)


_NAMES = {
    "mel": "in_channels",
    "sample_rate": "sampling_rate",
    "base": "base_channels",
    "harmonics": "nb_harmonics",
    "sine": "nsf_alpha",
    "noise": "nsf_sigma",
    "voiced_hz": "nsf_voiced_threshold",
    "upsample_rates": "upsample_rates",
    "upsample_kernels": "upsample_kernel_sizes",
    "kernels": "resblock_kernel_sizes",
    "dilations": "resblock_dilation_sizes",
    "source_kernels": "source_resblock_kernel_sizes",
    "source_dilations": "source_resblock_dilation_sizes",
    "slope": "lrelu_slope",
    "limit": "audio_limit",
}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list | tuple) else value


MAX_MAGNITUDE = 100.0
"""Louder bins are clipped before the inverse STFT, as in the reference."""
PITCH_LAYERS = 5


class PitchPredictor(nn.Module):
    """Mel -> F0. The empty places in ``condnet`` are activations."""

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        widths = [config.mel, *[config.pitch] * PITCH_LAYERS]
        layers = [
            (nn.Conv1d(inputs, outputs, 3, padding=1), nn.ELU())
            for inputs, outputs in itertools.pairwise(widths)
        ]
        self.condnet = nn.Sequential(*itertools.chain(*layers))
        self.classifier = nn.Linear(config.pitch, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """[batch, mel, frames] -> [batch, frames] in Hz, never negative."""
        return self.classifier(self.condnet(mel).transpose(1, 2)).squeeze(-1).abs()


class Snake(nn.Module):
    """x + sin²(alpha x) / alpha (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        return x + torch.sin(alpha * x).square() / (alpha + 1e-9)


class ResBlock(nn.Module):
    """Pairs of convolutions, the first of each dilated, added to what went in."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Module:
            return nn.Conv1d(
                channels, channels, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2
            )

        self.convs1 = nn.ModuleList(convolution(d) for d in dilations)
        self.convs2 = nn.ModuleList(convolution(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for first, dilated, second, plain in layers:
            x = x + plain(second(dilated(first(x))))
        return x


class HarmonicMixer(nn.Module):
    """The sines' weights, under their checkpoint name."""

    def __init__(self, sines: int) -> None:
        super().__init__()
        self.l_linear = nn.Linear(sines, 1)


class HiFT(nn.Module):
    """Mel -> waveform."""

    window: Tensor

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.config = config
        rates, stages = config.upsample_rates, len(config.upsample_rates)
        widths = [config.base // 2**i for i in range(stages + 1)]
        self.f0_predictor = PitchPredictor(config)
        self.m_source = HarmonicMixer(config.harmonics + 1)
        self.conv_pre = nn.Conv1d(config.mel, config.base, 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(inputs, outputs, kernel, stride=rate, padding=(kernel - rate) // 2)
            for (inputs, outputs), rate, kernel in zip(
                itertools.pairwise(widths), rates, config.upsample_kernels, strict=True
            )
        )
        # The source has the rate of the last stage; each stage wants it at its own.
        factors = [math.prod(rates[i + 1 :]) for i in range(stages)]
        bins = config.fft + 2
        self.source_downs = nn.ModuleList(
            nn.Conv1d(bins, width, 2 * factor if factor > 1 else 1, stride=factor, padding=factor // 2)
            for width, factor in zip(widths[1:], factors, strict=True)
        )
        self.source_resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width, kernel, dilations in zip(
                widths[1:], config.source_kernels, config.source_dilations, strict=True
            )
        )
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(config.kernels, config.dilations, strict=True)
        )
        self.conv_post = nn.Conv1d(widths[-1], bins, 7, padding=3)
        self.register_buffer("window", torch.hann_window(config.fft), persistent=False)

    @property
    def context(self) -> int:
        """Mel frames to either side that a sample depends on; phase apart."""
        config = self.config

        def reach(kernel: int, dilations: tuple[int, ...]) -> int:
            return sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations)

        blocks = max(reach(*block) for block in zip(config.kernels, config.dilations, strict=True))
        sources = [reach(*s) for s in zip(config.source_kernels, config.source_dilations, strict=True)]
        step = config.hop / config.frame  # frames that a step of the last stage lasts
        after = (config.fft / config.hop + 3) * step  # inverse STFT and conv_post: reach of what follows
        source = 0.0
        for stage in reversed(range(len(sources))):
            after += blocks * step
            source = max(source, after + (sources[stage] + 2) * step)  # 2: source_downs and the STFT
            step *= config.upsample_rates[stage]
            after += config.upsample_kernels[stage] / config.upsample_rates[stage] / 2 * step
        direct = after + 3  # conv_pre
        return math.ceil(max(direct, source + PITCH_LAYERS))

    def source(self, f0: Tensor, phase: Tensor, noise: Tensor, cycles: Tensor | float = 0.0) -> Tensor:
        """The sound of the vocal folds.

        Args:
            f0: [batch, frames], Hz.
            phase: [batch, harmonics + 1, 1], radians at the start; that of the fundamental counts as 0.
            noise: [batch, harmonics + 1, samples], standard normal.
            cycles: [batch, 1, 1]; what the fundamental has gone through before, where this is not the start.

        Returns:
            [batch, 1, samples].
        """
        config = self.config
        f0 = f0.float().repeat_interleave(config.frame, -1)[:, None]
        multiples = torch.arange(1, config.harmonics + 2, device=f0.device)[:, None]
        turns = (f0 * multiples / config.sample_rate).cumsum(-1) + multiples * cycles
        phase = torch.cat((torch.zeros_like(phase[:, :1]), phase[:, 1:]), 1)
        voiced = (f0 > config.voiced_hz).float()
        amplitude = voiced * config.noise + (1 - voiced) * config.sine / 3
        sines = (
            config.sine * torch.sin(2 * torch.pi * (turns % 1).float() + phase) * voiced + amplitude * noise
        )
        linear = self.m_source.l_linear
        return torch.tanh(linear(sines.transpose(1, 2).to(linear.weight.dtype))).transpose(1, 2)

    def stft(self, source: Tensor) -> Tensor:
        """[batch, 1, samples] -> real and imaginary parts one after another, [batch, fft + 2, steps]."""
        config = self.config
        spectrum = torch.stft(
            source.squeeze(1), config.fft, config.hop, window=self.window, return_complex=True
        )
        return torch.cat((spectrum.real, spectrum.imag), 1)

    def spectrum(self, mel: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitude and phase of the voice, [batch, fft / 2 + 1, steps] each."""
        config = self.config
        stft = self.stft(source)
        x = self.conv_pre(mel)
        kernels = len(config.kernels)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, config.slope))
            if stage == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")  # a centred STFT has one step more than x
            x = x + self.source_resblocks[stage](self.source_downs[stage](stft))
            blocks = self.resblocks[stage * kernels : (stage + 1) * kernels]
            x = torch.stack([block(x) for block in cast(nn.ModuleList, blocks)]).sum(0) / kernels
        x = self.conv_post(F.leaky_relu(x))
        bins = config.fft // 2 + 1
        return x[:, :bins].exp(), x[:, bins:].sin()

    def invert(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """Inverse STFT, [batch, samples]; not yet limited."""
        config = self.config
        spectrum = torch.polar(magnitude.clamp(max=MAX_MAGNITUDE), phase)
        return torch.istft(spectrum, config.fft, config.hop, window=self.window)

    def forward(
        self, mel: Tensor, phase: Tensor, noise: Tensor, cycles: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            mel: [batch, mel, frames].
            phase, noise, cycles: see ``source``.

        Returns:
            Samples [batch, frame * frames] within ±limit, and the pitch [batch, frames] in Hz.
        """
        f0 = self.f0_predictor(mel)
        magnitude, angle = self.spectrum(mel, self.source(f0, phase, noise, cycles))
        return self.invert(magnitude, angle).clamp(-self.config.limit, self.config.limit), f0


class HiFTStream:
    """A mel in pieces -> the waveform of the whole, to rounding, as long as enough lies ahead of each piece.

    Args:
        hift: the network.
        seed: of the source's phases and noise.
    """

    def __init__(self, hift: HiFT, seed: int) -> None:
        config = hift.config
        self._hift = hift
        self._past = torch.empty(0)
        self._at = 0  # frames that came out so far
        self._cycles = 0.0  # of the fundamental, so far
        self._noise = FrameNoise((config.harmonics + 1) * config.frame, seed)
        phases = torch.rand(1, config.harmonics + 1, 1, generator=torch.Generator().manual_seed(seed))
        self._phase = (2 * phases - 1) * torch.pi

    def push(self, mel: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        """The next frames.

        Args:
            mel: [mel, n], n > 0.
            ahead: [mel, m]: what will come after, as far as is known; with m >= ``HiFT.context`` the result
                is that of the whole. Nothing at the end.

        Returns:
            Samples of the n frames, and of those ahead as they look from here.
        """
        hift, config = self._hift, self._hift.config
        past = self._past.to(mel) if len(self._past) else mel[:, :0]
        window = torch.cat((past, mel, ahead), 1)[None]
        kept, n = past.shape[1], mel.shape[1]
        noise = self._noise.frames(self._at - kept, self._at - kept + window.shape[-1])
        noise = noise.unflatten(1, (config.harmonics + 1, config.frame)).permute(1, 0, 2).flatten(1)[None]
        f0 = hift.f0_predictor(window)
        cycles = f0[0].double() * config.frame / config.sample_rate  # of each frame
        # The pitch at the very edge of the window lacks context: the phase is right from here on, not there.
        start = torch.full((1, 1, 1), self._cycles - float(cycles[:kept].sum()), device=mel.device)
        source = hift.source(f0, self._phase.to(mel.device), noise.to(mel.device), start)
        samples = hift.invert(*hift.spectrum(window, source))[0].clamp(-config.limit, config.limit)
        self._cycles = (self._cycles + float(cycles[kept : kept + n].sum())) % 1
        self._at += n
        self._past = window[0, :, : kept + n][:, -hift.context :]
        samples = samples[kept * config.frame :]
        return samples[: n * config.frame], samples[n * config.frame :]


class FrameNoise:
    """Normal noise that belongs to the frames of a stream, the same however the stream is cut up.

    Args:
        width: numbers for a frame.
        seed: of the generator, which is one of the CPU, so that every device gets the same.
    """

    BLOCK = 16  # frames drawn at a time, whatever is asked for

    def __init__(self, width: int, seed: int) -> None:
        self._width = width
        self._random = torch.Generator().manual_seed(seed)
        self._kept = torch.empty(0, width)
        self._first = 0  # frame of the first row

    def frames(self, first: int, last: int) -> Tensor:
        """[last - first, width]; frames before ``first`` are forgotten."""
        blocks = [self._kept]
        drawn = self._first + len(self._kept)
        for _ in range(drawn, last, self.BLOCK):
            blocks.append(torch.randn(self.BLOCK, self._width, generator=self._random))
        self._kept, self._first = torch.cat(blocks)[first - self._first :], first
        return self._kept[: last - first]


_NEWER = "parametrizations.weight.original"
_NORMALISED = (("weight_g", "weight_v"), (_NEWER + "0", _NEWER + "1"))


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight-normalised pairs as one weight each, g v / |v|, to the bit as training computes it.

    Half of a pair is left alone: strict loading then names it.
    """
    folded = dict(tensors)
    for magnitude, direction in _NORMALISED:
        for name in [n for n in folded if n.endswith("." + magnitude)]:
            prefix = name[: -len(magnitude)]
            if prefix + direction not in folded:
                continue
            g, v = folded.pop(name).float(), folded.pop(prefix + direction).float()
            folded[prefix + "weight"] = torch._weight_norm(v, g, 0)  # pyright: ignore[reportPrivateImportUsage]
    return folded
