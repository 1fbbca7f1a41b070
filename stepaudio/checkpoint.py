"""Weights as they are published: files looked at before they are read, tensors that all have a place.

``.pt`` files are read with ``weights_only=True``: nothing in them is run. What it does not know: what the
tensors mean; each network's own file says so.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stepaudio.core.errors import ConfigError, ModelMissing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SHOWN = 4
"""Tensors that a message names; of more it says how many."""
_LFS = b"version https://git-lfs"
_NESTS = ("state_dict", "model_state_dict", "model")  # where training programs put the tensors of a .pt file


def usable_device(name: str) -> torch.device:
    """A device by its name: "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: there is none like that here.
    """
    import torch

    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f"no GPU for {name!r}: torch sees {torch.cuda.device_count()}; take cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"no device {name!r} on this machine: there are cpu, cuda and cuda:N") from None
    return device


def free_memory(name: str) -> int | None:
    """Free bytes of a GPU; None: another kind of device. Raises ``ConfigError`` as ``usable_device`` does."""
    import torch

    device = usable_device(name)
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def convert(path: Path) -> Path:
    """Write a ``.pt`` file of weights anew as ``.safetensors`` beside it, which is loaded from then on.

    Weights are what they were; a file that is there already is written anew.

    Raises:
        ModelMissing, ConfigError: see ``read_tensors``; or the place cannot be written.
    """
    from safetensors.torch import save

    from stepaudio.files import whole_file

    tensors = read_tensors(path)
    # Of tensors that share memory, each is stored: the format knows no sharing.
    own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    target = path.with_suffix(".safetensors")
    with whole_file(str(target)) as out:
        out.write(save(own, {"format": "pt"}))
    return target


def present(path: Path) -> Path:
    """The path of a file that is there, after a look at it.

    Raises:
        ModelMissing: it is not there, is empty, or a Git LFS pointer lies in its place.
    """
    if not path.is_file():
        raise ModelMissing(f"{path} is missing: fetch the checkpoint again, whole")
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise ModelMissing(f"{path} is empty: fetch the checkpoint again, whole")
    if head == _LFS:
        raise ModelMissing(f"{path} is a Git LFS pointer, not the file: run `git lfs pull` in its folder")
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or ``.pt`` file by name, on the CPU; files are mapped, not copied.

    Raises:
        ModelMissing: see ``present``.
        ConfigError: the file is damaged, or holds something else than tensors by name.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    present(path)
    damaged = f"{path} cannot be read as weights: fetch it again"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        OSError,
        EOFError,
        KeyError,
    ) as error:
        raise ConfigError(damaged) from error
    if isinstance(tensors, dict):
        tensors = next((tensors[nest] for nest in _NESTS if isinstance(tensors.get(nest), dict)), tensors)
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise ConfigError(f"{path} holds no tensors by name: is it another kind of file?")
    return tensors


def _is_zip(path: Path) -> bool:
    """Whether a .pt file has the format since PyTorch 1.6, which can be mapped."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def load(network: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Fill a network, which may be one without memory (device "meta"), in the types that it asks for.

    Raises:
        ConfigError: a tensor is missing, surplus or of another shape than the network's; it is named.
    """
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} has no place" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ConfigError(
            f"{source} does not fit the network that its configuration describes: "
            f"{'; '.join(problems[:SHOWN])}{more}. Is it of another model?"
        )
    network.load_state_dict({name: t.to(own[name].dtype) for name, t in tensors.items()}, assign=True)
