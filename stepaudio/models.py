"""The model store: what each model is, where its bytes are found, and where they lie on this machine.

``models.toml`` describes the models. A store is a folder with one folder a model::

    <root>/<model id>/<file>      whole, with the sha256 of models.toml, or not there
    <root>/<model id>/.hashed     what was hashed; a file is trusted while its size and time are the same
    <root>/.derived/<model id>/   files that were computed from a model
    <root>/.partial/<model id>/   files on their way; what is whole in them is not fetched again
    <root>/.locks/                one process at a time writes

A file is looked for in local folders, in installed packages, in a hub repository, and at last in packages
of a registry, which pip or npm downloads and whose members are joined. Which source gives it does not matter:
its sha256 decides. The packages are third parties' carriers of public weights, not the authors' releases.
Checkpoints whose bytes nobody has pinned are ``published``: whole folders, from a local one or from a hub.

What it does not know: how much memory a model takes, and whether its licence suits the user.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from filelock import FileLock, Timeout

from stepaudio import published
from stepaudio.core.errors import ConfigError, ModelMissing, StepAudioError, unknown

DATA = Path(__file__).with_name("models.toml")

# Formats that hold numbers and text only. ".bin" is CTranslate2's and Kokoro's; PyTorch's pickles have that
# name too, but a file that is not pinned by its hash in the data file never gets in.
SUFFIXES = frozenset({".onnx", ".gguf", ".safetensors", ".bin", ".npy", ".json", ".txt"})

CHUNK = 1 << 20
HUB_SECONDS = 5  # a hub that has not answered by then counts as out of reach: the packages are there

_log = logging.getLogger(__name__)


# --- what a model is --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a registry that carries a part of a model, for example ``kokoro-js`` 1.2.1 of npm."""

    kind: Literal["wheel", "npm"]
    name: str
    version: str

    @property
    def requirement(self) -> str:
        """As pip or npm wants it named."""
        return f"{self.name}=={self.version}" if self.kind == "wheel" else f"{self.name}@{self.version}"

    def __str__(self) -> str:
        return f"{'package' if self.kind == 'wheel' else 'npm package'} {self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Part:
    """A member of a package; the parts of a file, joined in order, are the file. ``size`` in bytes."""

    package: Package
    member: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One file of a model. ``hub`` is its path in the model's hub repository, ``size`` in bytes."""

    name: str
    size: int
    sha256: str
    hub: str | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model. ``licence`` is an SPDX identifier; ``profiles`` are those whose defaults need the model.

    It has either ``files``, or a ``layout``: a checkpoint as it is published.
    """

    id: str
    purpose: str
    origin: str
    licence: str
    profiles: tuple[str, ...]
    files: tuple[FileSpec, ...]
    repository: str | None = None
    revision: str = "main"
    layout: published.Layout | None = None

    @property
    def size(self) -> int:
        """Bytes of all files; of a published checkpoint, about."""
        if self.layout is not None:
            return self.layout.size
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """One sha256 for the whole model."""
        return hashlib.sha256("".join(f"{f.name} {f.sha256}\n" for f in self.files).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What the store has of a model, judged without hashing.

    ``present``: every file is there with its size. ``damaged``: a file has a wrong size, or its hash was
    found wrong earlier. ``on_disk`` counts bytes.
    """

    id: str
    state: Literal["present", "incomplete", "missing", "damaged"]
    on_disk: int
    path: Path


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a pull. ``done`` and ``total`` are bytes of ``file``.

    ``source`` says in words where the bytes come from; for ``failed`` which source failed and why (the pull
    goes on with the next one); for ``waiting`` whom the pull waits for (``model`` and ``file`` are empty).
    """

    model: str
    file: str
    done: int
    total: int
    source: str
    state: Literal["waiting", "checking", "fetching", "failed", "done"]


Report = Callable[[Progress], None]


# --- reading the data file --------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REQUIREMENT: dict[Literal["wheel", "npm"], re.Pattern[str]] = {
    "wheel": re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!]*)"),
    "npm": re.compile(r"([a-z0-9][a-z0-9._-]*)@([0-9][A-Za-z0-9.+-]*)"),
}


def load_specs(path: Path = DATA) -> dict[str, ModelSpec]:
    """Read and check a file such as ``models.toml``.

    Raises:
        ConfigError: an entry is incomplete, names a format that can hold code, or a path out of its folder.
    """
    with path.open("rb") as file:
        table = tomllib.load(file)
    specs = {}
    for model_id, entry in table.items():
        try:
            specs[model_id] = _model(model_id, entry)
        except KeyError as error:
            raise ConfigError(f"{path.name}: {model_id} lacks {error}") from None
        except ValueError as error:
            raise ConfigError(f"{path.name}: {model_id}: {error}") from None
    return specs


def _model(model_id: str, entry: dict[str, Any]) -> ModelSpec:
    hub = entry.get("hub", {})
    return ModelSpec(
        id=_matching(_NAME, model_id, "id"),
        purpose=entry["purpose"],
        origin=entry["origin"],
        licence=entry["licence"],
        profiles=tuple(entry["profiles"]),
        files=() if "expected" in entry else tuple(_file(file) for file in entry["files"]),
        repository=hub.get("repository"),
        revision=hub.get("revision", "main"),
        layout=_layout(entry) if "expected" in entry else None,
    )


def _layout(entry: dict[str, Any]) -> published.Layout:
    expected = tuple(_inner_path(name) for name in entry["expected"])
    for name in expected:
        if Path(name).suffix not in published.SUFFIXES:
            raise ValueError(f"{name} is not of a format without code")
    return published.Layout(expected, entry.get("index"), entry["size"], entry["memory"])


def _file(entry: dict[str, Any]) -> FileSpec:
    name = _matching(_NAME, entry["name"], "file name")
    if Path(name).suffix not in SUFFIXES:
        raise ValueError(f"{name} is not of a format without code ({', '.join(sorted(SUFFIXES))})")
    size, sha256 = entry["size"], _matching(_SHA256, entry["sha256"], "sha256")
    parts = tuple(_part(part, size, sha256) for part in entry.get("parts", []))
    if parts and sum(part.size for part in parts) != size:
        raise ValueError(f"the parts of {name} do not add up to its size")
    return FileSpec(name, size, sha256, _inner_path(entry["hub"]) if "hub" in entry else None, parts)


def _part(entry: dict[str, Any], size: int, sha256: str) -> Part:
    for kind, pattern in _REQUIREMENT.items():
        if kind in entry:
            name, version = re.split("==|@", _matching(pattern, entry[kind], "package with its version"))
            # One part that is the whole file need not say size and hash again.
            part_sha256 = _matching(_SHA256, entry.get("sha256", sha256), "sha256")
            member = _inner_path(entry["member"])
            return Part(Package(kind, name, version), member, entry.get("size", size), part_sha256)
    raise ValueError("a part names neither a wheel nor an npm package")


def _matching(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{value!r} cannot be a {what}")
    return value


def _inner_path(value: str) -> str:
    """A path inside a repository or an archive: relative, and never upwards."""
    if "\\" in value or not {"", ".", ".."}.isdisjoint(value.split("/")):
        raise ValueError(f"{value!r} is not a plain relative path")
    return value


# --- the store --------------------------------------------------------------------------------------------


def default_root() -> Path:
    """``stepaudio/models`` in the user's cache folder (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")  # a relative one is invalid by the specification
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "stepaudio" / "models"


