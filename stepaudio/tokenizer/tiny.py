"""A tokenizer with random weights in the layout of the public checkpoint, of any size.

Its codes mean nothing. It is for tests, for benchmarks at full size, and for trying the whole service on a
small machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stepaudio.core.codes import LINGUISTIC_CODES
from stepaudio.tokenizer.dual import CENTRES_FILE, PARAFORMER_FOLDER, SEMANTIC_FILE
from stepaudio.tokenizer.features import KALDI_BANDS, RATE, STACKED, STRIDE
from stepaudio.tokenizer.linguistic import EncoderConfig, SanmEncoder
from stepaudio.tokenizer.semantic import NetworkConfig, build_network

LINGUISTIC = EncoderConfig(output_size=32, linear_units=64, num_blocks=3)
SEMANTIC = NetworkConfig(n_audio_state=32, n_audio_head=4, n_audio_layer=2)

_LOUD = 10  # times, of the first convolution


def write(
    folder: Path,
    *,
    linguistic: EncoderConfig = LINGUISTIC,
    semantic: NetworkConfig = SEMANTIC,
    seed: int = 0,
) -> None:
    """Write the files of a tokenizer; the same seed gives the same codes."""
    import onnx

    paraformer = folder / PARAFORMER_FOLDER
    paraformer.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SanmEncoder(linguistic)
    torch.save(
        {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}, paraformer / "model.pt"
    )
    (paraformer / "config.yaml").write_text(_CONFIG.format(c=linguistic), encoding="utf-8")
    (paraformer / "am.mvn").write_text(_cmvn(), encoding="utf-8")
    centres = rng.standard_normal((LINGUISTIC_CODES, linguistic.output_size))
    # Of one length: were they not, a few short ones would be nearest to everything.
    centres *= (linguistic.output_size**0.5) / np.linalg.norm(centres, axis=1, keepdims=True)
    np.save(folder / CENTRES_FILE, centres.astype(np.float32))
    network = build_network(_semantic_weights(semantic, rng), semantic)
    onnx.save(network, folder / SEMANTIC_FILE)


def _semantic_weights(config: NetworkConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    weights = {}
    for name, shape in config.shapes().items():
        if name.endswith("positional_embedding"):
            weights[name] = _sinusoids(*shape)
        elif name.endswith("_ln.weight"):
            weights[name] = np.ones(shape, np.float32)
        elif name.endswith("bias"):
            weights[name] = np.zeros(shape, np.float32)
        else:
            weights[name] = rng.standard_normal(shape, np.float32) / np.float32(np.prod(shape[1:])) ** 0.5
        if name.endswith("conv1.weight"):  # what is heard has to outweigh where it is heard
            weights[name] *= _LOUD
    book = weights["quantizer._codebook.embed"]
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    return weights


def _sinusoids(places: int, size: int) -> np.ndarray:
    """Whisper's: sines of the places in its first half, cosines in its second."""
    angles = np.arange(places)[:, None] * np.exp(-np.log(10_000) / (size // 2 - 1) * np.arange(size // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _cmvn() -> str:
    """Speech at full scale has log energies about 12, give or take 4."""
    size = STACKED * KALDI_BANDS
    parts = [f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]"]
    for name, value in (("AddShift", -12), ("Rescale", 0.25)):
        parts.append(f"<{name}> {size} {size}\n<LearnRateCoef> 0 [ {' '.join([str(value)] * size)} ]")
    return "\n".join([*parts, "</Nnet>\n"])


_CONFIG = f"""\
encoder: SANMEncoderChunkOpt
encoder_conf:
    output_size: {{c.output_size}}
    attention_heads: {{c.attention_heads}}
    linear_units: {{c.linear_units}}
    num_blocks: {{c.num_blocks}}
    kernel_size: {{c.kernel_size}}
    input_layer: pe_online
    normalize_before: true
    sanm_shfit: 0
frontend: WavFrontendOnline
frontend_conf:
    fs: {RATE}
    window: hamming
    n_mels: {KALDI_BANDS}
    frame_length: 25
    frame_shift: 10
    lfr_m: {STACKED}
    lfr_n: {STRIDE}
"""
