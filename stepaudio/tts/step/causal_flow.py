"""The flow of Step-Audio-EditX: codes -> mel at 24 kHz and 50 frames a second, with caches for streams.

A relative-position encoder that sees three codes ahead, doubles the rate, and goes on at it; then a diffusion
transformer (DiT, arXiv 2212.09748) in place of the U-Net, whose convolutions look back only. Schedule,
guidance and attention are those of ``flow.py`` and ``conformer.py``. A chunk attends to all before it and to
itself, so that caches of keys, values and convolution edges make a stream of it.

Codes come as rows of two (``codes.editx_pairs``), 25 rows a second. The vocoder of EditX, the cut of old keys
and the fade between chunks are not here: no profile speaks with it yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepaudio.tts.step.conformer import Embed, Layer, relative_positions
from stepaudio.tts.step.flow import Prompt, Solver

RATE = 2
"""Mel frames of a row of codes."""


@dataclass(frozen=True, slots=True)
class CausalFlowConfig:
    """Sizes. Defaults are those that buffers and sister checkpoints of EditX suggest.

    Attributes:
        vocab: codes, 1024 (none) included; input_size: of a row's embedding, half of it for either code.
        encoder_*: of both halves of the encoder; up_layers: after the doubling.
        look_ahead: rows that the encoder sees ahead.
        depth, heads, head_dim, hidden: of the transformer.
    """

    vocab: int = 5121
    input_size: int = 512
    mel: int = 80
    speaker: int = 192
    encoder_size: int = 512
    encoder_heads: int = 8
    encoder_hidden: int = 2048
    encoder_layers: int = 6
    up_layers: int = 4
    look_ahead: int = 3
    depth: int = 16
    heads: int = 8
    head_dim: int = 64
    hidden: int = 512
    mlp_ratio: float = 4.0
    guidance: float = 0.7
    steps: int = 10


@dataclass(slots=True)
class EncoderState:
    """What the encoder keeps of a stream; empty at its start."""

    ahead: Tensor | None = None  # edge of the look-ahead layer's second convolution
    up: Tensor | None = None  # edge of the doubling's convolution
    layers: dict[int, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class BlockState:
    """What a transformer block keeps at one Euler step."""

    keys: Tensor | None = None
    first: Tensor | None = None
    second: Tensor | None = None


@dataclass(slots=True)
class FlowState:
    """A stream of the flow: caches, and how many frames it has behind it."""

    encoder: EncoderState = field(default_factory=EncoderState)
    blocks: dict[tuple[int, int], BlockState] = field(default_factory=dict)
    frames: int = 0


def _after(x: Tensor, edge: Tensor | None, width: int) -> tuple[Tensor, Tensor]:
    """x [batch, channels, time] with what came before it (zeros at the start), and the next edge."""
    x = F.pad(x, (width, 0)) if edge is None else torch.cat((edge, x), -1)
    return x, x[..., x.shape[-1] - width :]


class PairEmbedding(nn.Module):
    """Two codes a row from one table, side by side."""

    def __init__(self, vocab: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, size // 2)

    def forward(self, codes: Tensor) -> Tensor:
        """[batch, rows, 2] -> [batch, rows, size]."""
        return self.embedding(codes).flatten(2)


class LookAhead(nn.Module):
    """Mixes a few rows from ahead into each."""

    def __init__(self, size: int, rows: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(size, size, rows + 1)
        self.conv2 = nn.Conv1d(size, size, 3)

    def forward(self, x: Tensor, state: EncoderState, last: bool) -> Tensor:
        """[batch, rows, size] -> the same, fewer by those that only lie ahead unless these are the last."""
        rows = self.conv1.kernel_size[0] - 1
        y = F.pad(x.transpose(1, 2), (0, rows if last else 0))
        y, state.ahead = _after(F.leaky_relu(self.conv1(y)), state.ahead, 2)
        y = self.conv2(y).transpose(1, 2)
        return x[:, : y.shape[1]] + y


class Double(nn.Module):
    """Every row twice, smoothed."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(size, size, 2 * RATE + 1)

    def forward(self, x: Tensor, state: EncoderState) -> Tensor:
        y = x.transpose(1, 2).repeat_interleave(RATE, -1)
        y, state.up = _after(y, state.up, 2 * RATE)
        return self.conv(y).transpose(1, 2)