class ModelStore:
    """The models on this machine.

    Args:
        root: the store's folder; ``None`` for ``default_root()``. It is made when something is first pulled.
        local: folders that may hold ``<model id>/<file>`` or ``<file>``: the first source of a pull.
        offline: download nothing; local folders, installed packages and the hub's cache are still looked at.
        specs: the models that there are; ``None`` for those of ``models.toml``.
    """

    def __init__(
        self,
        root: Path | None = None,
        local: Sequence[Path] = (),
        offline: bool = False,
        specs: Mapping[str, ModelSpec] | None = None,
    ) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.local = tuple(Path(folder) for folder in local)
        self.offline = offline
        self.specs: Mapping[str, ModelSpec] = load_specs() if specs is None else specs
        self.hub: _Hub | None = None  # made at first need: whether a hub can be reached is asked once

    def status(self, model_id: str) -> ModelStatus:
        """What is there of a model, judged by sizes and by what was hashed before."""
        spec = self._spec(model_id)
        folder = self.root / spec.id
        if spec.layout is not None:
            return self._published_status(spec, spec.layout)
        files = _states(spec, folder)
        states = [state for _, state in files]
        present = [folder / file.name for file, state in files if state != "absent"]
        if not present:
            state = "missing"
        elif "bad" in states:
            state = "damaged"
        else:
            state = "incomplete" if "absent" in states else "present"
        return ModelStatus(spec.id, state, sum(path.stat().st_size for path in present), folder)

    def path(self, model_id: str) -> Path:
        """The folder that holds the model's files.

        Raises:
            ModelMissing: not all of it is there; the message is the command that gets it.
            ConfigError: there is no such model.
        """
        status = self.status(model_id)
        if status.state == "present":
            return status.path
        lack = {
            "missing": "is not on this machine; get it",
            "incomplete": "is only partly on this machine; get the rest",
            "damaged": "is damaged on this machine; get it again",
        }[status.state]
        raise ModelMissing(f"{model_id} {lack} with: stepaudio models pull {model_id}")

    def pull(self, ids: Iterable[str], progress: Report | None = None, force: bool = False) -> None:
        """Make models present, each file whole and with the right hash.

        A file that was hashed before and has not changed since is not read again, so a pull of models that
        are there costs next to nothing. An interrupted pull goes on where it stopped, to the part of a file.
        Where another process works in the store, this one says so (``waiting``), waits, and looks again.

        Args:
            ids: the models.
            progress: called in this thread with every step.
            force: hash every file again, and fetch what is damaged.

        Raises:
            ModelMissing: no source gave some of them; the message has a line for each source, and what to do.
            ConfigError: there is no such model, or the store's folder cannot be written.
            StepAudioError: the disk is full; the message says how much is needed and where.
        """
        report = progress or (lambda _: None)
        specs = [self._spec(model_id) for model_id in dict.fromkeys(ids)]
        for spec in specs:
            if spec.layout is not None and self.status(spec.id).state != "present":
                with _explained(self.root), self._lock(self.root, "store", report):
                    self._pull_published(spec, spec.layout, report)
        specs = [spec for spec in specs if spec.layout is None]
        if not self._lacking(specs, report, force):
            return
        with _explained(self.root), self._lock(self.root, "store", report):
            lacking = self._lacking(specs, report)  # the other process may have got them meanwhile
            if lacking:
                _Pull(self, lacking, report).run()

    def verify(self, model_id: str) -> list[str]:
        """Hash every file again. Returns the problems, one line each; the next ``pull`` mends them.

        Of a published checkpoint it is seen only whether all files are there.
        """
        spec, problems, hashes = self._spec(model_id), [], {}
        if spec.layout is not None:
            return spec.layout.problems(self.root / spec.id)
        for file in spec.files:
            path = self.root / spec.id / file.name
            if not path.is_file():
                problems.append(f"{file.name}: missing")
                continue
            size, hashes[file.name] = path.stat().st_size, _sha256(path)
            if size != file.size:
                problems.append(f"{file.name}: {size:,} bytes in place of {file.size:,}")
            elif hashes[file.name] != file.sha256:
                problems.append(f"{file.name}: its sha256 is {hashes[file.name]}, not {file.sha256}")
        _note_hashes(self.root / spec.id, hashes)
        return problems

    def remove(self, model_id: str) -> int:
        """Delete a model, what was derived from it, and what is left of interrupted pulls.

        Files that do not belong to the model are left alone. Returns the freed bytes.
        """
        spec = self._spec(model_id)
        folder = self.root / spec.id
        if not self.root.is_dir():
            return 0
        with _explained(self.root), self._lock(self.root, "store"):
            freed = 0
            if spec.layout is not None:
                return self._remove_published(spec.layout, folder)
            for path in [folder / file.name for file in spec.files] + [folder / ".hashed"]:
                with contextlib.suppress(FileNotFoundError):
                    freed += path.stat().st_size
                    path.unlink()
            for extra in (self.root / ".derived" / spec.id, self.root / ".partial" / spec.id):
                freed += sum(path.stat().st_size for path in extra.rglob("*") if path.is_file())
                shutil.rmtree(extra, ignore_errors=True)
            with contextlib.suppress(OSError):  # absent, or it holds files of somebody else
                folder.rmdir()
            return freed

    def _published_status(self, spec: ModelSpec, layout: published.Layout) -> ModelStatus:
        folder = self.root / spec.id
        problems, on_disk = layout.problems(folder), layout.on_disk(folder)
        there = [name for name in layout.files(folder) if published.converted(folder / name).is_file()]
        missing = len(layout.files(folder)) - len(there)
        if not there:
            state = "missing"
        elif len(problems) > missing:
            state = "damaged"
        else:
            whole = not problems and (layout.index is None or bool(layout.shards(folder)))
            state = "present" if whole else "incomplete"
        return ModelStatus(spec.id, state, on_disk, folder)

    def _pull_published(self, spec: ModelSpec, layout: published.Layout, report: Report) -> None:
        """Link a local folder that holds a checkpoint, or fetch it from the hub.

        Raises:
            ModelMissing: neither has it; the message has a line for each source.
            StepAudioError: the disk is too full.
        """
        folder = self.root / spec.id
        name = (spec.repository or spec.id).rpartition("/")[2]
        reasons = []
        for local in self.local:
            found, why = published.find(layout, (local / spec.id, local / name, local))
            if found is not None and not folder.exists():
                folder.unlink(missing_ok=True)  # a link to what is not there any more
                folder.symlink_to(found.resolve(), target_is_directory=True)
                report(Progress(spec.id, name, spec.size, spec.size, f"local folder {found}", "done"))
                return
            reasons.append(f"local folder {local}: {why or f'{folder} is in its place; remove it first'}")
        source = f"hub {spec.repository}"
        if self.offline or spec.repository is None:
            reasons.append(f"{source}: not asked (offline)")
        else:
            need, free = spec.size - layout.on_disk(folder), shutil.disk_usage(self.root).free
            if need > free:
                raise StepAudioError(
                    f"the disk is too full for {spec.id}: {_megabytes(need)} are needed in {self.root}, "
                    f"{_megabytes(free)} are free; free some space, or name a folder on another disk in the "
                    "setting models.root"
                )
            self.hub = self.hub or _Hub()

            def tell(file: str, done: int, total: int) -> None:
                state = "done" if done == total else "fetching"
                report(Progress(spec.id, file, done, total, source, state))

            try:
                published.fetch(layout, self.hub, spec.repository, spec.revision, folder, tell)
                return
            except _SourceFailed as error:
                reasons.append(f"{source}: {error}")
        lines = "\n".join(f"  {reason}" for reason in reasons)
        raise ModelMissing(
            f"could not get {spec.id} ({_megabytes(spec.size)}):\n{lines}\n"
            f"Where the hub can be reached, get it with: stepaudio models pull {spec.id}\n"
            f"Or name the folder that holds {name} in the setting models.local, and pull again."
        )

    def _remove_published(self, layout: published.Layout, folder: Path) -> int:
        if folder.is_symlink():  # what it leads to is somebody else's
            folder.unlink()
            return 0
        freed = layout.on_disk(folder)
        for name in layout.files(folder)[::-1]:  # the index last
            for path in (folder / name, (folder / name).with_suffix(".safetensors"), folder / f"{name}.part"):
                path.unlink(missing_ok=True)
        for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):  # it holds files of somebody else
                inner.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
        return freed

    def derived(self, model_id: str, recipe: str, build: Callable[[Path, Path], None]) -> Path:
        """A folder of files that are computed from a model, built at the first call and kept.

        Args:
            model_id: the model; it must be present.
            recipe: names what ``build`` does and its version, for example ``"split-1"``: another recipe is
                built anew, and so is another version of the model.
            build: called with the model's folder and an empty folder to fill, which appears whole or not at
                all. It must not pull.

        Returns:
            the folder: below the store, or below ``default_root()`` where the store cannot be written.

        Raises:
            ModelMissing: the model is not there.
            ConfigError: no folder can be written.
            StepAudioError: the disk is full.
        """
        model = self.path(model_id)
        key = hashlib.sha256(f"{self._spec(model_id).digest} {recipe}".encode()).hexdigest()[:16]
        # A store may be a read-only volume that many machines share.
        root = self.root if os.access(self.root, os.W_OK) else default_root()
        folder = root / ".derived" / model_id / key
        if _is_whole(folder):
            return folder
        with _explained(root), self._lock(root, f"derived-{model_id}-{key}"):
            if not _is_whole(folder):
                for stale in folder.parent.glob(
                    f"{key}.*"
                ):  # of processes that were killed: the lock is ours
                    shutil.rmtree(stale)
                new = folder.with_name(f"{key}.new")
                new.mkdir(parents=True)
                try:
                    build(model, new)
                    _seal(new)
                    shutil.rmtree(folder, ignore_errors=True)
                    new.rename(folder)
                finally:
                    shutil.rmtree(new, ignore_errors=True)
        return folder

    def _spec(self, model_id: str) -> ModelSpec:
        if model_id not in self.specs:
            raise unknown("model", model_id, self.specs)
        return self.specs[model_id]

    def _lacking(self, specs: Sequence[ModelSpec], report: Report, force: bool = False) -> list[_Item]:
        """The files that are absent, damaged, or found damaged now where no earlier hash vouches for them."""
        lacking = []
        for spec in specs:
            folder, hashes = self.root / spec.id, {}
            for file, state in _states(spec, folder):
                if state == "unhashed" or (force and state == "good"):
                    report(Progress(spec.id, file.name, 0, file.size, str(folder), "checking"))
                    hashes[file.name] = _sha256(folder / file.name)
                    state = "good" if hashes[file.name] == file.sha256 else "bad"
                if state != "good":
                    lacking.append(_Item(spec, file))
            _note_hashes(folder, hashes)
        return lacking

    @contextlib.contextmanager
    def _lock(self, root: Path, name: str, report: Report | None = None) -> Iterator[None]:
        folder = root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")  # the system drops it when a process dies
        try:
            lock.acquire(timeout=0)
        except Timeout:
            words = f"another process is at work in {root}"
            _log.info("waiting: %s", words)
            if report is not None:
                report(Progress("", "", 0, 0, words, "waiting"))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


