"""A real voice, really killed: the result is the same, and nothing is said twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stepaudio.files import read_audio

ROOT = Path(__file__).resolve().parents[2]
SAY = "from stepaudio.cli import main; sys.exit(main(sys.argv[2:]))"
DIES = """
import os, signal, sys
from stepaudio.tts.hibari import Hibari
said, speak = 0, Hibari.synthesize
def dying(self, clause, voice):
    global said
    said += 1
    if said > int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return speak(self, clause, voice)
Hibari.synthesize = dying
"""
SENTENCES = ["The harbour was quiet.", "She counted the boats twice.", "Then the rain began, and all ran."]
PLAIN = ["--voice", "hibari", "--set", "tts.watermark=false"]


def say(folder: Path, *arguments: str, dies_after: int = 1_000_000) -> subprocess.CompletedProcess[str]:
    code = DIES + SAY
    return subprocess.run(
        [sys.executable, "-c", code, str(dies_after), "say", *arguments, *PLAIN],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def voice(model_dir):
    model_dir("hibari")


def test_a_list_of_jobs_killed_twice(tmp_path):
    lines = [{"text": f"Number {i}. {SENTENCES[i % 3]}", "file": f"{i:02}.wav"} for i in range(12)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert say(tmp_path, "-f", "list.jsonl", "-o", "whole").returncode == 0
    for dies_after in (6, 9):
        assert say(tmp_path, "-f", "list.jsonl", "-o", "out", dies_after=dies_after).returncode == -9
    there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.wav")}
    assert 2 <= len(there) < 12
    ended = say(tmp_path, "-f", "list.jsonl", "-o", "out")
    assert ended.returncode == 0 and "done before" in ended.stdout
    names = [f"{i:02}.wav" for i in range(12)]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.wav")) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = [n for n, made in there.items() if (tmp_path / "out" / n).stat().st_mtime_ns != made]
    assert len(again) <= 2  # whole at the kill, but not in the journal yet: one a thread at most


def test_a_book_killed_twice(tmp_path):
    paragraphs = [f"Part {i}. " + " ".join(SENTENCES * 4) for i in range(8)]
    text = "# One\n\n" + "\n\n".join(paragraphs[:4]) + "\n\n# Two\n\n" + "\n\n".join(paragraphs[4:])
    (tmp_path / "book.md").write_text(text)
    assert say(tmp_path, "-f", "book.md", "-o", "whole.flac", "--captions", "json").returncode == 0
    for dies_after in (80, 20):  # a part has some 26 clauses, and two are made at once
        assert say(tmp_path, "-f", "book.md", "-o", "out.flac", dies_after=dies_after).returncode == -9
    ended = say(tmp_path, "-f", "book.md", "-o", "out.flac", "--captions", "json")
    assert ended.returncode == 0 and "done before" in ended.stdout
    whole, out = (read_audio(tmp_path / f"{name}.flac", None) for name in ("whole", "out"))
    np.testing.assert_array_equal(whole.samples, out.samples)
    captions = json.loads((tmp_path / "out.json").read_text())
    assert captions == json.loads((tmp_path / "whole.json").read_text())
    assert sum("Then the rain began" in segment["text"] for segment in captions["segments"]) == 32
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob(".*"))
