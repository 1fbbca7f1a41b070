"""Step-1 as a Hugging Face model: ``generate()``, caches and batches as with any other.

A decoder of the Llama kind (RMS norms before, SwiGLU, grouped attention, no biases) without rotary positions:
of a key that is ``d`` tokens back, ``slope * sqrt(d)`` is subtracted, with one slope for each head (ALiBi,
Press et al. 2022, under a root). Facts: the published ``modeling_step1.py`` and vLLM's ``step1.py``. Unlike
the published code this one takes batches with padding, and needs no memory that grows with the square of the
length: queries go in blocks.

After ``register()`` Hugging Face's Auto classes know it. ``load()`` reads a checkpoint strictly.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from stepaudio import checkpoint
from stepaudio.core.errors import ConfigError
from stepaudio.llm.step1 import folder as folders
from stepaudio.llm.step1.configuration import Step1Config

BLOCK = 2**25
"""Numbers of one block of biases (heads * queries * keys): 128 MB in float32."""

_CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What the outputs of the installed transformers call the cache; it was renamed within version 5."""


def slopes(heads: int) -> Tensor:
    """ALiBi's slope of each head, float32 (heads,).

    Powers of 2^(-8/n), n the largest power of two that is not more than ``heads``; for the heads beyond, the
    odd powers of 2^(-4/n), which lie between.
    """
    n = 2 ** int(math.log2(heads))
    first = [2 ** (-8 * k / n) for k in range(1, n + 1)]
    between = [2 ** (-4 * k / n) for k in range(1, 2 * (heads - n), 2)]
    return torch.tensor(first + between, dtype=torch.float32)


class Bias:
    """What distance costs, for the queries of one forward pass; the same in all layers.

    Args:
        heads: of queries.
        past: tokens in the cache.
        queries: tokens that are new.
        mask: (batch, past + queries), 0 where padding stands; None: there is none. Padding may stand
            anywhere: distances count what is not padding.
        like: gives type and device.
    """

    def __init__(self, heads: int, past: int, queries: int, mask: Tensor | None, like: Tensor) -> None:
        self._slopes = slopes(heads).to(like.device)[:, None, None]
        self._past, self._queries = past, queries
        self._mask, self._like = mask, like
        self._whole: Tensor | None = None

    def rows(self, begin: int, end: int, keys: int) -> Tensor:
        """Biases (batch or 1, heads, end - begin, keys) of some queries; -inf where a key is not seen."""
        if begin == 0 and end == self._queries:  # all layers share it
            if self._whole is None:
                self._whole = self._compute(begin, end, keys)
            return self._whole
        return self._compute(begin, end, keys)

    def _compute(self, begin: int, end: int, keys: int) -> Tensor:
        device = self._like.device
        key = torch.arange(keys, device=device)
        query = torch.arange(self._past + begin, self._past + end, device=device)[:, None]
        seen = (key <= query)[None]
        distance = (query - key)[None]
        if self._mask is not None:
            real = F.pad(self._mask.bool(), (0, keys - self._mask.shape[1]))  # a static cache is longer
            seen = seen & (real[:, None] | (key == query))  # padding sees itself, or it would see nothing
            places = real.cumsum(-1)
            distance = places[:, query[:, 0], None] - places[:, None]
        root = distance.clamp(min=0).float().sqrt().masked_fill(~seen, float("inf"))
        return (-self._slopes * root[:, None]).to(self._like.dtype)


class Step1Attention(nn.Module):
    """Attention with as many heads as ``num_attention_heads``, of which each group shares keys and values."""

    def __init__(self, config: Step1Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.groups = config.num_attention_heads, config.num_attention_groups
        self.head_size = config.hidden_size // self.heads
        shared = self.groups * self.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, shared, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, shared, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, bias: Bias, cache: Any) -> Tensor:
        """(batch, length, hidden) -> the same."""
        batch, length, _ = x.shape
        query = self.q_proj(x).view(batch, length, self.heads, self.head_size).transpose(1, 2)
        key = self.k_proj(x).view(batch, length, self.groups, self.head_size).transpose(1, 2)
        value = self.v_proj(x).view(batch, length, self.groups, self.head_size).transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        keys = key.shape[2]
        block = max(1, BLOCK // (batch * self.heads * keys))
        parts = []
        for begin in range(0, length, block):
            end = min(begin + block, length)
            # A group's heads as more queries of it: keys and values need not be repeated.
            rows = bias.rows(begin, end, keys)
            rows = rows.reshape(rows.shape[0], self.groups, -1, keys)
            asked = query[:, :, begin:end].reshape(batch, self.groups, -1, self.head_size)
            found = F.scaled_dot_product_attention(asked, key, value, attn_mask=rows)
            parts.append(found.view(batch, self.heads, end - begin, self.head_size))
        return self.o_proj(torch.cat(parts, 2).transpose(1, 2).reshape(batch, length, -1))


class Step1MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, hidden) -> the same."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Step1RMSNorm(nn.Module):
    """x over the root of its mean square, which is taken in float32."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(…, size) -> the same."""
        wide = x.float()
        return self.weight * (wide * (wide.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()).to(
            x.dtype
        )


class Step1Layer(nn.Module):
    """Attention, then the MLP; each adds to what comes in."""

    def __init__(self, config: Step1Config, layer: int) -> None:
        super().__init__()
        self.self_attn = Step1Attention(config, layer)
        self.mlp = Step1MLP(config)
        self.input_layernorm = Step1RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Step1RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, bias: Bias, cache: Any) -> Tensor:
        """(batch, length, hidden) -> the same."""
        x = x + self.self_attn(self.input_layernorm(x), bias, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Step1PreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = Step1Config
    base_model_prefix = "model"
    _no_split_modules: ClassVar[list[str]] = ["Step1Layer"]
    _supports_sdpa = False  # of Hugging Face's own; it has a form of its own

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, Step1RMSNorm):
            nn.init.ones_(module.weight)