# --- one pull ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    """A file to get."""

    spec: ModelSpec
    file: FileSpec


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part to get, and the byte of its file where it begins."""

    item: _Item
    part: Part
    offset: int


class _SourceFailed(Exception):
    """A source did not give what was asked of it; the message says why, in one line."""


class _Pull:
    """Gets files from their sources, in order, into a store whose lock is held."""

    def __init__(self, store: ModelStore, items: Sequence[_Item], report: Report) -> None:
        self.store, self.items, self.report = store, items, report
        self.partial = store.root / ".partial"
        self.done = dict.fromkeys(items, 0)  # bytes that came out of packages
        self.reasons: dict[str, dict[str, str]] = {}  # model id -> source -> why it failed
        self.retries = 3  # of pip; one once a registry was out of reach (it only says so when it tries again)

    def run(self) -> None:
        self.partial.mkdir(exist_ok=True)
        for stale in self.partial.glob("tmp-*"):  # of processes that were killed: the lock is ours
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="tmp-", dir=self.partial) as work:
            self.work = Path(work)
            left = [item for item in self.items if not self.from_this_machine(item)]
            self.check_space(left)
            left = [item for item in left if not self.from_hub(item)]
            left = self.from_packages(left)
        for item in self.items:
            if not any(other.spec == item.spec for other in left):
                shutil.rmtree(self.partial / item.spec.id, ignore_errors=True)
            with contextlib.suppress(OSError):  # nothing of it came
                (self.partial / item.spec.id).rmdir()
        if left:
            raise ModelMissing(self.lament(left))

    def from_this_machine(self, item: _Item) -> bool:
        """Local folders, and packages that are installed beside this one."""
        name = item.file.name
        for folder in self.store.local:
            source = f"local folder {folder}"
            found = [path for path in (folder / item.spec.id / name, folder / name) if path.is_file()]
            if any(self.adopt(item, path, source) for path in found):
                return True
            if not found:
                self.fail(item, source, f"no {item.spec.id}/{name}")
        if len(item.file.parts) == 1 and item.file.parts[0].package.kind == "wheel":
            part = item.file.parts[0]
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                distribution = importlib.metadata.distribution(part.package.name)
                path = Path(str(distribution.locate_file(part.member)))
                return path.is_file() and self.adopt(item, path, f"installed package {part.package.name}")
        return False

    def adopt(self, item: _Item, path: Path, source: str) -> bool:
        """Take a file of this machine: by a second name where that works, so that it is on the disk once."""
        self.tell(item, 0, source, "checking")
        if path.stat().st_size != item.file.size:
            return self.fail(item, source, f"{item.file.name} has another size")
        new = self.work / item.file.name
        try:
            os.link(path.resolve(), new)
        except OSError:  # another file system, or not ours to link
            shutil.copyfile(path, new)
        if _sha256(new) != item.file.sha256:
            new.unlink()
            return self.fail(item, source, f"{item.file.name} holds other bytes")
        self.publish(item, new, source)
        return True

    def from_hub(self, item: _Item) -> bool:
        spec, file = item.spec, item.file
        if spec.repository is None or file.hub is None:
            return False
        hub = self.store.hub = self.store.hub or _Hub()
        source = f"hub {spec.repository}"
        cached = hub.cached(spec.repository, file.hub, spec.revision)
        if cached is not None and self.adopt(item, cached, f"{source} (cached)"):
            return True
        if self.store.offline:
            return self.fail(item, source, "not asked (offline)")
        target = self.target(item)
        try:
            url = hub.url(spec.repository, file.hub, spec.revision)
            hub.download(url, file.size, file.sha256, target, lambda done: self.tell(item, done, source))
        except _SourceFailed as error:
            return self.fail(item, source, str(error))
        self.publish(item, target, source)
        return True

    def from_packages(self, items: Sequence[_Item]) -> list[_Item]:
        """Download packages and put their members into place. Returns the items that it did not get.

        One package at a time: two or three pips at once took as long (wheels of 15 and of 52 MB, two cores).
        """
        lost = [item for item in items if not item.file.parts]
        todo: dict[Package, list[_Piece]] = {}
        for item in items:
            offset = 0
            for part in item.file.parts:
                # What an interrupted pull left is judged by its hash alone: no journal that could be wrong.
                if _region_sha256(self.target(item), offset, part.size) == part.sha256:
                    self.done[item] += part.size
                else:
                    todo.setdefault(part.package, []).append(_Piece(item, part, offset))
                offset += part.size
            if item.file.parts and not self.finish(item, "an earlier pull"):
                lost.append(item)
        for package, pieces in todo.items():
            pieces = [piece for piece in pieces if piece.item not in lost]
            if pieces and self.store.offline:
                lost += [piece.item for piece in pieces]
                self.fail(pieces[0].item, "packages", "not asked (offline)")
            elif pieces:
                lost += self.from_package(package, pieces)
        return [item for item in items if item in lost]

    def from_package(self, package: Package, pieces: Sequence[_Piece]) -> list[_Item]:
        """Get parts of files out of one package. Returns the items whose part it did not hold."""
        left = {piece.part.member: piece for piece in pieces}
        lost: list[_Item] = []
        first = pieces[0]

        def advance(fraction: float) -> None:
            # The archive is smaller than its members; its progress stands for theirs.
            self.tell(first.item, self.done[first.item] + int(fraction * first.part.size), str(package))

        folder = Path(tempfile.mkdtemp(dir=self.work))
        try:
            advance(0.0)
            if package.kind == "npm":
                archive = npm_pack(package.requirement, folder)
            else:
                archive = pip_download(package.requirement, folder, advance, self.retries)
            for member, stream in _members(archive, set(left)):
                piece = left[member]
                if not self.put(stream, piece):
                    lost.append(piece.item)
                    self.fail(piece.item, str(package), f"{member} holds other bytes")
                elif not self.finish(piece.item, str(package)):
                    lost.append(piece.item)
                del left[member]
            if left:
                raise _SourceFailed(f"has no {min(left)}")
        except (_SourceFailed, ConnectionError, *_BROKEN) as error:
            if isinstance(error, ConnectionError):
                self.retries = 1
            for piece in left.values():
                lost.append(piece.item)
                why = f"a broken archive ({error})" if isinstance(error, _BROKEN) else str(error)
                self.fail(piece.item, str(package), _one_line(why))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return lost

    def put(self, stream: IO[bytes], piece: _Piece) -> bool:
        """Write a part to its place in the growing file."""
        target = self.target(piece.item)
        target.touch()
        with target.open("r+b") as file:
            file.seek(piece.offset)
            if _hash(stream, piece.part.size, file) != piece.part.sha256:
                file.truncate(piece.offset)
                return False
        self.done[piece.item] += piece.part.size
        self.tell(piece.item, self.done[piece.item], str(piece.part.package))
        return True

    def finish(self, item: _Item, source: str) -> bool:
        """Publish a file once its parts are all in place. False where the whole is not what it should be."""
        if self.done[item] < item.file.size:
            return True
        target = self.target(item)
        os.truncate(target, item.file.size)
        if _sha256(target) != item.file.sha256:
            target.unlink()
            return self.fail(item, source, f"{item.file.name}: the joined parts are another file")
        self.publish(item, target, source)
        return True

    def target(self, item: _Item) -> Path:
        """Where a file grows until it is whole, whichever source it comes from."""
        folder = self.partial / item.spec.id
        folder.mkdir(exist_ok=True)
        return folder / item.file.name

    def publish(self, item: _Item, new: Path, source: str) -> None:
        """Move a file whose hash is right to its place, where it appears at once."""
        folder = self.store.root / item.spec.id
        folder.mkdir(exist_ok=True)
        _sync(new)
        new.replace(folder / item.file.name)
        _sync(folder)
        _note_hashes(folder, {item.file.name: item.file.sha256})
        # It may have been computed from the damaged file that this one replaces.
        shutil.rmtree(self.store.root / ".derived" / item.spec.id, ignore_errors=True)
        self.tell(item, item.file.size, source, "done")

    def check_space(self, items: Sequence[_Item]) -> None:
        """Raise before anything is downloaded that would not fit."""
        need, packages = 0, {}
        for item in items:
            target = self.target(item)
            need += item.file.size - (
                min(target.stat().st_blocks * 512, item.file.size) if target.exists() else 0
            )
            for part in item.file.parts:
                packages[part.package] = packages.get(part.package, 0) + part.size
        # pip downloads to a temporary file and copies it: the largest package lies there twice for a moment.
        need += 2 * max(packages.values(), default=0)
        free = shutil.disk_usage(self.store.root).free
        if need > free:
            names = ", ".join(dict.fromkeys(item.spec.id for item in items))
            raise StepAudioError(
                f"the disk is too full for {names}: {_megabytes(need)} are needed in {self.store.root}, "
                f"{_megabytes(free)} are free; free some space, or name a folder on another disk in the "
                "setting models.root"
            )

    def tell(
        self, item: _Item, done: int, source: str, state: Literal["checking", "fetching", "done"] = "fetching"
    ) -> None:
        self.report(Progress(item.spec.id, item.file.name, done, item.file.size, source, state))

    def fail(self, item: _Item, source: str, why: str) -> Literal[False]:
        """Note why a source failed; once a model, as it may fail on each of many files."""
        reasons = self.reasons.setdefault(item.spec.id, {})
        if source not in reasons:
            reasons[source] = why
            self.report(
                Progress(item.spec.id, item.file.name, 0, item.file.size, f"{source}: {why}", "failed")
            )
        return False

    def lament(self, left: Sequence[_Item]) -> str:
        lines, ids = [], list(dict.fromkeys(item.spec.id for item in left))
        for model_id in ids:
            lines.append(f"could not get {model_id} ({_megabytes(self.store.specs[model_id].size)}):")
            lines += [f"  {source}: {why}" for source, why in self.reasons.get(model_id, {}).items()]
        lines.append(f"Where a source can be reached, get it with: stepaudio models pull {' '.join(ids)}")
        lines.append(
            "Or put the files into a folder, name that folder in the setting models.local, and pull again."
        )
        return "\n".join(lines)


# --- the hub ----------------------------------------------------------------------------------------------


class _Hub:
    """A model hub, through its own library's addresses, session, token and cache.

    The library's ``hf_hub_download`` throws an interrupted file away; here it goes on where it stopped.
    Importing the library takes a second, so that is done when a hub is first wanted.
    """

    def __init__(self) -> None:
        import huggingface_hub

        self.library = huggingface_hub
        self.reachable: str | Literal[True] | None = None  # not asked yet; why not; yes

    def cached(self, repository: str, path: str, revision: str) -> Path | None:
        """The file, where the hub's own cache on this machine has it."""
        found = self.library.try_to_load_from_cache(repository, path, revision=revision)
        return Path(found) if isinstance(found, str) else None

    def url(self, repository: str, path: str, revision: str) -> str:
        return self.library.hf_hub_url(repository, path, revision=revision)

    def describe(self, url: str) -> tuple[int, str]:
        """Size and digest of a file, as the hub states them: a sha256, or git's sha1 of a small file.

        Raises:
            _SourceFailed: the hub is out of reach, or has no such file.
        """
        if self.reachable is None:
            self.reachable = self.ask(url)
        if self.reachable is not True:
            raise _SourceFailed(self.reachable)
        try:
            found = self.library.get_hf_file_metadata(url, timeout=HUB_SECONDS)
        except Exception as error:  # of the HTTP library, which is another one in other versions
            raise _SourceFailed(_one_line(error)) from None
        if found.size is None or not found.etag:
            raise _SourceFailed(f"does not say what {url.rpartition('/')[2]} is")
        return found.size, found.etag

    def download(
        self, url: str, size: int, sha256: str, target: Path, advance: Callable[[int], None]
    ) -> None:
        """Fill ``target``, from where it ends, until it is the whole file of ``size`` bytes.

        Raises:
            _SourceFailed: the hub is out of reach, or has another file. What came is kept for the next try.
        """
        if self.reachable is None:
            self.reachable = self.ask(url)
        if self.reachable is not True:
            raise _SourceFailed(self.reachable)
        while True:
            start = target.stat().st_size if target.exists() else 0
            try:
                if start < size:
                    self.stream(url, size, sha256, target, start, advance)
            except Exception as error:
                if isinstance(error, _SourceFailed) or getattr(error, "errno", None) in _FULL:
                    raise
                # The HTTP library's own errors; it is another one in other versions of the hub's library.
                if not target.exists() or target.stat().st_size <= start:
                    self.reachable = f"not reachable any more ({_one_line(error)})"
                    raise _SourceFailed(self.reachable) from None
                continue  # cut off, but it had moved on
            end = target.stat().st_size
            if end >= size:
                if _digest(target, sha256) == sha256:
                    return
                target.unlink()
                if start == 0:
                    raise _SourceFailed("holds other bytes")
            elif end <= start:
                raise _SourceFailed("ends too early")

    def ask(self, url: str) -> str | Literal[True]:
        """Whether the hub answers at all, in a thread, because looking up a name has no time limit."""
        answer: list[str | Literal[True]] = []

        def head() -> None:
            try:
                self.library.get_hf_file_metadata(url, timeout=HUB_SECONDS - 1)
                answer.append(True)
            except self.library.errors.HfHubHTTPError:
                answer.append(True)  # it answers, if not with this file
            except Exception as error:
                answer.append(f"not reachable ({_one_line(error)})")

        thread = threading.Thread(target=head, daemon=True)
        thread.start()
        thread.join(HUB_SECONDS)
        return answer[0] if answer else f"not reachable (no answer within {HUB_SECONDS} s)"

    def stream(
        self, url: str, size: int, sha256: str, target: Path, start: int, advance: Callable[[int], None]
    ) -> None:
        headers = self.library.utils.build_hf_headers()
        headers |= {"accept-encoding": "identity", "range": f"bytes={start}-"}
        session: Any = self.library.utils.get_session()
        with session.stream("GET", url, headers=headers, timeout=10, follow_redirects=True) as response:
            if response.status_code not in (200, 206):
                raise _SourceFailed(f"HTTP status {response.status_code}")
            # A large file's hash stands in the answer, so that another file is not downloaded in vain.
            for answer in (*response.history, response):
                tag = answer.headers.get("x-linked-etag", "").strip('"')
                if _SHA256.fullmatch(tag) and tag != sha256:
                    raise _SourceFailed(f"has another file (its sha256 begins with {tag[:12]})")
            resumed = response.status_code == 206
            done = start if resumed else 0
            with target.open("ab" if resumed else "wb") as out:
                for chunk in response.iter_bytes():  # as they come, so that a cut loses nothing
                    done += len(chunk)
                    if done > size:
                        out.truncate(0)
                        raise _SourceFailed("has a larger file")
                    out.write(chunk)
                    out.flush()
                    advance(done)


