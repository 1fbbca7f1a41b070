"""Step-1 under a ceiling of memory: layers that fit stay, the others slide through a window from disk.

In the spirit of TPI-LLM (arXiv 2410.00531, section 3.3): while one layer works, a thread reads the next that
is not in memory. Tokens visit the layers in a circle, for which keeping a fixed set is the best that a cache
can do (one that drops the oldest would never hit); the set is spread evenly, so that the disk works all the
time and two buffers are enough. A token then takes about as long as reading what slides, or as computing,
whichever is longer.

Files are read past the page cache where the system can (O_DIRECT), so that memory holds nothing twice. Of an
embedding that is not tied only the rows in use are read. It runs on the CPU, in the type that is stored.
``plan`` decides, ``Window`` reads, ``load`` puts them together.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.llm.step1 import folder as folders
from stepaudio.llm.step1.configuration import Step1Config
from stepaudio.llm.step1.network import BLOCK, Step1ForCausalLM, Step1Layer

BUFFERS = 2
"""Of the window: one is worked with, one is read into."""
PAGE = 4096
"""Bytes that places, lengths and memory of direct reads are multiples of, on disks of any sector."""
PIECE = 32 * 2**20
"""Bytes of one read; closing waits for no more."""
NEAR = 16 * PAGE
"""Tensors that are no farther apart in a file are read at once."""

_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_NORM = "model.norm.weight"


# Where tensors are


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor within a file: its bytes are ``begin`` to ``end``."""

    name: str
    file: Path
    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbours in a file, read at once from a page's start to ``end``, to place ``at`` of a buffer."""

    file: Path
    begin: int
    end: int
    at: int
    tensors: tuple[Stored, ...]

    @property
    def room(self) -> int:
        """Bytes of the buffer: whole pages."""
        return _pages(self.end - self.begin)


def stored(found: folders.Folder) -> dict[str, Stored]:
    """Every tensor of a checkpoint, by name.

    Raises:
        ConfigError: see ``folder.read_head``; or tensors are of a type that nothing here works with, of
            several, or lie where they cannot be used without being moved.
    """
    tensors = {}
    for file in found.files:
        head = folders.read_head(file)
        start = file.stat().st_size - max((entry["data_offsets"][1] for entry in head.values()), default=0)
        for name, entry in head.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            tensors[name] = Stored(name, file, begin, end, entry["dtype"], tuple(entry["shape"]))
    kinds = sorted({tensor.dtype for tensor in tensors.values()})
    if len(kinds) > 1 or not set(kinds) <= set(_TYPES):
        raise ConfigError(
            f"{found.path} stores tensors as {', '.join(kinds)}; under a ceiling of memory all must be "
            f"{', '.join(_TYPES)} alike: write the checkpoint anew, or set no ceiling"
        )
    size = _TYPES[kinds[0]].itemsize
    for tensor in tensors.values():
        if tensor.begin % size:
            raise ConfigError(
                f"{tensor.name} in {tensor.file} begins amid a number: write the file anew with safetensors "
                "0.3 or newer, or set no ceiling"
            )
    return tensors


def spans(tensors: Sequence[Stored]) -> tuple[Span, ...]:
    """Reads that bring these tensors into one buffer."""
    groups: list[list[Stored]] = []
    for tensor in sorted(tensors, key=lambda t: (t.file, t.begin)):
        last = groups[-1][-1] if groups else None
        if last is not None and last.file == tensor.file and tensor.begin - last.end <= NEAR:
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
    found: list[Span] = []
    at = 0
    for group in groups:
        begin = group[0].begin // PAGE * PAGE
        found.append(Span(group[0].file, begin, group[-1].end, at, tuple(group)))
        at += found[-1].room
    return tuple(found)


def room(reads: Sequence[Span]) -> int:
    """Bytes of a buffer that takes these reads."""
    return sum(span.room for span in reads)


