"""A voice from a recording: the timbre of Kokoro that is most like it, found by gradient.

Kokoro's style says in 128 numbers how a voice sounds. Its 54 voices are points among which those numbers make
sense, so the search moves along their principal components, and no farther from their middle than the voices
themselves are. What it climbs is the likeness that a speaker encoder hears in sentences spoken with the style
(the decoder and the encoder are torch: ``decoder``), while the long-term spectrum is drawn to that of the
recording and the words to where they were. Then melody and tempo are scaled, and what is left of
the spectrum's difference is evened by a filter.

What it gives is resemblance. The style knows nothing of an accent, of habits, of how a voice moves; and an
encoder that is climbed is no judge any more of how like the voice is to people. ``bench voice`` has figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from stepaudio.core.audio import AudioChunk
from stepaudio.tts.decoder import HOP, PITCH, SOURCE, Decoder
from stepaudio.tts.graph import session
from stepaudio.tts.prosody import FRAME, PHRASE_ENDS, RATE, whole_frames
from stepaudio.tts.timbre import FAINT, Melody, bands, equaliser, melody_of, spectrum_of
from stepaudio.tts.voicebank import TIMBRE, Character
from stepaudio.tts.voices import KOKORO

if TYPE_CHECKING:
    from stepaudio.tts.kokoro import Kokoro

STEPS = 140
"""Of the search; 1.2 s of one core's work each."""
RATE_OF_CHANGE = 0.15
"""Of a step at first, in standard deviations of a component; it falls to 0 over the last 40 % of steps."""
COMPONENTS = 40
"""Principal components that are searched; the 54 voices have 53."""
FARTHEST = 7.2
"""From the middle of the voices, in standard deviations; their own distances are 3.7 to 7.2."""
WINDOW = 66
"""Frames that are spoken in a step: the 1.6 s that the encoder hears at once, and a little."""
WINDOWS = 16
"""Different ones."""

_TOO_FAR, _SPECTRUM, _WORDS = 0.05, 0.01, 0.02  # weights of what the search gives up likeness for
_STEPS = FRAME // HOP  # of the source in a frame
_LEAD = 3  # frames of silence before a sentence
_ROW = 60  # phonemes, of whose style the components are
_SPEECH = {"female": "af_heart", "male": "am_michael"}  # who speaks most clearly
_SPEECH_ZH = {"female": "zf_xiaobei", "male": "zm_yunyang"}
_DRAWN_TO_HEARD = 1.21
"""Seconds that are drawn for a second that is heard as speech: the last sound before a sign takes in silence
(1.208 of am_michael and of af_heart, four sentences each)."""
_MOST_SYMBOLS = 400  # that a tempo is taken from
_SPREADS, _TEMPI = (0.7, 1.5), (0.85, 1.2)  # of what the voice draws by itself

SENTENCES = {
    "en": (
        "The quick brown fox jumps over the lazy dog, and nobody in the village seems to mind.",
        "She had your dark suit in greasy wash water all year.",
        "Please call Stella, and ask her to bring these things with her from the store.",
        "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack.",
        "We could choose a good book about the joy of measuring usual things.",
        "Why would the young father go out and pay for another boat?",
    ),
    "zh": (
        "今天的天气很好，我们一起去公园散步吧。",
        "他从书架上拿下一本旧书，坐在窗边慢慢地读。",
        "请你把这封信交给住在三楼的王老师。",
        "春天来了，院子里的桃花和杏花都开了。",
        "小孩子们在河边捉鱼，玩得非常高兴。",
        "这家饭馆的牛肉面又便宜又好吃。",
    ),
}
"""What is spoken while searching: all sounds of English; many of Mandarin's."""


@dataclass(frozen=True, slots=True, eq=False)
class Clone:
    """What came of it.

    Attributes:
        character: how Kokoro speaks with the voice; not measured yet.
        nearest: the stock voice that the search began from.
        gender: of the voice, by its pitch.
        stock_likeness: of the nearest stock voice to the recording, as it speaks by itself.
        likeness: of what the search spoke at last; of new sentences it is a little less.
    """

    character: Character
    nearest: str
    gender: str
    stock_likeness: float
    likeness: float


