"""``bench window``: Step-1 in less memory than its weights take, beside plain loading and Accelerate.

A checkpoint with random weights is written, and each way to load it runs in a process of its own: it reads a
prompt, then writes the likeliest tokens one by one. All ways must write the same. Before each the files are
dropped from the system's cache, so that the first token comes from disk.

*Peak* is the most memory that the process held, less what the program held before it loaded (PyTorch and the
rest, once it had computed something); pages of mapped files count. *File pages* is what of the checkpoint lay
in the system's cache at the end: memory, too, though the system takes it back when it must. A way that leans
on it is quick while the whole checkpoint fits in there. The rows "no cache" show it where it does not: the
files are dropped before every token, which is what a cache does by itself when files larger than it are read
in a circle.

Linux alone says these things. Accelerate comes with the extra ``stepaudio[bench]``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepaudio.config import Config
from stepaudio.core.errors import BackendError, ConfigError

if TYPE_CHECKING:
    import torch
    from rich.console import RenderableType

PROMPT, TOKENS = 32, 5
CEILINGS = (0.25, 0.5)
"""Shares of the checkpoint's size that may be taken."""
SHARD = 500_000_000
"""Bytes of a file; more only where one layer is more."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the network; see ``Step1Config``. 2.0 GB as it stands: layers have two thirds of TTS-3B's width."""

    layers: int = 16
    hidden: int = 2048
    inner: int = 8192
    heads: int = 16
    groups: int = 4
    vocabulary: int = 8192


def read(sizes: str | None, ceilings: str | None) -> dict[str, Any]:
    """Arguments of ``run`` as they are written in a command: "layers=8,hidden=512", "0.25,0.5".

    Raises:
        ConfigError: there is no such size, or what is given is no number.
    """
    given: dict[str, Any] = {}
    try:
        if sizes is not None:
            pairs = [pair.partition("=") for pair in sizes.split(",")]
            given["sizes"] = Sizes(**{name.strip(): int(value) for name, _, value in pairs})
        if ceilings is not None:
            given["ceilings"] = [float(share) for share in ceilings.split(",")]
    except (ValueError, TypeError):
        raise ConfigError(
            f"write --sizes as {','.join(f'{name}={size}' for name, size in asdict(Sizes()).items())}, and "
            f"--ceilings as {','.join(map(str, CEILINGS))}"
        ) from None
    if not all(share > 0 for share in given.get("ceilings", CEILINGS)):
        raise ConfigError("--ceilings are shares of the weights: more than 0")
    return given


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
    sizes: Sizes | None = None,
    ceilings: Sequence[float] = CEILINGS,
) -> dict[str, Any]:
    """Measure.

    Args:
        config: not used.
        data: not used.
        limit: tokens that are written, two at least; None: 5.
        on_progress: called with work done and all work.
        sizes: of the network.
        ceilings: shares of the checkpoint's size.

    Raises:
        ConfigError: the extra ``stepaudio[step]`` is not installed, the system is not Linux, or a ceiling is
            too low for these sizes.
        BackendError: a process failed.
    """
    if not sys.platform.startswith("linux"):
        raise ConfigError("what memory a process holds is measured on Linux alone: run `bench window` there")
    if not importlib.util.find_spec("torch") or not importlib.util.find_spec("transformers"):
        raise ConfigError("Step-1 is not installed; get it with: pip install 'stepaudio[step]'")
    tokens = TOKENS if limit is None else max(2, limit)
    jobs: list[dict[str, Any]] = [{"way": "plain"}]
    jobs += [{"way": "window", "share": share} for share in ceilings]
    accelerate = importlib.util.find_spec("accelerate") is not None
    if accelerate:
        for uncached in (False, True):
            jobs += [{"way": "accelerate", "share": share, "uncached": uncached} for share in ceilings]
    with tempfile.TemporaryDirectory(prefix="stepaudio-bench-") as folder:
        files = write(Path(folder), sizes or Sizes())
        on_progress(1, len(jobs) + 1)
        size = sum(file.stat().st_size for file in files)
        rows = []
        for job in jobs:
            _uncache(files)
            job["ceiling"] = None if "share" not in job else round(job["share"] * size)
            row = _in_process(job | {"folder": folder, "tokens": tokens})
            rows.append(job | row | {"file_pages": _cached(files)})
            on_progress(len(rows) + 1, len(jobs) + 1)
    written = [row.pop("written") for row in rows]
    return {
        "sizes": asdict(sizes or Sizes()),
        "checkpoint_bytes": size,
        "prompt": PROMPT,
        "tokens": tokens,
        "accelerate": accelerate,
        "rows": [row | {"same": words == written[0]} for row, words in zip(rows, written, strict=True)],
    }


def write(folder: Path, sizes: Sizes, shard: int = SHARD) -> list[Path]:
    """Write a checkpoint with random weights (bfloat16, seeded): ``config.json``, files, and their index.

    Returns:
        The files that hold tensors, on disk and not only in the system's cache.
    """
    import torch
    from safetensors.torch import save_file

    from stepaudio.llm.step1 import folder as folders

    config = {
        "architectures": [folders.ARCHITECTURE],
        "model_type": "step1",
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_attention_groups": sizes.groups,
        "torch_dtype": "bfloat16",
    }
    (folder / folders.CONFIG).write_text(json.dumps(config), encoding="utf-8")
    random = torch.Generator().manual_seed(0)
    part: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}
    files: list[Path] = []

    def save() -> None:
        files.append(folder / f"model-{len(files) + 1:05}.safetensors")
        save_file(part, files[-1], metadata={"format": "pt"})
        places.update(dict.fromkeys(part, files[-1].name))
        part.clear()
        with files[-1].open("rb") as file:
            os.fsync(file.fileno())  # what is not on disk cannot be dropped from the cache

    for name, shape in folders.shapes(folder, config).items():
        if sum(tensor.nbytes for tensor in part.values()) >= shard:
            save()
        part[name] = _random(name, shape, random)
    save()
    index = {"metadata": {}, "weight_map": places}
    (folder / folders.INDEX).write_text(json.dumps(index), encoding="utf-8")
    return files


