"""The page of ``bench voice``: every case to listen to, its spectrogram with the pitch, its numbers.

One html file that needs nothing else: audio and pictures are in it. Pictures are PNG files of sixteen colours
(Portable Network Graphics, W3C 2003), written here, so that nothing that draws has to be installed.
"""

from __future__ import annotations

import base64
import html
import struct
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stepaudio.bench import measures
from stepaudio.bench.voice import Case, Plot, shown
from stepaudio.core.audio import AudioChunk, resample
from stepaudio.files import write_audio, write_text

GROUP_BUDGET = 1_500_000
"""Bytes of audio and pictures that a group may have, so that ten groups make a page of 15 MB; cases beyond it
are numbers only, and it is said."""


class Report:
    """Collects cases; each is encoded at once, so that its audio need not be kept."""

    def __init__(self) -> None:
        self._cards: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        self._mute: dict[str, int] = {}

    def add(self, case: Case) -> None:
        """Take a case into the page."""
        media = ""
        if case.audio is not None and len(case.audio.samples):
            media = _media(case, case.audio)
            if self._sizes.get(case.group, 0) + len(media) > GROUP_BUDGET:
                media, self._mute[case.group] = "", self._mute.get(case.group, 0) + 1
        self._sizes[case.group] = self._sizes.get(case.group, 0) + len(media)
        self._cards.setdefault(case.group, []).append(_card(case, media))

    def write(self, path: Path, titles: Mapping[str, str]) -> None:
        """Write the page, whole or not at all.

        Args:
            path: ends in ``.html``.
            titles: of the groups, in the order in which they are shown.
        """
        parts = [_HEAD]
        for group, title in titles.items():
            cards = self._cards.get(group, [])
            mute = self._mute.get(group, 0)
            note = f"<p>{mute} cases are numbers only: the page would grow too large.</p>" if mute else ""
            empty = "" if cards else "<p>Nothing was measured.</p>"
            parts.append(f'<h2 id="{group}">{html.escape(title)}</h2>{note}{empty}{"".join(cards)}')
        links = " ".join(f'<a href="#{group}">{html.escape(title)}</a>' for group, title in titles.items())
        write_text(path, "\n".join([parts[0], f"<nav>{links}</nav>", *parts[1:], "</html>\n"]))


