"""A checkpoint folder of Step-1, looked over before anything is loaded: no torch, a few kilobytes read.

Every tensor must have its place and its shape; that stands in the heads of the ``.safetensors`` files, so a
checkpoint of 265 GB is checked as quickly as a small one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepaudio.checkpoint import SHOWN, present
from stepaudio.core.errors import ConfigError, ModelMissing

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ARCHITECTURE = "Step1ForCausalLM"

MAX_HEAD = 100_000_000
"""Bytes of a head, as the format allows."""

Shape = tuple[int, ...]

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_attention_groups",
)
_OTHERS = (
    ("stepaudio2", "Step-Audio 2 or R1, which hears and speaks by other networks; StepFun's build of vLLM"),
    ("step_audio_2", "Step-Audio 2 or R1, which hears and speaks by other networks; StepFun's build of vLLM"),
)
_EDITX = "Step-Audio-EditX, whose prompts and decoder are others; its own program, or vLLM-Omni,"
_EDITX_FLOW = "CausalMaskedDiffWithXvec"


@dataclass(frozen=True)
class Folder:
    """A checkpoint that is whole.

    Attributes:
        path: of the folder.
        config: what ``config.json`` says.
        files: those that hold tensors.
        tied: no last layer is stored; the embedding serves for it.
        bytes: of all tensors.
    """

    path: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tied: bool
    bytes: int


def look(path: Path) -> Folder:
    """Look a folder over.

    Raises:
        ModelMissing: a file is missing, is empty, or a Git LFS pointer lies in its place.
        ConfigError: a file is damaged; the folder is of another model; or a tensor is missing, surplus or
            misshapen.
    """
    if not path.is_dir():
        raise ModelMissing(f"{path} is no folder: name the one that holds a Step-1 checkpoint ({CONFIG})")
    config = _json(path / CONFIG)
    _check_model(path, config)
    wanted = shapes(path, config)
    files = _files(path)
    found: dict[str, Shape] = {}
    size = 0
    for file, listed in files.items():
        head = read_head(file)
        problems = [
            f"{name} is listed in {INDEX} and not in {file.name}" for name in listed if name not in head
        ]
        problems += [f"{name} is stored twice" for name in head if name in found]
        _refuse(path, problems)
        found |= {name: tuple(entry["shape"]) for name, entry in head.items()}
        size += sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in head.values())
    tied = HEAD not in found
    if tied:
        del wanted[HEAD]
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} has no place" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name]} and should be {shape}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    _refuse(path, problems)
    return Folder(path, config, tuple(files), tied, size)


def shapes(path: Path, config: Mapping[str, Any]) -> dict[str, Shape]:
    """Every tensor that a configuration asks for, by name.

    Raises:
        ConfigError: a size is missing, or sizes do not go together.
    """
    bad = [name for name in _SIZES if not isinstance(config.get(name), int) or config[name] < 1]
    if bad:
        raise ConfigError(f"{path / CONFIG} says no {', '.join(bad)}: fetch the checkpoint again, whole")
    vocabulary, hidden, inner, layers, heads, groups = (config[name] for name in _SIZES)
    if hidden % heads or heads % groups:
        raise ConfigError(
            f"{path / CONFIG}: hidden_size {hidden}, {heads} heads and {groups} groups do not divide; "
            "fetch the checkpoint again, whole"
        )
    shared = hidden // heads * groups
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (shared, hidden),
        "self_attn.v_proj": (shared, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    return {
        EMBEDDING: (vocabulary, hidden),
        **{f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in layer.items()},
        "model.norm.weight": (hidden,),
        HEAD: (vocabulary, hidden),
    }


def read_head(file: Path) -> dict[str, Any]:
    """The head of a ``.safetensors`` file: ``dtype``, ``shape`` and ``data_offsets`` by name.

    Raises:
        ModelMissing: see ``checkpoint.present``.
        ConfigError: the file is damaged or cut short.
    """
    present(file)
    damaged = f"{file} is damaged or cut short: fetch it again"
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEAD:
                raise ConfigError(damaged)
            head = json.loads(stream.read(length))
        head.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in head.values()), default=0)
        whole = all(isinstance(entry["shape"], list) for entry in head.values())
    except (OSError, struct.error, ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(damaged) from error
    if not whole or file.stat().st_size != 8 + length + end:
        raise ConfigError(damaged)
    return head


def _files(path: Path) -> dict[Path, list[str]]:
    """Files that hold tensors, and the tensors that an index says are in each."""
    if (path / INDEX).is_file():
        places = _json(path / INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise ConfigError(f"{path / INDEX} does not say which file holds what: fetch it again")
        files: dict[Path, list[str]] = {}
        for name, file in places.items():
            if Path(file).name != file:
                raise ConfigError(f"{path / INDEX} names a file outside its folder: do not use it")
            files.setdefault(path / file, []).append(name)
        return dict(sorted(files.items()))
    single = [path / SINGLE] if (path / SINGLE).is_file() else sorted(path.glob("*.safetensors"))
    if len(single) == 1:
        return {single[0]: []}
    if single:
        raise ModelMissing(f"{path / INDEX} is missing: fetch the checkpoint again, whole")
    if any(path.glob("*.bin")) or any(path.glob("*.pt")):
        raise ModelMissing(f"{path} holds no .safetensors files: write the weights anew as safetensors first")
    raise ModelMissing(f"{path} holds no {SINGLE}: fetch the checkpoint again, whole")


def _check_model(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is not Step-1, and say what it is."""
    kind, architectures = str(config.get("model_type", "")), config.get("architectures") or []
    names = [kind, *map(str, architectures)] if isinstance(architectures, list) else [kind]
    for sign, what in _OTHERS:
        if any(sign in name.lower() for name in names):
            raise ConfigError(f"{path} is {what} supports it; here Step-Audio-Chat and Step-Audio-TTS-3B run")
    if kind != "step1" and ARCHITECTURE not in names:
        what = " ".join(name for name in names if name) or "no model type"
        raise ConfigError(
            f"{path} is of another model ({what}), not Step-1: name a folder of Step-Audio-Chat or "
            "Step-Audio-TTS-3B"
        )
    if _is_editx(path, config):
        raise ConfigError(f"{path} is {_EDITX} supports it; here Step-Audio-TTS-3B runs")


def _is_editx(path: Path, config: Mapping[str, Any]) -> bool:
    """EditX has the configuration of TTS-3B: its name, or the decoder beside it, tells."""
    named = (path.name, str(config.get("_name_or_path", "")))
    if any("editx" in name.lower() for name in named):
        return True
    return any(
        _EDITX_FLOW in yaml.read_text(encoding="utf-8", errors="replace")
        for yaml in path.glob("CosyVoice*/cosyvoice.yaml")
    )


def _json(file: Path) -> dict[str, Any]:
    present(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is damaged: fetch it again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is damaged: fetch it again")
    return content


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ConfigError(
            f"{path} does not fit the network that its {CONFIG} describes: {'; '.join(problems[:SHOWN])}"
            f"{more}. Is it of another model?"
        )