# --- packages ---------------------------------------------------------------------------------------------


def pip_download(requirement: str, folder: Path, advance: Callable[[float], None], retries: int = 3) -> Path:
    """Download a wheel with the user's own pip, mirrors and all; nothing of it is run or installed.

    Args:
        requirement: ``name==version``.
        folder: an empty folder, for the wheel and for pip's temporary files.
        advance: called with the fraction that has come, 0..1.
        retries: how often pip tries again where the network fails; with 0 it does not say that it failed.

    Raises:
        ConnectionError: an index could not be reached, and no other has the package.
        _SourceFailed: pip did not get it.
        OSError: the disk is full.
    """
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "raw"]
    command += ["--retries", str(retries), "--dest", str(folder), requirement]
    # TMPDIR: where the space was checked, and where the next pull clears away what a killed one left.
    environment = {**os.environ, "TMPDIR": str(folder)}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                step = re.fullmatch(r"Progress (\d+) of (\d+)", line.strip())
                if step is None:
                    lines.append(line.strip())
                elif int(step[2]) > 100_000:  # not the small metadata file that some indexes send first
                    advance(min(1.0, int(step[1]) / int(step[2])))
        except BaseException:
            process.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if process.returncode == 0 and wheels:
        return wheels[0]
    _raise_if_full(lines)
    if any("connection broken" in line for line in lines):
        raise ConnectionError("pip: a package index cannot be reached")
    if any("No module named pip" in line for line in lines):
        raise _SourceFailed("pip is not in this environment; add it with: python -m ensurepip")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")] or lines
    raise _SourceFailed(f"pip: {_one_line(errors[-1] if errors else 'gave no reason')}")