class Step1Model(Step1PreTrainedModel):
    """Token ids to hidden states."""

    def __init__(self, config: Step1Config) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Step1Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = Step1RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """See ``PreTrainedModel``."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """See ``PreTrainedModel``."""
        self.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (batch, length, hidden) after the last norm.

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, cached + length), 0 where padding stands.
            cache: keys and values so far; ``past_key_values`` is its older name.
            inputs_embeds: (batch, length, hidden), in place of ``input_ids``.
            use_cache: give back a cache, a new one if need be.
            output_hidden_states: also what each layer takes, and what the last norm gives.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, and not both")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache()
        past = 0 if cache is None else int(cache.get_seq_length())
        if attention_mask is not None and attention_mask.shape != (x.shape[0], past + x.shape[1]):
            raise ValueError(
                f"attention_mask is {tuple(attention_mask.shape)} and should be (batch, all tokens): "
                f"{(x.shape[0], past + x.shape[1])}"
            )
        padded = attention_mask is not None and not bool(attention_mask.all())
        heads = self.config.num_attention_heads
        bias = Bias(heads, past, x.shape[1], attention_mask if padded else None, x)
        states = []
        for layer in self.layers:
            states.append(x)
            x = layer(x, bias, cache)
        x = self.norm(x)
        return BaseModelOutputWithPast(
            last_hidden_state=x,  # pyright: ignore[reportArgumentType]
            hidden_states=(*states, x) if output_hidden_states else None,
            **{_CACHE: cache},
        )


class Step1ForCausalLM(Step1PreTrainedModel, GenerationMixin):
    """Token ids to logits."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: Step1Config) -> None:
        super().__init__(config)
        self.model = Step1Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
        **more: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, length, vocabulary); see ``Step1Model.forward``.

        Args:
            labels: (batch, length), for a loss; -100 does not count.
            logits_to_keep: only of so many last tokens; 0: of all.
        """
        found = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
        logits = self.lm_head(found.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **more)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=found.hidden_states, **{_CACHE: found.get(_CACHE)}
        )

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **_: Any) -> Tensor | None:
        """The mask as it is, with static caches, too: ``Bias`` makes of it what is needed."""
        return attention_mask


def register() -> None:
    """Tell Hugging Face's Auto classes about Step-1, so that no code of a checkpoint need be trusted."""
    AutoConfig.register(Step1Config.model_type, Step1Config, exist_ok=True)
    AutoModelForCausalLM.register(Step1Config, Step1ForCausalLM, exist_ok=True)


def load(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Step1ForCausalLM:
    """The network of a checkpoint folder, ready for inference.

    On the CPU, in the type that is stored, its weights are the files' own pages: a model that is larger than
    memory loads, and reads from disk while it runs.

    Args:
        path: holds ``config.json`` and ``*.safetensors``, see ``folder.look``.
        device: where the weights go.
        dtype: of weights and computation; None: as ``config.json`` says.

    Raises:
        ModelMissing: a file is missing, or a Git LFS pointer lies in its place.
        ConfigError: a file is damaged, or the folder is of another model; a tensor is missing, surplus or
            misshapen; or there is no such device.
    """
    found = folders.look(path)
    settings = {k: v for k, v in found.config.items() if k not in ("auto_map", "architectures")}
    config = Step1Config(**{**settings, "tie_word_embeddings": found.tied})
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.bfloat16
    tensors = {name: t for file in found.files for name, t in checkpoint.read_tensors(file).items()}
    if found.tied:
        tensors[folders.HEAD] = tensors[folders.EMBEDDING]
    with torch.device("meta"):
        network = Step1ForCausalLM(config)
        nn.Module.to(network, dtype or stored)
    checkpoint.load(network, tensors, path)
    if found.tied:
        network.tie_weights()
    try:
        nn.Module.to(network, device)
    except (RuntimeError, AssertionError) as error:  # PyTorch's way to say that there is no such device
        raise ConfigError(f"the language model cannot be put on {device}: {error}") from error
    return network.eval()
