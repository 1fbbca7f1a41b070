"""The reference networks' numbers, where they lie beside the checkout; and the harness itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")
pytest.importorskip("safetensors", reason="the cases are safetensors: pip install stepaudio[step]")

from tests.parity import SHARED, Case, Result, compare, find, main, run

CASES = find(SHARED) if SHARED.is_dir() else []


@pytest.mark.skipif(not CASES, reason="no reference numbers in ../shared/parity")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder.name)
def test_our_networks_give_the_numbers_of_the_reference(case: Case):
    failed = [result.line(case.folder.name) for result in run(case) if not result.ok]
    assert not failed


def test_a_difference_a_shape_and_a_nan_are_seen():
    assert compare("x", [1.0, 2.0], [1.0, 2.25], 0.5) == Result("x", 0.25, 0.5)
    assert compare("x", [1.0, 2.0], [1.0, 2.25], 0.5).ok
    assert not compare("x", [1.0, 2.0], [1.0, 2.25], 0.2).ok
    assert not compare("x", [1.0], [1.0, 2.0], 9.0).ok
    assert not compare("x", [np.nan], [1.0], 9.0).ok


def test_no_case_and_an_unknown_case_are_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 2
    case = tmp_path / "some" / "thing"
    case.mkdir(parents=True)
    (case / "config.json").write_text(json.dumps({"cases": {"A": {}}}))
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == "some/thing/kind inf 0 FAIL\n"
