"""Sizes of a Step-1, as Hugging Face and vLLM read them from ``config.json``."""

from __future__ import annotations

from typing import ClassVar

from transformers import PretrainedConfig


class Step1Config(PretrainedConfig):
    """A ``config.json`` of model type ``step1``. Defaults are those of the published class.

    Attributes:
        num_attention_groups: heads of keys and values; each serves as many heads of queries.
        max_seq_len: tokens that it was trained on. Distances have no end, so more can be computed.
        tie_word_embeddings: whether the embedding is the last layer, too. Both public checkpoints store two.
    """

    model_type = "step1"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]
    attribute_map: ClassVar[dict[str, str]] = {
        "num_key_value_heads": "num_attention_groups",
        "max_position_embeddings": "max_seq_len",
    }

    vocab_size: int = 65_536
    hidden_size: int = 5120
    intermediate_size: int = 13_312
    num_hidden_layers: int = 48
    num_attention_heads: int = 40
    num_attention_groups: int = 8
    max_seq_len: int = 4096
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 3
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = False
