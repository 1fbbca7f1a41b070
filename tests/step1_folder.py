"""A Step-1 folder for tests: the layout of the public checkpoints, few words, seeded random weights."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from stepaudio.core.codes import FIRST_ID, MERGED_CODES
from stepaudio.llm.step1 import chat, folder, tokenizer

VOCABULARY = 74_752
"""As published: text and control, 5,120 codes, and room."""

CONFIG = {
    "architectures": [folder.ARCHITECTURE],
    "model_type": "step1",
    "hidden_size": 192,
    "intermediate_size": 256,
    "num_attention_heads": 6,  # no power of two, as in the public ones; 32 numbers each
    "num_attention_groups": 2,
    "num_hidden_layers": 2,
    "vocab_size": VOCABULARY,
    "max_seq_len": 32_768,
    "rms_norm_eps": 1e-5,
    "bos_token_id": chat.START_ID,
    "eos_token_id": chat.END_OF_TURN_ID,
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
    "auto_map": {  # as published; the files that it names are never there, nor run
        "AutoConfig": "configuration_step1.Step1Config",
        "AutoModelForCausalLM": "modeling_step1.Step1ForCausalLM",
    },
}

SPREAD = 2.0
"""Standard deviation of the logits: the likeliest word is clear, and no word always wins."""

WORDS = """\
The quick brown fox jumps over the lazy dog. Hello, how are you today? I am fine, thank you very much!
What is the weather like in Paris? You are a helpful assistant. system human assistant user
今天天气怎么样？你好，我很高兴认识你。请记录下你所听到的语音内容。作为一名卓越的声优演员，
四川话 粤语 高兴 悲伤 生气 快速 慢速 哼唱 RAP 0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ ，。？！（）()"""

PIECES = 600


def write(path: Path, *, seed: int = 0, tied: bool = False, shards: int = 2, **sizes: Any) -> Path:
    """Write a folder: configuration, weights, tokenizer.

    Args:
        path: is made where it is not there.
        seed: of the weights.
        tied: no last layer is stored.
        shards: files that the weights are spread over.
        sizes: entries of ``config.json`` in place of ``CONFIG``'s.
    """
    path.mkdir(parents=True, exist_ok=True)
    config = CONFIG | sizes
    (path / folder.CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    generator = torch.Generator().manual_seed(seed)
    wanted = folder.shapes(path, config)
    tensors = {name: _random(name, shape, generator) for name, shape in wanted.items()}
    if tied:
        del tensors[folder.HEAD]
    names = list(tensors)
    places = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}.safetensors"
        part = {name: tensors[name].bfloat16() for name in names[shard::shards]}
        save_file(part, path / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    (path / folder.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return path


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape)
    scale = 1.0 if name == folder.EMBEDDING else shape[1] ** -0.5 * (SPREAD if name == folder.HEAD else 1)
    return torch.randn(shape, generator=generator) * scale


def write_tokenizer(path: Path) -> None:
    """Write ``tokenizer.model`` and ``tokenizer_config.json``."""
    from sentencepiece import SentencePieceTrainer
    from sentencepiece import sentencepiece_model_pb2 as protocol

    path.mkdir(parents=True, exist_ok=True)
    trained = io.BytesIO()
    SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
        sentence_iterator=iter(WORDS.splitlines()),
        model_writer=trained,
        model_type="bpe",
        vocab_size=PIECES,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=[chat.END_OF_TURN, chat.BEGIN_OF_TURN],
        num_threads=1,
        minloglevel=2,
    )
    proto = protocol.ModelProto.FromString(trained.getvalue())  # pyright: ignore[reportAttributeAccessIssue]
    piece = protocol.ModelProto.SentencePiece  # pyright: ignore[reportAttributeAccessIssue]
    for token in range(len(proto.pieces), VOCABULARY):
        audio = FIRST_ID <= token < FIRST_ID + MERGED_CODES
        name = f"<audio_{token - FIRST_ID}>" if audio else f"<unused_{token}>"
        proto.pieces.append(piece(piece=name, score=0, type=piece.USER_DEFINED if audio else piece.UNUSED))
    proto.trainer_spec.vocab_size = len(proto.pieces)
    (path / tokenizer.FILE).write_bytes(proto.SerializeToString())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": chat.START,
        "eos_token": "</s>",
        "pad_token": "<unk>",
        "unk_token": "<unk>",
        "legacy": False,
        "model_max_length": 65_536,
        "padding_side": "left",
        "chat_template": chat.TEMPLATE,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