def npm_pack(requirement: str, folder: Path) -> Path:
    """Download an npm package's archive with the user's own npm; none of its scripts is run.

    Args:
        requirement: ``name@version``.
        folder: an empty folder, for the archive and for npm's cache.

    Raises:
        _SourceFailed: npm is not there, or did not get it.
        OSError: the disk is full.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise _SourceFailed("npm is not on this machine; install Node.js, which brings it")
    command = [npm, "pack", requirement, "--json", "--ignore-scripts", "--pack-destination", str(folder)]
    command += ["--cache", str(folder / "cache"), "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    archives = list(folder.glob("*.tgz"))
    if result.returncode == 0 and archives:
        return archives[0]
    lines = result.stderr.strip().splitlines()
    _raise_if_full(lines)
    try:
        reason = json.loads(result.stdout)["error"]["summary"]
    except (ValueError, KeyError, TypeError):
        reason = lines[-1] if lines else "gave no reason"
    raise _SourceFailed(f"npm: {_one_line(reason)}")


_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
)  # what a bad archive makes readers raise


def _members(archive: Path, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Open the named members of a wheel or an npm archive one after another, in the archive's order."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in dict.fromkeys(wheel.namelist()):
                if name in names:
                    with wheel.open(name) as stream:
                        yield name, stream
    else:
        with tarfile.open(archive, "r|gz") as package:
            for info in package:
                if info.name in names and (stream := package.extractfile(info)) is not None:
                    yield info.name, stream


# --- files and hashes -------------------------------------------------------------------------------------


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path, like: str) -> str:
    """The digest of a file, of the kind that ``like`` is: sha256, or the sha1 by which git names it."""
    if len(like) == 64:
        return _sha256(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _hash(stream: IO[bytes], size: int, copy: IO[bytes] | None = None) -> str | None:
    """The sha256 of the next ``size`` bytes, which also go to ``copy``; ``None`` where there are fewer."""
    digest = hashlib.sha256()
    while size > 0 and (chunk := stream.read(min(CHUNK, size))):
        digest.update(chunk)
        size -= len(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest() if size == 0 else None


def _region_sha256(path: Path, offset: int, size: int) -> str | None:
    """The sha256 of ``size`` bytes from ``offset``; ``None`` where the file does not reach so far."""
    if not path.exists() or path.stat().st_size < offset + size:
        return None
    with path.open("rb") as file:
        file.seek(offset)
        return _hash(file, size)


def _sync(path: Path) -> None:
    """Have a file or a folder safe on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_FileState = Literal["absent", "bad", "unhashed", "good"]