def _pages(count: int) -> int:
    return -(-count // PAGE) * PAGE


# Which layers stay


@dataclass(frozen=True, slots=True)
class Plan:
    """What stays in memory and what slides.

    Attributes:
        sliding: layers that are read for every token, in order; the others stay.
        weights: bytes of memory that weights take, buffers of the window among them.
        work: bytes that keys, values and what is computed may take.
        read: bytes that are read from disk for every token.
    """

    sliding: tuple[int, ...]
    weights: int
    work: int
    read: int


def plan(layers: int, layer: int, others: int, work: int, ceiling: int | None) -> Plan:
    """Keep as many layers as fit, spread evenly.

    Args:
        layers: how many there are.
        layer: bytes of one.
        others: bytes of what always stays.
        work: see ``Plan``.
        ceiling: bytes in all; None: there is none.

    Raises:
        ConfigError: not even the window fits; the message says what would.
    """
    fit = layers if ceiling is None else (ceiling - others - work) // layer
    if fit >= layers:
        return Plan((), others + layers * layer, work, 0)
    if fit < BUFFERS:
        least = others + work + BUFFERS * layer
        raise ConfigError(
            f"the language model needs {least / 1e9:.2f} GB of memory at least ({BUFFERS} of its {layers} "
            f"layers, and {(others + work) / 1e9:.2f} GB besides), and may take {(ceiling or 0) / 1e9:.2f} "
            "GB: raise llm.memory_gb, or lower llm.context_tokens"
        )
    moving = layers - (fit - BUFFERS)
    sliding = tuple(i for i in range(layers) if (i + 1) * moving // layers > i * moving // layers)
    return Plan(sliding, others + fit * layer, work, moving * layer)


def working_bytes(
    config: Step1Config, size: int, context: int, talks: int = 1, at_once: int | None = None
) -> int:
    """Bytes that talks take besides weights.

    Keys and values, of one layer twice (they grow by being copied); what one layer computes; a block of
    biases (float32, and as it is used); logits of one token; and the largest matrix once more, which
    PyTorch orders anew for products with many rows.

    Args:
        size: bytes of a number.
        context: tokens of a talk.
        talks: whose keys and values are kept.
        at_once: tokens that are computed at once; None: a whole talk.
    """
    at_once = context if at_once is None else min(at_once, context)
    hidden, inner = config.hidden_size, config.intermediate_size
    shared = hidden // config.num_attention_heads * config.num_attention_groups
    cache = 2 * (config.num_hidden_layers * talks + 1) * shared * context * size
    computed = at_once * ((3 * inner + 6 * hidden) * size + hidden * 8)  # norms are float32
    biases = min(BLOCK, config.num_attention_heads * at_once * context) * (8 + size)
    matrix = inner * hidden * size
    return cache + computed + biases + matrix + config.vocab_size * (size + 8)


# Reading


class _Stopped(Exception):
    """The window was closed during a read."""


class Shard:
    """A file, open for reading past the page cache.

    Attributes:
        direct: whether the system can do that for this file; else what was read is dropped from the cache.

    Raises:
        BackendError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named():
            self._file, self.direct = _open(path)

    def read(self, begin: int, end: int, into: memoryview, stopped: Callable[[], bool]) -> None:
        """Bytes ``begin`` to ``end``, all of them.

        Args:
            begin: a multiple of ``PAGE``.
            into: as many bytes as asked for, rounded up to pages; begins on a page.
            stopped: asked before every piece.

        Raises:
            BackendError: the system's error, or the file has become shorter; it names the file.
        """
        at = begin
        while at < end:
            if stopped():
                raise _Stopped
            with self._named():
                self._file.seek(at)
                count = self._file.readinto(into[at - begin :][:PIECE]) or 0
            if at + count < end:
                count -= count % PAGE  # direct reads begin on a page
            if count <= 0:
                raise BackendError(f"{self.path} has become shorter: fetch it again, and load anew")
            at += count
        if not self.direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackendError(f"{self.path} cannot be read: {error.strerror}; is the disk well?") from error


def _open(path: Path) -> tuple[Any, bool]:
    """The file, unbuffered, and whether it is read past the page cache."""
    flag = getattr(os, "O_DIRECT", 0)
    if flag:
        file = None
        try:
            file = os.fdopen(os.open(path, os.O_RDONLY | flag), "rb", buffering=0)
            with mmap.mmap(-1, PAGE) as page, memoryview(page) as view:
                file.readinto(view)  # some file systems refuse only now
            return file, True
        except OSError as error:
            if file is not None:
                file.close()
            if error.errno != errno.EINVAL:
                raise
    return path.open("rb", buffering=0), False


class Buffer:
    """Memory that begins on a page, and the tensors that lie in it once they were read.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        self._memory = mmap.mmap(-1, max(size, PAGE), **private)

    def fill(
        self, reads: Sequence[Span], shards: Mapping[Path, Shard], stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Read. An error leaves it of no use until it is filled again.

        Raises:
            BackendError: see ``Shard.read``.
        """
        view = memoryview(self._memory)
        for span in reads:
            shards[span.file].read(span.begin, span.end, view[span.at : span.at + span.room], stopped)

    def tensors(self, reads: Sequence[Span]) -> dict[str, Tensor]:
        """What ``fill`` read, by name: views of this memory."""
        return {
            tensor.name: torch.frombuffer(
                self._memory,
                dtype=_TYPES[tensor.dtype],
                count=(tensor.end - tensor.begin) // _TYPES[tensor.dtype].itemsize,
                offset=span.at + tensor.begin - span.begin,
            ).view(tensor.shape)
            for span in reads
            for tensor in span.tensors
        }


class Window:
    """Layers that pass through a few buffers, in a circle; a thread reads ahead.

    A layer is handed out when all of it was read. One caller at a time.

    Args:
        layers: what is read for each.
        shards: the files, open.
    """

    def __init__(self, layers: Sequence[Sequence[Span]], shards: Mapping[Path, Shard]) -> None:
        self._layers, self._shards = layers, shards
        size = max(map(room, layers))
        self._free = [Buffer(size) for _ in range(BUFFERS)]
        self._ready: dict[int, Buffer] = {}
        self._reading: int | None = None
        self._ahead = 0  # what the thread reads next
        self._turn = 0  # what is asked for next, if no pass is broken off
        self._failed: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read_ahead, name="step1-window", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def layer(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Tensors of a layer, which are there until the context ends.

        Args:
            number: place in the circle.

        Raises:
            BackendError: its file cannot be read (the next call tries again), or the window was closed.
        """
        with self._changed:
            if number != self._turn:
                self._turn_to(number)
            self._changed.wait_for(lambda: self._closed or self._failed or number in self._ready)
            if self._closed:
                raise BackendError("the language model was closed: load it again")
            if number not in self._ready:
                assert self._failed is not None
                self._turn = -1  # whoever asks next begins the circle anew
                raise self._failed
            buffer = self._ready.pop(number)
            self._turn = (number + 1) % len(self._layers)
        try:
            yield buffer.tensors(self._layers[number])
        finally:
            with self._changed:
                self._free.append(buffer)
                self._changed.notify_all()

    def close(self) -> None:
        """Stop reading, and return when nothing reads any more. Files stay open."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._free.clear()
        self._ready.clear()

    def _turn_to(self, number: int) -> None:
        """Begin the circle anew from here: what was read ahead is dropped, what is being read will be."""
        self._free += self._ready.values()
        self._ready.clear()
        self._reading = self._failed = None
        self._turn = self._ahead = number
        self._changed.notify_all()

    def _read_ahead(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._free and self._failed is None))
                if self._closed:
                    return
                number, buffer = self._ahead, self._free.pop()
                self._reading = number
                self._ahead = (number + 1) % len(self._layers)
            failed: Exception | None = None
            try:
                buffer.fill(self._layers[number], self._shards, lambda: self._closed)
            except Exception as error:  # whoever waits for the layer raises it
                failed = error
            with self._changed:
                wanted, self._reading = self._reading == number, None
                if failed is None and wanted:
                    self._ready[number] = buffer
                else:
                    self._free.append(buffer)
                    self._failed = failed if wanted else None
                self._changed.notify_all()


class WindowedStep1(Step1ForCausalLM):
    """A Step-1 of which some layers slide. Made by ``load``; one pass at a time, close it at the end.

    Attributes:
        plan: what stays and what slides.
    """

    plan: Plan

    @functools.wraps(Step1ForCausalLM.forward)
    def forward(self, *args: Any, **more: Any) -> Any:
        """See ``Step1ForCausalLM.forward``.

        Raises:
            BackendError: a file cannot be read any more, or the network was closed.
        """
        with self._pass:
            return super().forward(*args, **more)

    def close(self) -> None:
        """Stop reading ahead and close the files; what is being computed fails."""
        self._close()

    def _slide(self, plan: Plan, window: Window | None, files: contextlib.ExitStack) -> None:
        self.plan = plan
        self._pass = threading.Lock()

        def close() -> None:
            if window is not None:
                window.close()
            files.close()

        self._close = weakref.finalize(self, close)  # also when it is forgotten, and at exit
        for place, number in enumerate(plan.sliding):
            layer = self.model.layers[number]
            assert window is not None and isinstance(layer, Step1Layer)
            self.model.layers[number] = _SlidingLayer(layer, window, place)


class _SlidingLayer(nn.Module):
    """A layer whose weights are there only while it works."""

    def __init__(self, layer: Step1Layer, window: Window, place: int) -> None:
        super().__init__()
        self._layer = (layer,)  # in a tuple: its weights are none, and must not count as this module's
        self._window, self._place = window, place

    def forward(self, *args: Any) -> Tensor:
        """See ``Step1Layer.forward``."""
        with self._window.layer(self._place) as weights:
            weights = {_within(name): tensor for name, tensor in weights.items()}
            return torch.func.functional_call(self._layer[0], weights, args, strict=True)


class _Rows(nn.Module):
    """An embedding of which only the rows in use are read."""

    def __init__(self, table: Stored, files: contextlib.ExitStack) -> None:
        super().__init__()
        self._table, self._type = table, _TYPES[table.dtype]
        try:
            self._file = files.enter_context(table.file.open("rb", buffering=0))
        except OSError as error:
            raise BackendError(f"{table.file} cannot be read: {error.strerror}") from error
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def forward(self, ids: Tensor) -> Tensor:
        """(…) -> (…, hidden)."""
        rows, size = self._table.shape
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < rows:
            raise IndexError(f"token ids go from 0 to {rows - 1}")
        different, places = ids.unique(return_inverse=True)
        found = torch.empty(len(different), size * self._type.itemsize, dtype=torch.uint8)
        for row, into in zip(different.tolist(), found.numpy(), strict=True):
            self._read(self._table.begin + row * len(into), memoryview(into))
        return F.embedding(places, found.view(self._type))

    def _read(self, begin: int, into: memoryview) -> None:
        try:
            self._file.seek(begin)
            count = self._file.readinto(into)
        except (OSError, ValueError) as error:  # ValueError: closed
            raise BackendError(f"{self._table.file} cannot be read: {error}; load the model again") from error
        if count != len(into):
            raise BackendError(f"{self._table.file} has become shorter: fetch it again, and load anew")


def load(
    path: Path,
    ceiling: int | None = None,
    context: int = 4096,
    *,
    talks: int = 1,
    at_once: int | None = None,
) -> WindowedStep1:
    """The network of a checkpoint folder, which takes no more memory than it may.

    Args:
        path: see ``network.load``.
        ceiling: bytes for weights, keys, values and what is computed; the program itself (some 0.3 GB with
            PyTorch) comes on top. None: all layers stay.
        context, talks, at_once: what there must be memory for, see ``working_bytes``.

    Raises:
        ModelMissing: a file is missing, or a Git LFS pointer lies in its place.
        ConfigError: a file is damaged, or the folder is of another model; a tensor is missing, surplus,
            misshapen or cannot be used as it lies; or the ceiling is too low.
        BackendError: a file cannot be read.
    """
    found = folders.look(path)
    tensors = stored(found)
    kind: Any = _TYPES[tensors[_NORM].dtype]
    settings = {k: v for k, v in found.config.items() if k not in ("auto_map", "architectures")}
    config = Step1Config(**{**settings, "tie_word_embeddings": found.tied, "dtype": kind})
    layers = [
        spans([tensor for name, tensor in tensors.items() if name.startswith(f"model.layers.{i}.")])
        for i in range(config.num_hidden_layers)
    ]
    others = spans([tensors[_NORM], tensors[folders.EMBEDDING if found.tied else folders.HEAD]])
    work = working_bytes(config, kind.itemsize, context, talks, at_once)
    chosen = plan(len(layers), max(map(room, layers)), room(others), work, ceiling)

    with torch.device("meta"):
        network = WindowedStep1(config).to(kind)
    with contextlib.ExitStack() as files:
        shards = {file: files.enter_context(contextlib.closing(Shard(file))) for file in found.files}
        resident = _read(others, shards)
        network.model.norm.load_state_dict({"weight": resident[_NORM]}, assign=True)
        if found.tied:
            network.model.embed_tokens.load_state_dict({"weight": resident[folders.EMBEDDING]}, assign=True)
            network.lm_head.load_state_dict({"weight": resident[folders.EMBEDDING]}, assign=True)
        else:
            network.lm_head.load_state_dict({"weight": resident[folders.HEAD]}, assign=True)
            network.model.embed_tokens = _Rows(tensors[folders.EMBEDDING], files)  # pyright: ignore
        for number, reads in enumerate(layers):
            if number not in chosen.sliding:
                weights = {_within(name): tensor for name, tensor in _read(reads, shards).items()}
                network.model.layers[number].load_state_dict(weights, assign=True)
        window = Window([layers[i] for i in chosen.sliding], shards) if chosen.sliding else None
        network._slide(chosen, window, files.pop_all())
    return network.eval()


def _read(reads: Sequence[Span], shards: Mapping[Path, Shard]) -> dict[str, Tensor]:
    """Tensors, in memory of their own."""
    buffer = Buffer(room(reads))
    buffer.fill(reads, shards)
    return buffer.tensors(reads)


def _within(name: str) -> str:
    """The name of a tensor within its layer."""
    return name.split(".", 3)[3]
