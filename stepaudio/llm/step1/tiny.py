"""A Step-1 checkpoint in the layout of the public ones, of toy size, random weights: it writes random words.

For tests, and for those who want to see the whole run without 8 or 265 GB of weights. The vocabulary has its
full size, with few words in it, since the ids of codes are fixed. One number of the hidden state is held
constant and serves as a bias, so that what is drawn is a word (of a Chat) or a code (of a TTS), and ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save

from stepaudio.core.codes import FIRST_ID, MERGED_CODES
from stepaudio.files import whole_file
from stepaudio.llm.step1.chat import BEGIN_OF_TURN, END_OF_TURN, END_OF_TURN_ID, START, TEMPLATE
from stepaudio.llm.step1.configuration import Step1Config
from stepaudio.llm.step1.folder import CONFIG, EMBEDDING, HEAD, INDEX
from stepaudio.llm.step1.network import Step1ForCausalLM

VOCABULARY = 74_752
_CONSTANT = 8.0
"""What is held constant in the hidden state."""
_BIAS = 1.0
_NOT_AT_ONCE = 3.0
_END_BIAS = {"chat": 0.8, "tts": 1.0}
"""How likely the end is, beside one word or code; the mean length follows."""

BYTES = 5
"""Id of the first of the 256 pieces that stand for bytes."""

_WORDS = (
    "the a of to in is it you that he was for on are with as his they be at one have this from or had by but"
    " some what there we can out other were all your when up use word how said an each she which do their"
    " time if will way about many then them would write like so these her long make thing see him two has"
    " look more day could go come did my sound no most number who over know water than call first people"
    " may down side been now find"
).split()
SPACE = "\u2581"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-:;()|<>_"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a network; see ``Step1Config``."""

    hidden: int = 48
    inner: int = 96
    layers: int = 2
    heads: int = 6
    groups: int = 2


def write(folder: Path, kind: Literal["chat", "tts"], sizes: Sizes | None = None, seed: int = 0) -> None:
    """Write ``config.json``, weights with their index, ``tokenizer.model`` and ``tokenizer_config.json``.

    Args:
        folder: is made where it is not there.
        kind: "chat" writes words, "tts" codes.
        sizes: of the network.
        seed: of the weights.
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
    tensors = _weights(config, kind, seed)
    shard = "model-00001.safetensors"
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(tensors, shard)}
    for name, content in (
        (CONFIG, _json(_described(config))),
        (INDEX, _json(index)),
        ("tokenizer.model", tokenizer()),
        (
            "tokenizer_config.json",
            _json(_TOKENIZER | ({"chat_template": TEMPLATE} if kind == "chat" else {})),
        ),
        (shard, save(tensors, {"format": "pt"})),
    ):
        with whole_file(str(folder / name)) as out:
            out.write(content)


def _weights(config: Step1Config, kind: str, seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tensors = dict(Step1ForCausalLM(config).state_dict())
    # Spread out, so that what is read changes what is written.
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            spread = 1.0 if name == EMBEDDING else tensor.shape[1] ** -0.5
            tensor *= spread / config.initializer_range
    tensors[EMBEDDING][:, 0] = _CONSTANT
    for name in tensors:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name][0] = 0  # nothing is added to it
    if kind == "tts":
        wanted = list(range(FIRST_ID, FIRST_ID + MERGED_CODES))
    else:
        wanted = [at for at, (piece, _) in enumerate(pieces()) if piece[1:] in _WORDS]
    tensors[HEAD][:, 0] = -_BIAS
    tensors[HEAD][wanted, 0] = _BIAS
    before = tensors[EMBEDDING][BYTES + ord("\n")]  # what an answer comes after: it is not to end at once
    tensors[HEAD][END_OF_TURN_ID] = -_NOT_AT_ONCE * before / before.norm()
    tensors[HEAD][END_OF_TURN_ID, 0] = _END_BIAS[kind]
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


_TOKENIZER: dict[str, object] = {  # as in Step-Audio-Chat
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": START,
    "eos_token": "</s>",
    "pad_token": "<unk>",
    "unk_token": "<unk>",
    "legacy": False,
    "model_max_length": 65_536,
    "padding_side": "left",
    "use_default_system_prompt": False,
}


def pieces() -> list[tuple[str, str]]:
    """The vocabulary in order of ids: (piece, SentencePiece's name for its kind)."""
    found = [("<unk>", "UNKNOWN"), (START, "CONTROL"), ("</s>", "CONTROL")]
    found += [(END_OF_TURN, "USER_DEFINED"), (BEGIN_OF_TURN, "USER_DEFINED")]
    found += [(f"<0x{byte:02X}>", "BYTE") for byte in range(256)]
    # Pairs are merged in order of ids, so that everything that leads to a word comes before it.
    words = [SPACE + word[:end] for word in _WORDS for end in range(1, len(word) + 1)]
    found += [(piece, "NORMAL") for piece in dict.fromkeys([SPACE, *_LETTERS, *words])]
    found += [(f"<unused_{number}>", "UNUSED") for number in range(FIRST_ID - len(found))]
    found += [(f"<audio_{code}>", "USER_DEFINED") for code in range(MERGED_CODES)]
    found += [(f"<spare_{number}>", "UNUSED") for number in range(VOCABULARY - len(found))]
    return found


def tokenizer() -> bytes:
    """A SentencePiece model (BPE, bytes for what it has no letters for) with a hundred English words."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2  # its names come into being when it is imported
    model = proto.ModelProto()
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = proto.TrainerSpec.ModelType.BPE
    trainer.vocab_size, trainer.byte_fallback = VOCABULARY, True
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = (
        "identity",
        True,
        False,
    )
    for at, (piece, kind) in enumerate(pieces()):
        entry = model.pieces.add()
        entry.piece, entry.score = piece, -float(at) if kind == "NORMAL" else 0.0
        entry.type = proto.ModelProto.SentencePiece.Type.Value(kind)
    return model.SerializeToString()