class Cloner:
    """Finds timbres. Not for threads to share.

    Args:
        kokoro: speaks.
        model: folder of its model.
        derived: folder that ``decoder.write_source`` filled.
        encoder: (samples at a rate, the rate) -> embedding of their first 1.6 s, with gradients.
        symbols_of: written sentences as phonemes of Kokoro's vocabulary.
    """

    def __init__(
        self,
        kokoro: Kokoro,
        model: Path,
        derived: Path,
        encoder: Callable[[torch.Tensor, int], torch.Tensor],
        symbols_of: Callable[[str], str],
    ) -> None:
        self._kokoro, self._encoder, self._symbols_of = kokoro, encoder, symbols_of
        self._decoder = Decoder(model)
        self._source = session(derived / SOURCE, threads=1)

    def clone(
        self,
        recording: AudioChunk,
        embedding: np.ndarray,
        stock: dict[str, np.ndarray],
        *,
        said: str,
        language: str,
        steps: int = STEPS,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Clone:
        """Find the voice of a recording.

        Args:
            recording: at 16 kHz; 10 to 60 s of one person's speech and little else.
            embedding: of the recording.
            stock: embeddings of Kokoro's voices, by name.
            said: the words of the recording, for its tempo.
            language: of the recording, "en" or "zh".
            steps: of the search.
            on_progress: called with steps done and steps in all.
        """
        melody = melody_of(recording)
        gender = "male" if melody.median_hz < 160 else "female"
        nearest = max(stock, key=lambda voice: float(stock[voice] @ embedding))
        base = self._spoken_as(nearest, gender, language, melody, said)
        found = self._search(base, recording, embedding, language, steps, on_progress)
        return Clone(found[0], nearest, gender, float(stock[nearest] @ embedding), found[1])

    def _spoken_as(
        self,
        nearest: str,
        gender: str,
        language: str,
        melody: Melody,
        said: str,
    ) -> Character:
        """The nearest timbre with a clear voice's speech, its melody and tempo scaled to the recording's."""
        clear = (_SPEECH if language == "en" else _SPEECH_ZH)[gender]
        table = self._kokoro.stock(nearest).copy()
        table[..., TIMBRE:] = self._kokoro.stock(clear)[..., TIMBRE:]
        native = next(voice.language for voice in KOKORO if voice.id == clear)
        plain = Character(table, native)
        pitches = []
        for sentence in SENTENCES[language]:
            draft = self._kokoro.draft_as(self._symbols_of(sentence), plain)
            pitches.append(draft.contours(whole_frames(draft.lengths))[0])
        own = Melody.of(np.concatenate(pitches))
        tempo = 1.0
        if whole := self._symbols_of(said):
            symbols = whole[:_MOST_SYMBOLS]
            share = len(symbols) / len(whole)
            lengths = self._kokoro.draft_as(symbols, plain).lengths[1:-1]
            sounds = np.array([symbol not in PHRASE_ENDS for symbol in symbols])
            drawn_s = lengths[sounds].sum() * FRAME / RATE
            tempo = float(np.clip(drawn_s / _DRAWN_TO_HEARD / (melody.speech_s * share), *_TEMPI))
        return replace(
            plain,
            centre_hz=own.median_hz,
            shift=12 * math.log2(melody.median_hz / own.median_hz),
            spread=float(np.clip(melody.spread / own.spread, *_SPREADS)),
            tempo=tempo,
        )

    def _search(
        self,
        base: Character,
        recording: AudioChunk,
        embedding: np.ndarray,
        language: str,
        steps: int,
        on_progress: Callable[[int, int], None],
    ) -> tuple[Character, float]:
        wanted = spectrum_of(recording.samples, recording.rate)
        tables = np.stack([self._kokoro.stock(voice.id)[_ROW, 0, :TIMBRE] for voice in KOKORO])
        middle, directions = components(tables, COMPONENTS)
        began = torch.from_numpy(
            np.linalg.lstsq(directions.T, base.table[_ROW, 0, :TIMBRE] - middle, rcond=None)[0].astype(
                np.float32
            )
        )
        basis, target = torch.from_numpy(directions), torch.from_numpy(embedding)
        spectrum = torch.from_numpy(wanted)
        windows = list(self._windows(base, language))
        with torch.no_grad():
            before = [_bands(self._speak(window, window.style)) for window in windows]
        moved = torch.zeros(COMPONENTS, requires_grad=True)
        optimiser = torch.optim.Adam([moved], lr=RATE_OF_CHANGE, betas=(0.9, 0.97))
        late = torch.zeros_like(target)
        even = np.zeros(0, np.float32)
        for step in range(steps):
            if step == steps // 2:  # what the search has not brought is evened; the rest of it counts on that
                even = self._equaliser(windows, moved.detach() @ basis, wanted)
            for group in optimiser.param_groups:
                group["lr"] = RATE_OF_CHANGE * min(1.0, (steps - step) / (0.4 * steps))
            chosen = step % len(windows)
            window = windows[chosen]
            samples = _filtered(self._speak(window, window.style + moved @ basis), even)
            heard = self._encoder(samples, RATE)
            likeness = heard @ target
            mel = _bands(samples)
            loss = 1 - likeness + _TOO_FAR * torch.relu((began + moved).norm() - FARTHEST) ** 2
            loss = loss + _SPECTRUM * _spectral(mel, spectrum) + _WORDS * _verbal(mel, before[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step >= steps - len(windows):
                late += heard.detach()
            on_progress(step + 1, steps)
        table = base.table.copy()
        table[..., :TIMBRE] += (moved.detach() @ basis).numpy()
        return replace(base, table=table, equaliser=even), float(late @ target / late.norm())

    def _equaliser(self, windows: list[_Window], change: torch.Tensor, wanted: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            spoken = torch.cat([self._speak(window, window.style + change) for window in windows])
        return equaliser(wanted, spectrum_of(spoken.numpy(), RATE))

    def _windows(self, base: Character, language: str) -> Iterator[_Window]:
        """What is spoken while searching, evenly from all sentences."""
        sentences = SENTENCES[language]
        for number, sentence in enumerate(sentences):
            symbols = self._symbols_of(sentence)
            draft = self._kokoro.draft_as(symbols, base)
            lengths = whole_frames(draft.lengths)
            lengths[0] = min(lengths[0], _LEAD)
            pitch, energy = draft.contours(lengths)
            text = np.repeat(draft.text, lengths, axis=2)
            (source,) = self._source.run(None, {PITCH: pitch[None]})
            style = torch.from_numpy(draft.style[:, :TIMBRE].copy())
            count = (number + 1) * WINDOWS // len(sentences) - number * WINDOWS // len(sentences)
            for begin in np.linspace(0, max(0, int(lengths.sum()) - WINDOW), count).astype(int):
                end = begin + WINDOW
                yield _Window(
                    torch.from_numpy(text[:, :, begin:end].copy()),
                    torch.from_numpy(pitch[None, 2 * begin : 2 * end].copy()),
                    torch.from_numpy(energy[None, 2 * begin : 2 * end].copy()),
                    torch.from_numpy(source[:, :, _STEPS * begin : _STEPS * end + 1].copy()),
                    style,
                )

    def _speak(self, window: _Window, style: torch.Tensor) -> torch.Tensor:
        return self._decoder(window.text, window.pitch, window.energy, window.source, style)


class _Window(NamedTuple):
    """A part of a sentence, up to the decoder; see ``Decoder``."""

    text: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor
    source: torch.Tensor
    style: torch.Tensor


def components(tables: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of voices.

    Args:
        tables: (voices, n), a style of each.
        count: of components.

    Returns:
        Their middle, (n,), and (count, n) float32: as far along each as the voices are, in the sense of a
        standard deviation.
    """
    middle = tables.mean(axis=0)
    _, deviations, directions = np.linalg.svd(tables - middle, full_matrices=False)
    scaled = directions[:count] * (deviations[:count, None] / math.sqrt(len(tables) - 1))
    return middle, scaled.astype(np.float32)


def _filtered(samples: torch.Tensor, taps: np.ndarray) -> torch.Tensor:
    """As ``Kokoro`` filters its audio; the taps are symmetric, so that correlation is convolution."""
    if not len(taps):
        return samples
    kernel = torch.from_numpy(taps)[None, None]
    return functional.conv1d(samples[None, None], kernel, padding=len(taps) // 2)[0, 0]


def _bands(samples: torch.Tensor) -> torch.Tensor:
    """dB of bands, (frames, BANDS), as ``spectrum_of`` has them before it averages."""
    size = round(0.025 * RATE)
    window = torch.hann_window(size, periodic=False)
    spectrum = torch.stft(samples, size, size // 2, window=window, center=False, return_complex=True)
    power = torch.from_numpy(bands(RATE, size)) @ (spectrum.real**2 + spectrum.imag**2)
    return 10 * torch.log10(power.T + 1e-10)


def _heard(decibels: torch.Tensor) -> torch.Tensor:
    """Which frames are no pause."""
    power = (10 ** (decibels.detach() / 10)).sum(dim=1)
    return power > torch.quantile(power, 0.95) * 10 ** (FAINT / 10)


def _spectral(decibels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far the mean spectrum is from another, dB."""
    mean = decibels[_heard(decibels)].mean(dim=0)
    return (mean - mean.mean() - wanted).abs().mean()


def _verbal(decibels: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """How far the spectra's course in time is from another, whatever their mean is, dB."""
    heard = _heard(before)
    now, then = decibels[heard], before[heard]
    return ((now - now.mean(dim=0)) - (then - then.mean(dim=0))).abs().mean()