_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Voices: what they were asked, and what they did</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
nav a { margin-right: 1em; }
section { border-top: 1px solid #8886; padding: .8rem 0; }
h3 { margin: 0; font-size: 1rem; }
p { margin: .2rem 0; }
img { width: 100%; image-rendering: pixelated; border-radius: 4px; }
audio { width: 100%; height: 2.2rem; margin: .3rem 0; }
table { border-collapse: collapse; font-size: .9em; }
td { padding: .05rem 1.2rem .05rem 0; }
.met { color: #1a7f37; } .missed { color: #cf222e; font-weight: 600; }
</style>
<h1>Voices: what they were asked, and what they did</h1>
<p>Made by <code>stepaudio bench voice --report</code>. Each picture: above, the spectrogram from 70 Hz to
8 kHz; below, the pitch. <b style="color:#ff9500">Orange</b> is what was asked,
<b style="color:#00a3c7">blue</b> what was measured in the audio. The voices are synthetic.</p>"""


def _card(case: Case, media: str) -> str:
    rows = []
    for name, value in case.figures.items():
        mark = ""
        if name in case.targets:
            how, bound = case.targets[name]
            word = "met" if case.met(name) else "missed"
            mark = f'<td>{html.escape(how)} {bound:g}</td><td class="{word}">{word}</td>'
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{html.escape(shown(value))}</td>{mark}</tr>")
    text = f"<p>{html.escape(case.text)}</p>" if case.text else ""
    title = html.escape(case.name)
    return f"<section><h3>{title}</h3>{text}{media}<table>{''.join(rows)}</table></section>"


def _media(case: Case, audio: AudioChunk) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.mp3"
        write_audio(file, [audio])
        sound = base64.b64encode(file.read_bytes()).decode()
    image = base64.b64encode(picture(audio, case.plot or Plot())).decode()
    name = html.escape(case.name, quote=True)
    return (
        f'<img alt="Spectrogram and pitch of {name}" src="data:image/png;base64,{image}">'
        f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio>'
    )


# --- pictures ---------------------------------------------------------------------------------------------

_GREYS = 12  # colours 0 to 11: from silent to loud
_ASKED, _REALISED, _GRID, _PAPER = 12, 13, 14, 15
_COLOURS = [(round(24 + 190 * (i / 11) ** 1.1),) * 3 for i in range(_GREYS)]
_COLOURS += [(255, 149, 0), (0, 190, 232), (70, 70, 70), (24, 24, 24)]

_WIDTH = (300, 1000)  # pixels, 100 a second within them
_SPECTRUM, _PITCH = 150, 110  # pixels of height
_LOW_HZ, _HIGH_HZ = 70.0, 8000.0
_WINDOW = 1024  # samples at 16 kHz (64 ms): harmonics are seen apart
_LOUD_DB = 60.0  # from the darkest to the brightest grey


def picture(audio: AudioChunk, plot: Plot) -> bytes:
    """A PNG picture: the spectrogram on a logarithmic scale, and below it the pitch, asked and realised."""
    width = int(np.clip(100 * audio.seconds, *_WIDTH))
    realised = measures.pitch_track(audio) if plot.realised is None else plot.realised
    curves = [(_REALISED, realised, measures.STEP_S, 1.0)]
    if plot.asked is not None:
        curves.insert(0, (_ASKED, plot.asked, plot.asked_step_s, measures.VOICED))
    canvas = np.concatenate([_spectrogram(audio, width), np.full((_PITCH, width), _PAPER, np.uint8)])
    lines = [(c, _columns(values, step, audio.seconds, width, least)) for c, values, step, least in curves]
    voiced = np.concatenate([line[line > 0] for _, line in lines])
    if len(voiced):
        low, high = np.log2(np.percentile(voiced, [1, 99]))
        low, high = low - 0.15, max(high, low + 0.5) + 0.15
        for octave in np.arange(np.ceil(6 * low), 6 * high) / 6:  # a line every whole tone
            canvas[_SPECTRUM + _PITCH - 1 - int((octave - low) / (high - low) * (_PITCH - 1)), ::4] = _GRID
        for colour, line in lines:
            _draw(canvas[_SPECTRUM:], line, low, high, colour, 2 if colour == _ASKED else 1)
            _draw(canvas[:_SPECTRUM], line, np.log2(_LOW_HZ), np.log2(_HIGH_HZ), colour, 1)
    return png(canvas, _COLOURS)


def _spectrogram(audio: AudioChunk, width: int) -> np.ndarray:
    samples = np.pad(resample(audio, 16_000).samples, _WINDOW // 2)
    begins = np.linspace(0, max(0, len(samples) - _WINDOW), width).astype(int)
    samples = np.pad(samples, (0, max(0, _WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[begins]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))) ** 2
    hz = np.geomspace(_HIGH_HZ, _LOW_HZ, _SPECTRUM)
    bins = np.clip(np.round(hz / 16_000 * _WINDOW).astype(int), 1, power.shape[1] - 1)
    db = 10 * np.log10(np.maximum(power[:, bins].T, 1e-10))
    grey = (db - db.max()) / _LOUD_DB + 1
    return np.clip(np.round(grey * (_GREYS - 1)), 0, _GREYS - 1).astype(np.uint8)


def _columns(values: np.ndarray, step_s: float, seconds: float, width: int, least: float) -> np.ndarray:
    """A curve's value at every column of the picture; 0: none."""
    if not len(values):
        return np.zeros(width)
    at = ((np.arange(width) + 0.5) / width * seconds / step_s).astype(int)
    inside = at < len(values)
    found = np.where(inside, values[np.minimum(at, len(values) - 1)], 0)
    return np.where(found >= least, found, 0)


def _draw(part: np.ndarray, line: np.ndarray, low: float, high: float, colour: int, thick: int) -> None:
    """Draw a curve (Hz by column, 0: none) into a part of the canvas whose rows go from high to low pitch."""
    height = len(part)
    octaves = np.log2(np.maximum(line, 1))
    rows = np.round((high - octaves) / (high - low) * (height - 1)).astype(int)
    before = None
    for column in np.flatnonzero(line > 0):
        row = rows[column]
        joins = before is not None and line[column - 1] > 0 and abs(row - before) < height // 4
        top, bottom = (min(row, before), max(row, before)) if joins else (row, row)
        part[max(0, top) : max(0, bottom + thick), column] = colour
        before = row


def png(pixels: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    """A PNG file of at most 16 colours.

    Args:
        pixels: (height, width) uint8, indices into ``colours``.
        colours: red, green, blue, 0 to 255.
    """
    height, width = pixels.shape
    even = np.pad(pixels, ((0, 0), (0, width % 2)))
    packed = even[:, ::2] << 4 | even[:, 1::2]
    rows = np.pad(packed, ((0, 0), (1, 0)))  # each row begins with the kind of its filter: none
    palette = b"".join(bytes(colour) for colour in colours)
    header = struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    made = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)
