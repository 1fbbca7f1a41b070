"""Numbers of our Step-Audio networks beside those of the reference networks.

``python -m tests.parity FOLDER`` runs every case under a folder (which may be one case itself) and prints a
line for each thing compared: ``NAME max_error tolerance ok|FAIL``. The exit status is 1 when anything fails,
2 when there is no case.

A case is a folder with ``config.json``, tensors in ``inputs``, ``outputs`` and ``weights.safetensors``, or
lists in JSON. What it is a case *of* is read off its contents, never off its name. The kinds live in
``tests/parity_*.py``; each of these modules has a list ``KINDS``. Tolerances are those that the README of a
case states; they are constants beside the check that uses them.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "shared" / "parity"
"""Where the public cases lie, for those who have them."""


@dataclass(frozen=True)
class Case:
    """A folder of reference numbers."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.json``; empty where there is none."""
        return self.json("config.json") if self.has("config.json") else {}

    @property
    def names(self) -> list[str]:
        """The single cases, which their tensors begin with (``A`` in ``A.wav``), in order."""
        cases = self.config.get("cases", {})
        return list(cases) if isinstance(cases, dict) else []

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / name).is_file()

    def json(self, name: str) -> Any:
        """A file of JSON."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """All tensors of ``NAME.safetensors``; none where the file is missing."""
        return _tensors(self.folder / f"{name}.safetensors")

    @cached_property
    def keys(self) -> frozenset[str]:
        """The names of all tensors, for recognising a case; single cases without their letter."""
        files = (self.folder / f"{name}.safetensors" for name in ("inputs", "outputs", "weights", "model"))
        found = {key for file in files if file.is_file() for key in _names(file)}
        return frozenset(found | {key.partition(".")[2] for key in found if key.split(".")[0] in self.names})


@cache
def _tensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path) if path.is_file() else {}


def _names(path: Path) -> list[str]:
    """Names only: NumPy has no type for bfloat16, which weights may be in."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return list(file.keys())


@dataclass(frozen=True)
class Result:
    """One comparison: the largest absolute error beside what is allowed."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # not so for NaN

    def line(self, folder: str) -> str:
        verdict = "ok" if self.ok else "FAIL"
        return f"{folder}/{self.name} {self.error:.3g} {self.tolerance:.3g} {verdict}"


def compare(name: str, ours: Any, reference: Any, tolerance: float = 0.0) -> Result:
    """The largest absolute difference; infinite where shapes differ or ours holds what is no number."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    if ours.shape != reference.shape:
        print(f"{name}: shape {ours.shape}, reference {reference.shape}", file=sys.stderr)
        return Result(name, float("inf"), tolerance)
    if not ours.size:
        return Result(name, 0.0, tolerance)
    error = np.abs(ours.astype(np.float64) - reference.astype(np.float64))
    return Result(name, float("inf") if np.isnan(error).any() else float(error.max()), tolerance)


def same(name: str, ours: object, reference: object) -> Result:
    """Equality of what is not numbers: error 0 or 1, tolerance 0."""
    return Result(name, float(ours != reference), 0.0)


@dataclass(frozen=True)
class Kind:
    """A kind of case.

    Attributes:
        name: what it is, for messages.
        recognises: whether a case is one, by its config and the names of its tensors.
        check: runs our network on it; yields a ``Result`` for each thing compared.
    """

    name: str
    recognises: Callable[[Case], bool]
    check: Callable[[Case], Iterable[Result]]


@cache
def kinds() -> tuple[Kind, ...]:
    """Those of all ``tests/parity_*.py``."""
    import tests

    modules = [m.name for m in pkgutil.iter_modules(tests.__path__) if m.name.startswith("parity_")]
    return tuple(kind for name in modules for kind in importlib.import_module(f"tests.{name}").KINDS)


def find(folder: Path) -> list[Case]:
    """Every case at or under a folder, by path."""
    folders = {path.parent for pattern in ("config.json", "*.safetensors") for path in folder.rglob(pattern)}
    return [Case(path) for path in sorted(folders)]


def run(case: Case) -> Iterator[Result]:
    """All comparisons of a case; one failed ``Result`` where it is of no known kind or breaks off."""
    try:
        found = [kind for kind in kinds() if kind.recognises(case)]
        if len(found) != 1:
            print(f"{case.folder}: kinds that fit: {[k.name for k in found] or 'none'}", file=sys.stderr)
            yield Result("kind", float("inf"), 0.0)
            return
        empty = True
        for result in found[0].check(case):
            empty = False
            yield result
        if empty:
            yield Result("nothing-compared", float("inf"), 0.0)
    except Exception:  # one case that breaks must not hide the others
        traceback.print_exc()
        yield Result("raised", float("inf"), 0.0)


def main(arguments: list[str]) -> int:
    """The command line; see the top of this file."""
    if len(arguments) != 1:
        print("usage: python -m tests.parity FOLDER", file=sys.stderr)
        return 2
    root = Path(arguments[0]).resolve()
    cases = find(root)
    if not cases:
        print(f"no case under {root}", file=sys.stderr)
        return 2
    good = True
    for case in cases:
        inside = case.folder.relative_to(root).as_posix()
        for result in run(case):
            print(result.line(case.folder.name if inside == "." else inside), flush=True)
            good &= result.ok
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
