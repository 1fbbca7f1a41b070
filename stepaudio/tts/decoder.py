"""Kokoro's decoder in torch, from the weights of the published ONNX model: for gradients, which ONNX lacks.

It is iSTFTNet (Kaneko et al. 2022) as StyleTTS 2 uses it (Li et al. 2023): blocks of half frames, and a
generator that filters a harmonic source, both steered by a style through adaptive instance normalisation.
The weights are the published ones, 8 bits back to floats; what the published model rounds on the way is not
rounded here. On one sentence the audio before the last overlap correlates by 0.99 with the published one's.
The harmonic source has nothing to learn from: it stays ONNX (``write_source``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from stepaudio.tts.graph import Graph
from stepaudio.tts.kokoro import MODEL

RECIPE = "source-1"
"""Names what ``write_source`` makes (for ``ModelStore.derived``); it changes when that does."""

SOURCE = "source.onnx"
PITCH = "/encoder/Reshape_output_0"
HARMONICS = "/decoder/decoder/generator/Concat_3_output_0"
"""(1, 22, 120 * frames + 1): magnitude and phase of the harmonic source, windows 5 samples apart."""
HOP = 5
_DECODER = "/decoder/decoder/"
_HALVES = 11  # bins of the last transform (20 samples)


def write_source(model: Path, out: Path) -> None:
    """Write ``source.onnx``: pitch (1, 2 * frames), Hz -> the harmonic source.

    Args:
        model: folder with the published model.
        out: folder to write to.
    """
    floats = onnx.TensorProto.FLOAT
    Graph(onnx.load(model / MODEL)).write(
        out / SOURCE, {PITCH: (floats, [1, "half_frames"])}, {HARMONICS: (floats, [1, 22, "windows"])}
    )


class _Layer(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor | None
    how: dict[str, Any]  # the convolution's attributes, by torch's names


class Decoder:
    """The decoder. It learns nothing: gradients flow to its inputs.

    Args:
        model: folder with the published model.
    """

    def __init__(self, model: Path) -> None:
        self._layers, self._alphas = _read(onnx.load(model / MODEL))

    def __call__(
        self,
        text: torch.Tensor,
        pitch: torch.Tensor,
        energy: torch.Tensor,
        source: torch.Tensor,
        style: torch.Tensor,
    ) -> torch.Tensor:
        """Audio at 24 kHz, (600 * frames,), of one utterance or a part of one.

        Args:
            text: (1, 512, frames), features spread over frames.
            pitch: (1, 2 * frames), Hz.
            energy: (1, 2 * frames).
            source: (1, 22, 120 * frames + 1).
            style: (1, 128), the timbre half of a style.
        """
        with torch.autocast("cpu", torch.bfloat16, enabled=_has_bfloat16()):
            polar = self._generate(self._blocks(text, pitch, energy, style), source, style)
        polar = polar.float()
        magnitude, phase = torch.exp(polar[:, :_HALVES]), torch.sin(polar[:, _HALVES:])
        bins = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], 1)
        samples = functional.conv_transpose1d(bins, self._layers["generator.istft.stft"].weight, stride=HOP)
        # Half a window at both ends is left over; windows overlap fourfold.
        return 4 * samples[0, 0, 2 * HOP : -2 * HOP]

    def _blocks(
        self, text: torch.Tensor, pitch: torch.Tensor, energy: torch.Tensor, style: torch.Tensor
    ) -> torch.Tensor:
        curves = [self._conv("F0_conv", pitch[:, None]), self._conv("N_conv", energy[:, None])]
        x = self._block("encode", torch.cat([text, *curves], 1), style)
        beside = [self._conv("asr_res.asr_res.0", text), *curves]
        for n in range(4):
            x = self._block(f"decode.{n}", torch.cat([x, *beside], 1), style)
        return x

    def _block(self, name: str, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        twice = f"{name}.pool" in self._layers  # as many frames
        past = functional.interpolate(x, scale_factor=2, mode="nearest") if twice else x
        x = functional.leaky_relu(self._normalised(f"{name}.norm1", x, style), 0.2)
        x = self._spread(f"{name}.pool", x) if twice else x
        x = functional.leaky_relu(
            self._normalised(f"{name}.norm2", self._conv(f"{name}.conv1", x), style), 0.2
        )
        return (self._conv(f"{name}.conv2", x) + self._conv(f"{name}.conv1x1", past)) * 0.5**0.5

    def _generate(self, x: torch.Tensor, source: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        for n in range(2):
            x = self._spread(f"generator.ups.{n}", functional.leaky_relu(x, 0.1))
            x = functional.pad(x, (1, 0), mode="reflect") if n == 1 else x
            heard = self._conv(f"generator.noise_convs.{n}", source)
            x = x + self._residual(f"generator.noise_res.{n}", heard, style)
            parts = [self._residual(f"generator.resblocks.{3 * n + k}", x, style) for k in range(3)]
            x = (parts[0] + parts[1] + parts[2]) / 3
        return self._conv("generator.conv_post", functional.leaky_relu(x))

    def _residual(self, name: str, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        for n in range(3):
            y = x
            for part in ("1", "2"):
                y = self._normalised(f"{name}.adain{part}.{n}", y, style)
                y = self._conv(f"{name}.convs{part}.{n}", _snake(y, self._alphas[f"{name}.alpha{part}.{n}"]))
            x = x + y
        return x

    def _normalised(self, name: str, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        weight, bias, _ = self._layers[f"{name}.fc"]
        assert bias is not None
        scale, offset = (style @ weight + bias)[..., None].chunk(2, 1)
        return torch.addcmul(offset, functional.instance_norm(x), 1 + scale)

    def _conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias, how = self._layers[name]
        return functional.conv1d(x, weight, bias, **how)

    def _spread(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias, how = self._layers[name]
        return functional.conv_transpose1d(x, weight, bias, **how)


class _Snake(torch.autograd.Function):
    """x + sin(ax)^2 / a (Ziyin et al. 2020), in half the memory that torch would keep of it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, a)
        return x + torch.sin(a * x) ** 2 / a

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, a = ctx.saved_tensors
        return gradients[0] * (1 + torch.sin(2 * a * x)), None