class CausalEncoder(nn.Module):
    """Rows of codes -> frames."""

    def __init__(self, config: CausalFlowConfig) -> None:
        super().__init__()
        size, shape = config.encoder_size, (config.encoder_size, config.encoder_heads, config.encoder_hidden)
        self.embed = Embed(config.input_size, size)
        self.pre_lookahead_layer = LookAhead(size, config.look_ahead)
        self.encoders = nn.ModuleList(Layer(*shape) for _ in range(config.encoder_layers))
        self.up_layer = Double(size)
        self.up_embed = Embed(size, size)
        self.up_encoders = nn.ModuleList(Layer(*shape) for _ in range(config.up_layers))
        self.after_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, state: EncoderState, last: bool = True) -> Tensor:
        """[batch, rows, input_size] -> [batch, 2 * rows, encoder_size]; see ``LookAhead`` for ``last``."""
        x = self.pre_lookahead_layer(self.embed(x), state, last)
        x = self._attend(x, self.encoders, state, 0)
        x = self._attend(self.up_embed(self.up_layer(x, state)), self.up_encoders, state, len(self.encoders))
        return self.after_norm(x)

    @staticmethod
    def _attend(x: Tensor, layers: nn.ModuleList, state: EncoderState, first: int) -> Tensor:
        cached = state.layers[first].shape[-2] if first in state.layers else 0
        positions = relative_positions(cached + x.shape[1], x.shape[2], x)
        for number, layer in enumerate(layers, first):
            x, state.layers[number] = layer(x, positions, None, state.layers.get(number))
        return x


class TimeEmbedder(nn.Module):
    """Cosines and sines of the time -> its embedding."""

    WAVES = 256

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.WAVES, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, t: Tensor) -> Tensor:
        half = self.WAVES // 2
        rate = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10000) / half))
        angle = 1000 * t.float()[:, None] * rate
        weight = next(self.mlp.parameters())
        return self.mlp(torch.cat((angle.cos(), angle.sin()), -1).to(weight.dtype))


class NormedAttention(nn.Module):
    """Attention whose queries and keys are normalised; no positions."""

    def __init__(self, size: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(size, heads * head_dim)
        self.to_k = nn.Linear(size, heads * head_dim)
        self.to_v = nn.Linear(size, heads * head_dim)
        self.q_norm = nn.LayerNorm(head_dim)
        self.k_norm = nn.LayerNorm(head_dim)
        self.proj = nn.Linear(heads * head_dim, size)

    def forward(self, x: Tensor, state: BlockState) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        keys = state.keys = _append(torch.stack((self.k_norm(k), v)), state.keys)
        y = F.scaled_dot_product_attention(self.q_norm(q), keys[0], keys[1])
        return self.proj(y.transpose(1, 2).flatten(2))


def _append(new: Tensor, old: Tensor | None) -> Tensor:
    """Keys and values, the newest first, as the reference sums them up."""
    return new if old is None else torch.cat((new, old), -2)


class Mlp(nn.Module):
    """Linear, GELU in its tanh form, linear."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, hidden)
        self.fc2 = nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class BackwardConvolutions(nn.Module):
    """Two convolutions that look back only. The empty places are transpositions in the checkpoint."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(nn.Identity(), nn.Conv1d(size, size, 3), nn.Identity(), nn.LayerNorm(size)),
            *(nn.Mish(), nn.Identity(), nn.Conv1d(size, size, 3), nn.Identity()),
        )

    def forward(self, x: Tensor, state: BlockState) -> Tensor:
        _, first, _, norm, mish, _, second, _ = self.block
        y, state.first = _after(x.transpose(1, 2), state.first, 2)
        y = mish(norm(first(y).transpose(1, 2)))
        y, state.second = _after(y.transpose(1, 2), state.second, 2)
        return second(y).transpose(1, 2)