def _random(name: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    """Weights with which every layer matters to what is written."""
    import torch

    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    spread = 1.0 if "embed" in name else shape[1] ** -0.5
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, spread, generator=random)


def _in_process(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job in a process of its own."""
    command = [sys.executable, "-m", __name__, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        kind = ConfigError if "ConfigError: " in why else BackendError
        raise kind(f"{job['way']} with {_gb(job['ceiling'])} GB failed: {why.rpartition('Error: ')[2]}")
    return json.loads(lines[-1])


def _work(job: dict[str, Any]) -> dict[str, Any]:
    """Load, read a prompt, write; what that took. Runs in a process of its own."""
    from stepaudio.llm.step1 import network, window

    _write(_toy(), 3)  # PyTorch gets all that it computes with
    before = _held("VmRSS")
    folder, ceiling = Path(job["folder"]), job["ceiling"]
    files = sorted(folder.glob("*.safetensors"))
    begun = time.perf_counter()
    match job["way"]:
        case "plain":
            model: Any = network.load(folder)
        case "window":
            model = window.load(folder, ceiling, PROMPT + job["tokens"])
        case _:
            network.register()
            # Accelerate places layers by their weights alone: it gets what our plan leaves for weights.
            config = network.Step1Config.from_pretrained(folder)
            model = _accelerate(folder, ceiling - window.working_bytes(config, 2, PROMPT + job["tokens"]))
    loaded = time.perf_counter()
    written, times = _write(model, job["tokens"], files if job.get("uncached") else ())
    return {
        "load_s": round(loaded - begun, 2),
        "first_token_s": round(times[0], 2),
        "tokens_per_s": round(len(times[1:]) / sum(times[1:]), 3),
        "program_bytes": before,
        "peak_bytes": _held("VmHWM") - before,
        "read_bytes": model.plan.read if job["way"] == "window" else None,
        "written": written,
    }


def _write(model: Any, tokens: int, uncached: Sequence[Path] = ()) -> tuple[list[int], list[float]]:
    """The likeliest tokens after a fixed prompt, and the seconds that each took.

    Args:
        uncached: files that are dropped from the system's cache before each token.
    """
    import torch

    ids, cache = torch.arange(PROMPT)[None] * 7 % model.config.vocab_size, None
    written, times = [], []
    with torch.inference_mode():
        for _ in range(tokens):
            _uncache(uncached)
            start = time.perf_counter()
            answer = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids = answer.logits[:, -1:].argmax(-1)
            cache = answer["cache" if "cache" in answer else "past_key_values"]
            times.append(time.perf_counter() - start)
            written.append(int(ids))
    return written, times


def _toy() -> Any:
    """A network of 1 MB."""
    from stepaudio.llm.step1.network import Step1Config, Step1ForCausalLM

    config = Step1Config(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_attention_groups=2,
    )
    return Step1ForCausalLM(config).bfloat16().eval()


def _accelerate(folder: Path, ceiling: int) -> Any:
    """As its documentation loads what does not fit: ``device_map="auto"`` and a limit for the CPU."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map="auto",
        max_memory={"cpu": ceiling},
        offload_folder=str(folder / "offload"),
    ).eval()


def _held(what: str) -> int:
    """Bytes of memory of this process: "VmRSS" now, "VmHWM" at most (proc(5))."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith(what))


def _uncache(files: Sequence[Path]) -> None:
    """Drop files from the system's cache, but for pages that are mapped."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cached(files: Sequence[Path]) -> int:
    """Bytes of files that lie in the system's cache (mincore(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    total = 0
    for path in files:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
            place = (ctypes.c_char * len(mapped)).from_buffer(mapped)
            failed = libc.mincore(
                ctypes.c_void_p(ctypes.addressof(place)), ctypes.c_size_t(len(mapped)), pages
            )
            del place
            if failed:
                raise BackendError(
                    f"the system does not say what it caches: {os.strerror(ctypes.get_errno())}"
                )
            total += mmap.PAGESIZE * sum(page & 1 for page in pages)
    return total


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table."""
    from rich import box
    from rich.table import Table

    table = Table("way", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (
        "ceiling",
        "peak",
        "file pages",
        "read a token",
        "loaded",
        "first token",
        "tokens/s",
        "same",
    ):
        table.add_column(title, justify="right")
    for row in result["rows"]:
        name = {"plain": "plain loading", "window": "window", "accelerate": "Accelerate"}[row["way"]]
        table.add_row(
            name + (", no cache" if row.get("uncached") else ""),
            *(_gb(row[key]) for key in ("ceiling", "peak_bytes", "file_pages", "read_bytes")),
            f"{row['load_s']:.1f} s",
            f"{row['first_token_s']:.1f} s",
            f"{row['tokens_per_s']:.2f}",
            "yes" if row["same"] else "NO",
        )
    table.caption = (
        f"a checkpoint of {_gb(result['checkpoint_bytes'])} GB in bfloat16; {result['prompt']} tokens read, "
        f"{result['tokens']} written; GB; peak without the program"
    )
    if not result["accelerate"]:
        table.caption += "; Accelerate is not installed: pip install 'stepaudio[bench]'"
    return table


def _gb(count: int | None) -> str:
    return "" if count is None else f"{count / 1e9:.2f}"


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))
