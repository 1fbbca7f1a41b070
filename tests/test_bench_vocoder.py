"""``bench vocoder``: the table, and what it must show (one utterance, a few look-aheads)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the step profile's networks need torch: pip install stepaudio[step]")

from rich.console import Console

from stepaudio.bench import vocoder
from stepaudio.config import Config


def test_error_falls_with_look_ahead_and_joins_are_like_the_rest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vocoder, "AHEAD", (0, 10, 50))
    monkeypatch.setattr(vocoder, "GROUPS", 30)
    steps = []
    result = vocoder.run(
        Config(), Path(), limit=1, on_progress=lambda done, total: steps.append((done, total))
    )
    none, default, much = result["rows"]
    assert none["mel_error"] > default["mel_error"] > much["mel_error"] > 0
    assert default["first_audio_s"] <= vocoder.FIRST_AUDIO_S
    assert default["step_at_joins"] < 1.15 * default["step_elsewhere"]
    assert none["step_at_joins"] > 1.2 * none["step_elsewhere"]  # the figure does see a seam
    assert default["largest_at_joins"] <= default["largest_elsewhere"]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(vocoder.render(result))
    assert "10 codes *" in console.export_text()
