"""``bench window``: every way in a process of its own, at a size of 50 MB; ceilings are kept."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="Step-1 needs torch: pip install stepaudio[step]")
pytest.importorskip("transformers", reason="Step-1 needs transformers: pip install stepaudio[step]")
if not sys.platform.startswith("linux"):
    pytest.skip("memory is measured on Linux alone", allow_module_level=True)

from rich.console import Console

from stepaudio.bench import window
from stepaudio.config import Config
from stepaudio.core.errors import ConfigError
from stepaudio.llm.step1 import folder as folders

SIZES = window.Sizes(layers=12, hidden=512, inner=1024, heads=8, groups=2, vocabulary=1024)


def test_ceilings_are_kept_and_all_ways_write_the_same():
    steps = []
    result = window.run(
        Config(),
        Path(),
        limit=3,
        sizes=SIZES,
        ceilings=(0.6,),
        on_progress=lambda done, total: steps.append((done, total)),
    )
    plain, ours, *others = result["rows"]
    assert all(row["same"] for row in result["rows"])
    assert plain["peak_bytes"] > result["checkpoint_bytes"] > ours["ceiling"]
    assert ours["peak_bytes"] <= ours["ceiling"] + SLACK
    assert 0 < ours["read_bytes"] < result["checkpoint_bytes"]
    assert ours["file_pages"] < result["checkpoint_bytes"] / 2 < plain["file_pages"]
    assert [row["uncached"] for row in others] == [False, True] * result["accelerate"]
    assert steps[-1][0] == steps[-1][1] == len(result["rows"]) + 1
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(window.render(result))
    shown = console.export_text()
    assert "plain loading" in shown and "NO" not in shown


SLACK = 8_000_000
"""Bytes that PyTorch itself takes when it first computes; a ceiling of gigabytes has room for them."""


def test_a_ceiling_that_is_too_low_says_so():
    with pytest.raises(ConfigError, match=r"window with 0\.00 GB failed: the language model needs"):
        window.run(Config(), Path(), limit=2, sizes=SIZES, ceilings=(0.01,))


def test_the_checkpoint_is_whole_and_of_several_files(tmp_path: Path):
    files = window.write(tmp_path, SIZES, shard=20_000_000)
    assert len(files) > 1
    found = folders.look(tmp_path)
    assert set(found.files) == set(files) and not found.tied
    assert window._cached(files) <= sum(file.stat().st_size for file in files) + 4096 * len(files)


def test_commands():
    assert window.read(None, None) == {}
    assert window.read("layers=3,inner=64", "0.5,1") == {
        "sizes": window.Sizes(layers=3, inner=64),
        "ceilings": [0.5, 1.0],
    }
    for sizes, ceilings in (("depth=3", None), ("layers", None), (None, "half"), (None, "0")):
        with pytest.raises(ConfigError, match="--ceilings"):
            window.read(sizes, ceilings)