def _states(spec: ModelSpec, folder: Path) -> list[tuple[FileSpec, _FileState]]:
    """Each file of a model as it can be judged without reading it."""
    hashed = _read_hashes(folder)
    states: list[tuple[FileSpec, _FileState]] = []
    for file in spec.files:
        try:
            found = (folder / file.name).stat()
        except OSError:
            states.append((file, "absent"))
            continue
        size, time, sha256 = hashed.get(file.name, (None, None, None))
        if found.st_size != file.size:
            states.append((file, "bad"))
        elif (size, time) != (found.st_size, found.st_mtime_ns):
            states.append((file, "unhashed"))
        else:
            states.append((file, "good" if sha256 == file.sha256 else "bad"))
    return states


def _read_hashes(folder: Path) -> dict[str, tuple[int, int, str]]:
    """File name -> size in bytes, time of change in ns, sha256."""
    try:
        table = json.loads((folder / ".hashed").read_text())
        return {name: (size, time, sha256) for name, (size, time, sha256) in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # absent or damaged: the files are hashed again
        return {}


def _note_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Remember what was hashed, beside the size and time by which it can be told whether that still holds."""
    if not hashes:
        return
    noted = _read_hashes(folder)
    for name, sha256 in hashes.items():
        found = (folder / name).stat()
        noted[name] = (found.st_size, found.st_mtime_ns, sha256)
    new = folder / f".hashed.{os.getpid()}"
    with contextlib.suppress(OSError):  # in a read-only store they are hashed again next time
        new.write_text(json.dumps(noted, indent=1))
        new.replace(folder / ".hashed")


def _seal(folder: Path) -> None:
    """Put a list of files and sizes into a finished folder, all of it safe on the disk."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    (folder / ".whole").write_text(json.dumps(sizes, indent=1))
    for path in (*files, folder / ".whole", folder):
        _sync(path)


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / ".whole").read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


# --- words for errors -------------------------------------------------------------------------------------

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that tells the user what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StepAudioError(
                f"the disk with {root} is full; free some space, or name a folder on another disk in the "
                "setting models.root; the same command then goes on where it stopped"
            ) from error
        if error.errno in _CLOSED:
            raise ConfigError(
                f"cannot write to the model store {root} ({error.strerror}); name a folder of your own in "
                "the setting models.root"
            ) from error
        raise


def _raise_if_full(lines: Iterable[str]) -> None:
    if any(sign in line for line in lines for sign in ("No space left", "Disk quota exceeded", "ENOSPC")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _one_line(error: object) -> str:
    """An error's text as one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"
