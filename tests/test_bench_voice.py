"""The benchmark of voices: cases, groups, the table, and the page with its pictures."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from stepaudio import config
from stepaudio.bench import report, voice
from stepaudio.bench.voice import Case, Plot
from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError, ConfigError


def tone(hz: float, seconds: float) -> AudioChunk:
    t = np.arange(int(seconds * 24_000)) / 24_000
    return AudioChunk((0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32), 24_000)


def test_what_is_met():
    figures = {"a": 2.0, "b": 5.0, "c": 0.0, "d": float("nan"), "e": 1.0}
    case = Case(
        "x", "speed", None, figures, {"a": ("<=", 2), "b": (">=", 5.1), "c": ("==", 0), "d": ("<=", 9)}
    )
    assert [case.met(name) for name in figures] == [True, False, True, False, None]


@pytest.mark.parametrize("figures", [{}, {"a": "four"}])
def test_a_target_needs_a_figure(figures):
    with pytest.raises(ValueError, match="not measured"):
        Case("x", "speed", None, figures, {"a": ("<=", 1)})


def test_figures_as_they_are_shown():
    assert [voice.shown(value) for value in (0.123456, 12345.6, "word", float("nan"), None)] == [
        "0.1235",
        "12,346",
        "word",
        "none",
        "none",
    ]
    assert voice.plain(float("nan")) is None and voice.plain(1.23456) == 1.235


def decoded(image: bytes) -> tuple[np.ndarray, bytes]:
    """Pixels and palette of a PNG picture of four bits a pixel whose rows are not filtered."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(image):
        (length,) = struct.unpack_from(">I", image, at)
        kind, body = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", image, at + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height, bits, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (bits, colour) == (4, 3)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    pixels = np.stack([rows[:, 1:] >> 4, rows[:, 1:] & 15], axis=2).reshape(height, -1)
    return pixels[:, :width], chunks[b"PLTE"]


def test_png_holds_its_pixels():
    pixels = np.arange(21).reshape(3, 7).astype(np.uint8) % 16
    found, palette = decoded(report.png(pixels, [(1, 2, 3), (4, 5, 6)]))
    assert (found == pixels).all() and palette == bytes([1, 2, 3, 4, 5, 6])


def test_png_is_read_by_others():
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = (np.arange(48).reshape(6, 8) % 2).astype(np.uint8)
    opened = image.open(io.BytesIO(report.png(pixels, [(0, 0, 0), (255, 255, 255)])))
    assert (np.array(opened.convert("L")) == 255 * pixels).all()


def test_a_picture_has_the_tone_and_both_curves():
    realised = np.full(400, 440.0)
    asked = np.concatenate([np.full(80, 220.0), np.zeros(80)])
    pixels, _ = decoded(report.picture(tone(1000, 2.0), Plot(asked, realised)))
    assert pixels.shape == (report._SPECTRUM + report._PITCH, 300)
    spectrum = pixels[: report._SPECTRUM]
    # 1 kHz on a scale from 8 kHz (row 0) to 70 Hz (last row), spaced evenly by octaves.
    row = np.log(8000 / 1000) / np.log(8000 / 70) * (report._SPECTRUM - 1)
    greys = np.where(spectrum[:, 100] < report._GREYS, spectrum[:, 100], 0)
    assert abs(int(greys.argmax()) - row) <= 2
    assert (pixels[:, :140] == report._ASKED).sum(axis=0).min() >= 2  # in both halves
    assert not (pixels[:, 160:] == report._ASKED).any()
    assert (pixels == report._REALISED).any(axis=0).all()
    lower = pixels[report._SPECTRUM :]
    assert np.argmax(lower[:, 50] == report._REALISED) < np.argmax(lower[:, 50] == report._ASKED)


@pytest.fixture
def groups(monkeypatch):
    def good(engine, data, limit, step):
        for n in range(limit or 2):
            step()
            yield Case(
                f"<tone {n}>", "good", tone(300, 0.4), {"error": 1.0 + n, "note": "a & b"}, text="la <la>"
            )
        yield Case("all", "good", None, {"error": 1.5, "of [all]": "58 2"}, {"error": ("<=", 1)})

    def bad(engine, data, limit, step):
        yield Case("one", "bad", None, {"x": 1.0}, {"x": (">=", 1)})
        raise AudioError("there is no such song; name another")

    monkeypatch.setattr(voice, "GROUPS", {"good": ("m.good", "Good ones"), "bad": ("m.bad", "Bad ones")})
    monkeypatch.setattr(voice, "_function", {"m.good": good, "m.bad": bad}.__getitem__)


def settings() -> config.Config:
    return config.load(None, os.environ, {}).config


def test_groups_are_measured_and_one_that_fails_says_why(groups, tmp_path: Path):
    pytest.importorskip("pyworld", reason="the extra bench is not installed")
    seen = []
    page = tmp_path / "page.html"
    result = voice.run(
        settings(), tmp_path, report=page, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, None), (2, None)]
    assert [case["name"] for case in result["groups"]["good"]["cases"]] == ["<tone 0>", "<tone 1>", "all"]
    assert result["groups"]["good"]["cases"][2]["met"] == {"error": False}
    assert result["groups"]["bad"]["error"] == "there is no such song; name another"

    console = Console(file=io.StringIO(), width=120)
    console.print(voice.render(result))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of 2 targets met" in printed and "missed" in printed and "no such song" in printed
    assert "of [all]" in printed and "58 2" in printed  # told of the whole group, without a target
    assert "note" not in printed

    written = page.read_text("utf-8")
    assert "&lt;tone 0&gt;" in written and "<tone" not in written and "a &amp; b" in written
    assert written.count("<audio") == 2 and "&lt;= 1" in written
    (sound, *_) = re.findall(r"data:audio/mpeg;base64,([^\"]+)", written)
    assert len(base64.b64decode(sound)) > 500
    assert not re.search(r"(src|href)=\"(?!data:|#)", written)  # it needs nothing else


def test_only_some_groups(groups, tmp_path):
    assert list(voice.run(settings(), tmp_path, only=["bad"])["groups"]) == ["bad"]
    with pytest.raises(ConfigError, match=r"god.*good"):
        voice.run(settings(), tmp_path, only=["god"])


def test_a_page_does_not_grow_without_end(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "GROUP_BUDGET", 12_000)
    page = report.Report()
    for n in range(5):
        plot = Plot(realised=np.zeros(100))
        page.add(Case(str(n), "speed", tone(200, 0.5), {"x": 1.0}, plot=plot))
    page.write(tmp_path / "p.html", {"speed": "Speed", "pitch": "Pitch"})
    written = (tmp_path / "p.html").read_text("utf-8")
    assert written.count("<section>") == 5 and 0 < written.count("<audio") < 5
    assert "cases are numbers only" in written and "Nothing was measured" in written


def test_every_group_is_a_function_of_a_module_here():
    for where, title in voice.GROUPS.values():
        module, name = where.split(".")
        assert module.startswith("voice_") and name.isidentifier() and title