def _snake(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    found = _Snake.apply(x, a)
    assert isinstance(found, torch.Tensor)
    return found


def _has_bfloat16() -> bool:
    """Whether this processor has arithmetic of 16 bits; a third faster, the gradient correlates by 0.9996."""
    return torch.backends.mkldnn.is_available() and bool(torch.cpu._is_avx512_bf16_supported())


_HOW = {"strides": "stride", "dilations": "dilation", "pads": "padding", "output_padding": "output_padding"}


def _read(model: onnx.ModelProto) -> tuple[dict[str, _Layer], dict[str, torch.Tensor]]:
    """The layers of the decoder, and the constants of its activations, by their names in the network."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def array(name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(constants[name]), np.float32)

    layers, alphas = {}, {}
    for node in model.graph.node:
        if not node.name.startswith(_DECODER):
            continue
        name = node.name.removeprefix(_DECODER).rpartition("/")[0].replace("/", ".")
        for tensor in node.input:
            if ".alpha" in tensor and tensor in constants:
                alphas[tensor.removeprefix("decoder.decoder.")] = torch.from_numpy(array(tensor).copy())
        if node.op_type not in ("Conv", "ConvTranspose", "ConvInteger", "MatMulInteger"):
            continue
        weight = array(node.input[1])
        if node.op_type.endswith("Integer"):
            scale = array(node.input[1].replace("_quantized", "_scale"))
            weight = (weight - array(node.input[3])) * scale
        short = name.replace("asr_res.asr_res", "asr_res")
        bias = f"decoder.decoder.{short}.bias"
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        how = {_HOW[key]: int(value[0]) for key, value in attributes.items() if key in _HOW}
        if "group" in attributes:
            how["groups"] = int(attributes["group"])
        layers[name] = _Layer(
            torch.from_numpy(weight.copy()),
            torch.from_numpy(array(bias).copy()) if bias in constants else None,
            how,
        )
    return layers, alphas
