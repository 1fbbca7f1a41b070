"""Checkpoints as their authors publish them: folders known by the names of their files.

Nobody has pinned their bytes here: what a hub says of a file (its sha256) is compared with what came, and a
local folder is taken at its word. So only formats that hold no code are fetched, or ``.pt`` files, which are
read with ``weights_only=True``. What it does not know: whether tensors fit; loading is strict about that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stepaudio.checkpoint import present
from stepaudio.core.errors import ModelMissing, StepAudioError

SUFFIXES = frozenset({".safetensors", ".pt", ".onnx", ".npy", ".json", ".model", ".yaml", ".mvn"})

_STEP_2 = "Step-Audio 2, which its own program supports"
_EDITX = "Step-Audio-EditX, which its own program supports"
_EDITX_FLOW = "CausalMaskedDiffWithXvec"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a checkpoint holds.

    Attributes:
        expected: paths of files in it.
        index: the one among them that names further files (Hugging Face's of shards).
        size: about how many bytes all of it has.
        memory: bytes that its authors say it takes on a GPU.
    """

    expected: tuple[str, ...]
    index: str | None
    size: int
    memory: int

    def files(self, folder: Path) -> list[str]:
        """Paths of the files that ``folder`` should hold, as far as can be told: an index names more."""
        return [*self.expected, *self.shards(folder)]

    def shards(self, folder: Path) -> list[str]:
        """What the index names, if it is there."""
        if self.index is None:
            return []
        try:
            places = json.loads((folder / self.index).read_text(encoding="utf-8"))["weight_map"].values()
            names = sorted(set(places))
            # An index that names files elsewhere is not followed.
            return [name for name in names if Path(name).name == name and Path(name).suffix in SUFFIXES]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def problems(self, folder: Path) -> list[str]:
        """What is wrong with a folder: files that are missing, empty, or Git LFS pointers."""
        found = []
        for name in self.files(folder):
            try:
                present(converted(folder / name))
            except StepAudioError as error:
                found.append(str(error))
        return found

    def on_disk(self, folder: Path) -> int:
        """Bytes of the files that are there."""
        paths = [converted(folder / name) for name in self.files(folder)]
        return sum(path.stat().st_size for path in paths if path.is_file())


def converted(path: Path) -> Path:
    """``NAME.safetensors`` where it stands in for ``NAME.pt``."""
    safe = path.with_suffix(".safetensors")
    return safe if path.suffix == ".pt" and safe.is_file() else path


def what_else(folder: Path) -> str | None:
    """Which other model a folder holds, if it is one that is often taken for ours."""
    if (folder / "token2wav").exists() or (folder / "speech_tokenizer_v2_25hz.onnx").exists():
        return _STEP_2
    flows = folder.glob("CosyVoice*/cosyvoice.yaml")
    causal = any(_EDITX_FLOW in flow.read_text(encoding="utf-8", errors="replace") for flow in flows)
    return _EDITX if causal or "editx" in folder.name.lower() else None


class Hub(Protocol):
    """A model hub, as ``models`` knows it."""

    def url(self, repository: str, path: str, revision: str) -> str: ...
    def describe(self, url: str) -> tuple[int, str]: ...
    def download(
        self, url: str, size: int, sha256: str, target: Path, advance: Callable[[int], None]
    ) -> None: ...


def find(layout: Layout, places: Sequence[Path]) -> tuple[Path | None, str]:
    """The first of some folders that holds the whole checkpoint, or None and why not."""
    why = "no such folder"
    for place in places:
        if not place.is_dir():
            continue
        other = what_else(place)
        if other is not None:
            why = f"{place} is {other}"
            continue
        problems = layout.problems(place)
        if not problems:
            return place, ""
        if len(problems) < len(layout.files(place)):
            why = problems[0]
    return None, why


def fetch(
    layout: Layout,
    hub: Hub,
    repository: str,
    revision: str,
    folder: Path,
    tell: Callable[[str, int, int], None],
) -> None:
    """Fill ``folder`` from a hub; what is whole in it is not fetched again.

    Args:
        tell: called with file, bytes done, bytes in all.

    Raises:
        ModelMissing: the index names nothing.
        Exception: what the hub raises.
    """

    def get(name: str) -> None:
        url = hub.url(repository, name, revision)
        size, digest = hub.describe(url)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        growing = target.with_name(target.name + ".part")
        if not target.is_file() or target.stat().st_size != size:
            hub.download(url, size, digest, growing, lambda done: tell(name, done, size))
            growing.replace(target)
        tell(name, size, size)

    for name in layout.expected:
        get(name)
    if layout.index is None:
        return
    shards = layout.shards(folder)
    if not shards:
        raise ModelMissing(f"{folder / layout.index} does not say which files hold the weights: pull again")
    for name in shards:
        if name not in layout.expected:
            get(name)