class DiTBlock(nn.Module):
    """Attention, convolutions and feed-forward, each shifted, scaled and gated by the time."""

    def __init__(self, config: CausalFlowConfig) -> None:
        super().__init__()
        size = config.hidden
        self.attn = NormedAttention(size, config.heads, config.head_dim)
        self.mlp = Mlp(size, int(size * config.mlp_ratio))
        self.conv = BackwardConvolutions(size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 9 * size))

    def forward(self, x: Tensor, time: Tensor, state: BlockState) -> Tensor:
        parts = self.adaLN_modulation(time).chunk(9, -1)
        shift, scale, gate = parts[:3]
        x = x + gate * self.attn(_modulate(x, shift, scale), state)
        shift, scale, gate = parts[6:]
        x = x + gate * self.conv(_modulate(x, shift, scale), state)
        shift, scale, gate = parts[3:6]
        return x + gate * self.mlp(_modulate(x, shift, scale))


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class FinalLayer(nn.Module):
    """To the mel."""

    def __init__(self, size: int, mel: int) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 2 * size))
        self.linear = nn.Linear(size, mel)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.linear(_modulate(x, *self.adaLN_modulation(time).chunk(2, -1)))


class DiT(nn.Module):
    """Which way x moves at time t."""

    def __init__(self, config: CausalFlowConfig) -> None:
        super().__init__()
        self.t_embedder = TimeEmbedder(config.hidden)
        self.in_proj = nn.Linear(4 * config.mel, config.hidden)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.hidden, config.mel)

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, speaker: Tensor, condition: Tensor, states: list[BlockState]
    ) -> Tensor:
        """As ``flow.Estimator.forward``; states: one a block, changed in place."""
        time = self.t_embedder(t)[:, None]
        x = torch.cat((x, mu, speaker[:, :, None].expand_as(x), condition), 1)
        x = self.in_proj(x.transpose(1, 2))
        for block, state in zip(self.blocks, states, strict=True):
            x = block(x, time, state)
        return self.final_layer(x, time).transpose(1, 2)


class CausalFlow(nn.Module):
    """Rows of codes -> mel, whole or in chunks."""

    def __init__(self, config: CausalFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = PairEmbedding(config.vocab, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker, config.mel)
        self.encoder = CausalEncoder(config)
        self.encoder_proj = nn.Linear(config.encoder_size, config.mel)
        self.decoder = Solver(DiT(config), config.steps, config.guidance)

    def forward(self, codes: Tensor, prompt: Prompt, noise: Tensor) -> Tensor:
        """
        Args:
            codes: [rows, 2].
            prompt: codes [rows, 2], mel [2 * rows, mel].
            noise: [mel, frames of prompt and codes].

        Returns:
            The mel without its prompt, [mel, 2 * rows].
        """
        mel = self.run(FlowState(), torch.cat((prompt.codes, codes)), prompt, noise)
        return mel[:, len(prompt.mel) :]

    def start(self, prompt: Prompt, ahead: Tensor, noise: Tensor) -> FlowState:
        """A stream in the voice of a prompt.

        Args:
            prompt: as in ``forward``.
            ahead: the first ``look_ahead`` rows of codes, which the first chunk brings once more.
            noise: [mel, frames of the prompt].
        """
        state = FlowState()
        self.run(state, torch.cat((prompt.codes, ahead)), prompt, noise, last=False)
        return state

    def run(
        self, state: FlowState, codes: Tensor, prompt: Prompt, noise: Tensor, last: bool = True
    ) -> Tensor:
        """The mel of the next chunk of a stream, [mel, frames].

        Args:
            state: changed in place.
            codes: [rows, 2]; if they are not the last, ``look_ahead`` of them only lie ahead.
            noise: [mel, frames] of what comes out.
        """
        embedded = self.input_embedding(codes[None])
        mu = self.encoder_proj(self.encoder(embedded, state.encoder, last)).transpose(1, 2)
        speaker = self.spk_embed_affine_layer(F.normalize(prompt.speaker[None], dim=-1))
        known = torch.zeros_like(mu)
        if state.frames == 0:
            known[0, :, : len(prompt.mel)] = prompt.mel.T
        steps = range(self.decoder.steps)
        depth = range(self.config.depth)
        states = [[state.blocks.setdefault((s, d), BlockState()) for d in depth] for s in steps]
        state.frames += mu.shape[-1]
        return self.decoder(noise[None], mu, speaker, known, states)[0]

    def conditions(self, codes: Tensor) -> Tensor:
        """What rows [rows, 2] as a whole ask for: [1, mel, frames]."""
        embedded = self.input_embedding(codes[None])
        return self.encoder_proj(self.encoder(embedded, EncoderState())).transpose(1, 2)
