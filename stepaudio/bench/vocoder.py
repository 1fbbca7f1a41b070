"""``bench vocoder``: what Step's voice loses when it speaks before it knows the whole utterance.

The published weights are not needed: the networks have their architecture, a smaller size and random weights
(one and a half times as large as PyTorch draws them, so that distant codes matter), and start from no noise,
in which errors would drown. A figure says how the *method* behaves, not how the voice sounds.

For each look-ahead: the distance of the mel from that of one window with everything, relative to its own
spread, and the spectral step from frame to frame of the audio, at joins and elsewhere. A seam would be a step
at a join that is larger than those elsewhere; without look-ahead there are such.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.config import Config
from stepaudio.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

AHEAD = (0, 5, 10, 15, 25, 50)
"""Codes of look-ahead that are tried; a second has 41.67."""
GROUPS = 42
"""Of each utterance: 5 s."""
UTTERANCES = 2
"""Each with weights of its own."""
WIDER = 1.5
"""What the random weights of the flow are multiplied with."""
FIRST_AUDIO_S = 0.6
"""Codes that must be enough for the first audio, in seconds."""
NEAR = 3
"""Frames (of 11.6 ms) around a join that count as the join: the fade's, and the spectrum's window."""


def run(
    config: Config,
    data: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure on ``limit`` random utterances.

    Raises:
        ConfigError: torch is not installed.
    """
    try:
        from stepaudio.tts.step.decoder import Chunking
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; get it with: pip install 'stepaudio[step]'"
        ) from error

    utterances = limit or UTTERANCES
    total = utterances * len(AHEAD)
    rows: list[dict[str, Any]] = []
    parts = [_Utterance(seed) for seed in range(utterances)]
    for ahead in AHEAD:
        chunking = Chunking(ahead=ahead)
        found = []
        for utterance in parts:
            found.append(utterance.measure(chunking))
            on_progress(len(rows) * utterances + len(found), total)
        error, join, inside, worst_join, worst_inside = np.array(found).T
        rows.append(
            {
                "ahead_codes": ahead,
                "first_audio_s": round((chunking.chunks[0] + ahead) * 0.024, 3),
                "mel_error": round(float(error.mean()), 4),
                "step_at_joins": round(float(join.mean()), 3),
                "step_elsewhere": round(float(inside.mean()), 3),
                "largest_at_joins": round(float(worst_join.max()), 3),
                "largest_elsewhere": round(float(worst_inside.max()), 3),
            }
        )
    return {"utterances": utterances, "default_ahead": Chunking().ahead, "rows": rows}


class _Utterance:
    """Random networks, a random voice and random codes."""

    def __init__(self, seed: int) -> None:
        import torch

        from stepaudio.tts.step.decoder import Chunking, Decoder
        from stepaudio.tts.step.flow import Flow, FlowConfig, Prompt
        from stepaudio.tts.step.vocoder import HiFT, HiFTConfig

        torch.manual_seed(seed)
        shape = FlowConfig(
            input_size=64,
            encoder_size=64,
            encoder_heads=4,
            encoder_hidden=128,
            encoder_layers=3,
            channels=(64, 64),
            head_dim=16,
            decoder_heads=4,
            blocks=1,
            middle=3,
            temperature=0.0,
        )
        flow, hift = Flow(shape).eval(), HiFT(HiFTConfig(base=64, pitch=32)).eval()
        with torch.no_grad():
            for weight in flow.parameters():
                if weight.dim() > 1:
                    weight *= WIDER
            hift.f0_predictor.classifier.weight *= 300  # a voice: about 150 Hz, and moving
            hift.f0_predictor.classifier.bias.fill_(150)
        random = np.random.default_rng(seed)
        self.codes, prompt = _codes(random, GROUPS), _codes(random, 10)
        mel = torch.randn(shape.frames(len(prompt)), shape.mel) / 2
        self.prompt = Prompt(torch.from_numpy(prompt), mel, torch.randn(shape.speaker))
        self.decoder = Decoder(flow, hift)
        self.whole, _ = self.mel(Chunking((1 << 40,), 0, 0))

    def mel(self, chunking: Any) -> tuple[np.ndarray, list[int]]:
        """The mel of a stream, [mel, frames], and the frames that joins lie at."""
        from stepaudio.tts.step.decoder import FlowStream

        stream = FlowStream(self.decoder.flow, self.prompt, 0, chunking)
        pieces = [mel.numpy() for mel, _ in [*stream.push(self.codes), *stream.flush()]]
        joins = np.cumsum([piece.shape[1] for piece in pieces])[:-1]
        return np.concatenate(pieces, 1), joins.tolist()

    def measure(self, chunking: Any) -> tuple[float, float, float, float, float]:
        """Relative error of the mel; mean steps at joins and elsewhere; largest steps at either."""
        import torch

        from stepaudio.tts.step.speaker import mel22k

        mel, joins = self.mel(chunking)
        error = np.linalg.norm(mel - self.whole) / np.linalg.norm(self.whole - self.whole.mean())
        stream = self.decoder.stream(self.prompt, chunking=chunking)
        samples = np.concatenate((stream.push(self.codes), stream.flush()))
        steps = np.linalg.norm(np.diff(mel22k(torch.from_numpy(samples)).numpy(), axis=0), axis=1)
        near = np.zeros(len(steps), bool)
        for join in joins:
            near[max(0, join - NEAR) : join + NEAR] = True
        at, off = steps[near], steps[~near]
        return float(error), float(at.mean()), float(off.mean()), float(at.max()), float(off.max())


def _codes(random: np.random.Generator, groups: int) -> np.ndarray:
    linguistic, semantic = random.integers(0, 1024, (groups, 2)), random.integers(1024, 5120, (groups, 3))
    return np.hstack((linguistic, semantic)).ravel()


def render(result: dict[str, Any]) -> RenderableType:
    """The figures as a table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (
        "look-ahead",
        "first audio after",
        "mel error",
        "step at joins",
        "elsewhere",
        "largest: joins",
    ):
        table.add_column(title, justify="right")
    table.add_column("elsewhere", justify="right")
    for row in result["rows"]:
        mark = " *" if row["ahead_codes"] == result["default_ahead"] else ""
        table.add_row(
            f"{row['ahead_codes']} codes{mark}",
            f"{row['first_audio_s']:.2f} s of codes",
            f"{row['mel_error']:.1%}",
            *(f"{row[name]:.2f}" for name in ("step_at_joins", "step_elsewhere")),
            *(f"{row[name]:.2f}" for name in ("largest_at_joins", "largest_elsewhere")),
        )
    table.caption = (
        f"random weights, no noise; * is the default. First audio: at most {FIRST_AUDIO_S} s wanted"
    )
    return table
