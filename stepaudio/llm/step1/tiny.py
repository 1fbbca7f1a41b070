"""A Step-1 checkpoint in the layout of the public ones, of toy size, random weights: it writes random words.

For tests, and for those who want to see the whole run without 8 or 265 GB of weights. The vocabulary has its
full size, with few words in it, since the ids of codes are fixed. One number of the hidden state is held
constant and serves as a bias, so that what is drawn is a word (of a Chat) or a code (of a TTS), and ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save

from stepaudio.core.codes import FIRST_ID, MERGED_CODES
from stepaudio.files import whole_file
from stepaudio.llm.step1.configuration import Step1Config
from stepaudio.llm.step1.folder import CONFIG, EMBEDDING, HEAD, INDEX
from stepaudio.llm.step1.network import Step1ForCausalLM

VOCABULARY = 74_752
UNKNOWN, START, END, END_OF_TURN, BEGIN_OF_TURN = range(5)
BYTES = 5
"""Id of the first of 256 pieces that stand for bytes; letters and words follow them."""

_WORDS = (
    "the a of to in is it you that he was for on are with as his they be at one have this from or had by but"
    " some what there we can out other were all your when up use word how said an each she which do their"
    " time if will way about many then them would write like so these her long make thing see him two has"
    " look more day could go come did my sound no most number who over know water than call first people"
    " may down side been now find"
).split()
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-:;()\n"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a network; see ``Step1Config``."""

    hidden: int = 48
    inner: int = 96
    layers: int = 2
    heads: int = 6
    groups: int = 2


def write(
    folder: Path, kind: Literal["chat", "tts"], sizes: Sizes | None = None, seed: int = 0, length: int = 12
) -> None:
    """Write ``config.json``, weights with their index, ``tokenizer.model`` and ``tokenizer_config.json``.

    Args:
        folder: is made where it is not there.
        kind: "chat" writes words, "tts" codes.
        sizes: of the network.
        seed: of the weights.
        length: about how many words, or groups of codes, come before the end at temperature 0.7.
    """
    sizes = sizes or Sizes()
    folder.mkdir(parents=True, exist_ok=True)
    config = Step1Config(
        vocab_size=VOCABULARY,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_attention_groups=sizes.groups,
        max_seq_len=32_768,
    )
    tensors = _weights(config, kind, seed, length)
    shard = "model-00001.safetensors"
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(tensors, shard)}
    for name, content in (
        (CONFIG, _json(_described(config))),
        (INDEX, _json(index)),
        ("tokenizer.model", tokenizer()),
        ("tokenizer_config.json", _json(_TOKENIZER | ({"chat_template": TEMPLATE} if kind == "chat" else {}))),
        (shard, save(tensors, {"format": "pt"})),
    ):
        with whole_file(str(folder / name)) as out:
            out.write(content)


def _weights(config: Step1Config, kind: str, seed: int, length: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tensors = dict(Step1ForCausalLM(config).state_dict())
    # Spread out, so that what is read changes what is written.
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            spread = 1.0 if name == EMBEDDING else tensor.shape[1] ** -0.5
            tensor *= spread / config.initializer_range
    tensors[EMBEDDING][:, 0] = 8.0
    for name in tensors:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name][0] = 0  # nothing is added to it
    first_word = len(_pieces()) - len(_WORDS)  # never the letters that lead to it
    wanted = [at for at, piece in enumerate(_pieces()) if at >= BYTES + 256 and piece[2:] in _WORDS]
    assert first_word > BYTES
    if kind == "tts":
        wanted = list(range(FIRST_ID, FIRST_ID + MERGED_CODES))
    bias = torch.full((config.vocab_size,), -4.0)
    bias[wanted] = 1.0
    bias[END_OF_TURN] = 1.0 if kind == "tts" else 1.0
    tensors[HEAD][:, 0] = bias
    del length
    return {name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}


def _described(config: Step1Config) -> dict[str, object]:
    """As the public ``config.json`` has it."""
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_attention_groups")
    names += ("num_hidden_layers", "max_seq_len", "vocab_size", "rms_norm_eps")
    names += ("bos_token_id", "pad_token_id", "eos_token_id")
    return {
        "architectures": ["Step1ForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_step1.Step1Config",
            "AutoModelForCausalLM": "modeling_step1.Step1ForCausalLM",
        },
        "model_type": "step1",
        **{name: getattr(config, name) for name in names},
        "torch_dtype": "bfloat16",
    }


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=2).encode()
