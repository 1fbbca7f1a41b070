"""Attention with relative positions (Transformer-XL), as the encoders of both flows stack it.

"Conformer" by name of the module that the checkpoints come from; convolution and macaron halves are switched
off in all of them, so a layer is attention and feed-forward, each behind its LayerNorm.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embed(nn.Module):
    """Linear and LayerNorm, scaled by the square root of the width, as the position code wants it."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(input_size, size), nn.LayerNorm(size))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, input_size] -> [batch, time, size]."""
        x = self.out(x)
        return x * x.shape[-1] ** 0.5


def relative_positions(length: int, size: int, like: Tensor) -> Tensor:
    """Sinusoids of the distances length-1 … -(length-1), [2 * length - 1, size], sine at even indices.

    Source: Transformer-XL (arXiv 1901.02860), appendix B, with sine and cosine interleaved.
    """
    distance = torch.arange(length - 1, -length, -1, device=like.device, dtype=torch.float32)
    rate = torch.exp(
        torch.arange(0, size, 2, device=like.device, dtype=torch.float32) * (-math.log(10000) / size)
    )
    angle = distance[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1).to(like.dtype)


class RelativeAttention(nn.Module):
    """Self-attention whose scores also see how far query and key are apart."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(size, size)
        self.linear_k = nn.Linear(size, size)
        self.linear_v = nn.Linear(size, size)
        self.linear_out = nn.Linear(size, size)
        self.linear_pos = nn.Linear(size, size, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, size // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, size // heads))

    def forward(
        self, x: Tensor, positions: Tensor, keep: Tensor | None = None, cache: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: [batch, time, size], the newest ``time`` steps.
            positions: ``relative_positions`` of cached and new steps together.
            keep: [batch, keys] bool, False at keys that are padding; None: there is none.
            cache: keys and values of the steps before, [2, batch, heads, cached, head size].

        Returns:
            [batch, time, size], and the cache with the new steps in it.
        """
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        if cache is not None:
            k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
        new, keys = q.shape[2], k.shape[2]
        p = self.linear_pos(positions).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        by_distance = (q + self.pos_bias_v[:, None]) @ p.transpose(-1, -2)  # [batch, heads, new, 2 keys - 1]
        # Row i stands at keys - new + i; its key j is found at the distance of the two.
        steps = torch.arange(keys, device=x.device)
        index = (keys - 1) - (steps[keys - new :, None] - steps)
        bias = by_distance.gather(-1, index.expand(*by_distance.shape[:2], -1, -1)) * q.shape[-1] ** -0.5
        if keep is not None:
            bias = bias.masked_fill(~keep[:, None, None], float("-inf"))
        y = F.scaled_dot_product_attention(q + self.pos_bias_u[:, None], k, v, attn_mask=bias)
        return self.linear_out(y.transpose(1, 2).flatten(2)), torch.stack((k, v))


class FeedForward(nn.Module):
    """Linear, Swish, linear."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(size, hidden)
        self.w_2 = nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, each added to what went in."""

    def __init__(self, size: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(size, heads)
        self.feed_forward = FeedForward(size, hidden)
        self.norm_mha = nn.LayerNorm(size)
        self.norm_ff = nn.LayerNorm(size)

    def forward(
        self, x: Tensor, positions: Tensor, keep: Tensor | None = None, cache: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``RelativeAttention.forward``."""
        y, kept = self.self_attn(self.norm_mha(x), positions, keep, cache)
        x = x + y
        return x + self.feed_forward(self.norm_ff(x)), kept
