"""vLLM's CPU attention, with the root of the distance for layers that ask for it (square-root ALiBi).

Other layers go the way they went. Keys and values lie in vLLM's pages; here they are read page by page into
one piece a request, and PyTorch attends. Written for vLLM 0.32, whose CPU pages are
(pages, groups, tokens a page, key and value side by side).
"""

# pyright: reportMissingImports=false
# vLLM is in an environment of its own.
from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

BLOCK = 2**25
"""Numbers of one block of biases (heads * queries * keys): 128 MB in float32."""


class SqrtAlibiBackend(CPUAttentionBackend):
    """``CPU_ATTN`` that also takes ``use_alibi_sqrt``."""

    @classmethod
    def supports_alibi_sqrt(cls) -> bool:
        """Asked by vLLM's attention layer."""
        return True

    @staticmethod
    def get_impl_cls() -> type[SqrtAlibiAttention]:
        """See ``CPUAttentionBackend``."""
        return SqrtAlibiAttention

    @staticmethod
    def get_builder_cls() -> type[AnySizeBuilder]:
        """See ``CPUAttentionBackend``."""
        return AnySizeBuilder


class AnySizeBuilder(CPUAttentionMetadataBuilder):
    """Also plans for heads of sizes that vLLM's own kernel has no form for, such as those of toy networks.

    It plans that kernel's work, which is not used here, and fails where the kernel would.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        sizes = CPUAttentionBackend.get_supported_head_sizes()
        if self.head_dim not in sizes:
            self.head_dim = sizes[0]


class SqrtAlibiAttention(CPUAttentionBackendImpl):
    """One layer's attention.

    Args:
        use_alibi_sqrt: subtract ``slope * sqrt(distance)``; otherwise this is vLLM's own.
        more: see ``CPUAttentionBackendImpl``.
    """

    def __init__(self, *arguments: Any, use_alibi_sqrt: bool = False, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.use_alibi_sqrt = use_alibi_sqrt

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Put new keys and values, (tokens, groups, size) each, into their slots; -1 is none."""
        if not self.use_alibi_sqrt:
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
            return
        page = kv_cache.shape[2]
        slots = slot_mapping[: len(key)].long()
        real = slots >= 0
        slots = slots[real]
        pairs = torch.cat([key[: len(real)][real], value[: len(real)][real]], -1)
        kv_cache[slots // page, :, slots % page] = pairs.to(kv_cache.dtype)

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Attend, request by request; query and output are (tokens, heads, size)."""
        if not self.use_alibi_sqrt or attn_metadata is None:
            return super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
        assert self.alibi_slopes is not None
        starts = attn_metadata.query_start_loc.tolist()
        lengths = attn_metadata.seq_lens.tolist()
        page, slopes = kv_cache.shape[2], self.alibi_slopes[:, None, None]
        for number, (begin, end) in enumerate(itertools.pairwise(starts)):
            if begin == end:
                continue
            keys = lengths[number]
            pages = attn_metadata.block_table[number, : -(-keys // page)].long()
            pairs = kv_cache[pages].transpose(0, 1).flatten(1, 2)[None, :, :keys]
            past = keys - (end - begin)
            step = max(1, BLOCK // (self.num_heads * keys))
            for first in range(begin, end, step):
                last = min(first + step, end)
                places = torch.arange(past + first - begin, past + last - begin)[:, None]
                distance = places - torch.arange(keys)
                root = distance.clamp(min=0).float().sqrt().masked_fill(distance < 0, float("inf"))
                # A group's heads as more queries of it: keys and values need not be repeated.
                bias = (-slopes * root).to(query.dtype).view(1, self.num_kv_heads, -1, keys)
                asked = query[first:last].transpose(0, 1).reshape(1, self.num_kv_heads, -1, self.head_size)
                found = F.scaled_dot_product_attention(
                    asked,
                    pairs[..., : self.head_size].to(query.dtype),
                    pairs[..., self.head_size :].to(query.dtype),
                    attn_mask=bias,
                    scale=self.scale,
                )
                found = found.view(self.num_heads, last - first, self.head_size)
                output[first:last] = found.transpose(0, 1)
        return output
