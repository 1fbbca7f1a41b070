"""The linguistic half: how the mouth moved, 16.7 codes a second of 1,024.

Kaldi features, stacked to one frame every 60 ms, go through the streaming encoder of a Paraformer recogniser;
each of its outputs becomes the number of the nearest of 1,024 centres. The encoder (SANM: self-attention with
a memory block; Gao et al. 2020, arXiv:2006.01713) hears 240 ms at a time and nothing of what comes after, so
that a stream gives the codes of the whole recording as it goes.

The published program adds noise to the features (Kaldi's dither, unseeded), so that it agrees with itself on
some 96 % of codes only; here there is none.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio import checkpoint
from stepaudio.core.codes import LINGUISTIC_CODES
from stepaudio.core.errors import ConfigError
from stepaudio.tokenizer.features import HOP, KALDI_BANDS, RATE, STACKED, STRIDE, StackedFrames, read_cmvn

CHUNK_FRAMES = 4
"""Frames that are new in a chunk."""
OVERLAP_FRAMES = 5
"""Frames before them that are heard once more."""
LOOK_BACK_CHUNKS = 4
"""Chunks before this one whose keys and values are kept."""
CHUNK_SAMPLES = CHUNK_FRAMES * STRIDE * HOP
"""240 ms."""
_KEPT = LOOK_BACK_CHUNKS * CHUNK_FRAMES  # frames of keys and values
_AT_ONCE = 64  # chunks, 15 s: what is gained with more is nothing, what they take is memory


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes of the encoder; the defaults are those of the public checkpoint."""

    input_size: int = STACKED * KALDI_BANDS
    output_size: int = 512
    attention_heads: int = 4
    linear_units: int = 2048
    num_blocks: int = 50
    kernel_size: int = 11

    @classmethod
    def from_yaml(cls, path: Path) -> EncoderConfig:
        """As FunASR's ``config.yaml`` describes a model.

        Raises:
            ConfigError: it cannot be read, or describes another kind of network or front end.
        """
        import yaml

        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
            encoder, frontend = dict(tree["encoder_conf"]), dict(tree["frontend_conf"])
            config = cls(**{name: int(encoder[name]) for name in _FROM_YAML})
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as a FunASR configuration: fetch it again") from error
        for section, wanted in (
            (tree, {"encoder": "SANMEncoderChunkOpt"}),
            (encoder, {"input_layer": "pe_online", "normalize_before": True, "sanm_shfit": 0}),
            (
                frontend,
                {"fs": RATE, "n_mels": KALDI_BANDS, "lfr_m": STACKED, "lfr_n": STRIDE, "window": "hamming"},
            ),
        ):
            for key, value in wanted.items():
                if section.get(key, value) != value:
                    raise ConfigError(
                        f"{path}: {key} is {section[key]!r}, only {value!r} is known. Is it of another model?"
                    )
        return config


_FROM_YAML = ("output_size", "attention_heads", "linear_units", "num_blocks", "kernel_size")


class _Attention(nn.Module):
    """Self-attention, beside a convolution over the values (the memory block, FSMN)."""

    def __init__(self, config: EncoderConfig, input_size: int) -> None:
        super().__init__()
        size, kernel = config.output_size, config.kernel_size
        self.heads = config.attention_heads
        self.linear_q_k_v = nn.Linear(input_size, 3 * size)
        self.linear_out = nn.Linear(size, size)
        self.fsmn_block = nn.Conv1d(size, size, kernel, groups=size, bias=False)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (n, size), and keys and values (2, heads, frames, depth) for the next chunk."""
        query, key, value = self.linear_q_k_v(x).chunk(3, dim=-1)
        memory = self._memory(value)
        query, *keys_values = (t.unflatten(-1, (self.heads, -1)).transpose(0, 1) for t in (query, key, value))
        heard = torch.stack(keys_values)
        # The last frames come again in the next chunk's overlap: they are not kept.
        kept = heard[:, :, :-OVERLAP_FRAMES]
        if past is not None:
            heard = torch.cat([past, heard], dim=2)
            kept = torch.cat([past, kept], dim=2)[:, :, -_KEPT:]
        scores = query @ heard[0].transpose(1, 2) * query.shape[-1] ** -0.5
        attended = (scores.softmax(dim=-1) @ heard[1]).transpose(0, 1).flatten(1)
        return self.linear_out(attended) + memory, kept

    def _memory(self, value: Tensor) -> Tensor:
        """The convolution of each channel by itself, and what it hears; shape (n, size).

        For nine frames five times as fast as torch's own.
        """
        weight = self.fsmn_block.weight[:, 0].T
        reach = (len(weight) - 1) // 2
        padded = F.pad(value, (0, 0, reach, len(weight) - 1 - reach))
        windows = padded.unfold(0, len(weight), 1).transpose(1, 2)
        return (windows * weight).sum(dim=1) + value


class _FeedForward(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.output_size, config.linear_units)
        self.w_2 = nn.Linear(config.linear_units, config.output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.w_1(x).relu())


class _Layer(nn.Module):
    def __init__(self, config: EncoderConfig, input_size: int) -> None:
        super().__init__()
        self.self_attn = _Attention(config, input_size)
        self.feed_forward = _FeedForward(config)
        self.norm1 = nn.LayerNorm(input_size, eps=1e-12)
        self.norm2 = nn.LayerNorm(config.output_size, eps=1e-12)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        attended, kept = self.self_attn(self.norm1(x), past)
        x = x + attended if x.shape == attended.shape else attended  # the first layer changes the width
        return x + self.feed_forward(self.norm2(x)), kept


@dataclass(slots=True)
class EncoderState:
    """What the encoder remembers of a stream. Tensors are replaced, never changed: a copy may share them.

    Attributes:
        position: frames heard.
        overlap: the last inputs, shape (5, input_size); zeros at the start.
        past: for each layer its keys and values, shape (2, heads, <= 16, depth).
    """

    position: int
    overlap: Tensor
    past: list[Tensor | None] = field(default_factory=list)

    def copy(self) -> EncoderState:
        """One of its own, that goes on from here."""
        return EncoderState(self.position, self.overlap, list(self.past))


class SanmEncoder(nn.Module):
    """The encoder; tensors are named as in the checkpoint's ``model.pt``, without its ``encoder.``."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders0 = nn.ModuleList([_Layer(config, config.input_size)])
        self.encoders = nn.ModuleList(
            _Layer(config, config.output_size) for _ in range(config.num_blocks - 1)
        )
        self.after_norm = nn.LayerNorm(config.output_size, eps=1e-12)

    def begin(self) -> EncoderState:
        """The state before the first chunk."""
        overlap = self.after_norm.weight.new_zeros(OVERLAP_FRAMES, self.config.input_size)
        return EncoderState(0, overlap, [None] * self.config.num_blocks)

    def forward(self, chunks: Sequence[Tensor], state: EncoderState) -> list[Tensor]:
        """Chunks that follow one another.

        All of them go through a layer before the next layer's turn: a layer hears nothing but what the one
        below made of this chunk and of those before, and its weights stay in the processor's cache. Every
        chunk is worked on by itself, so that the numbers are the same to the bit, however many come at once.

        Args:
            chunks: new frames, shape (n, input_size) each, n <= 4.
            state: is moved on.

        Returns:
            For each chunk shape (n, output_size).
        """
        xs = []
        for frames in chunks:
            x = frames * self.config.output_size**0.5 + self._positions(state.position, frames)
            xs.append(torch.cat([state.overlap, x]))
            state.position += len(frames)
            state.overlap = xs[-1][-OVERLAP_FRAMES:]
        for i, layer in enumerate((*self.encoders0, *self.encoders)):
            for j, x in enumerate(xs):
                xs[j], state.past[i] = layer(x, state.past[i])
        return [self.after_norm(x)[-len(frames) :] for x, frames in zip(xs, chunks, strict=True)]

    def _positions(self, start: int, frames: Tensor) -> Tensor:
        """Sines, then cosines, of the frames' places, counted from 1 (float32, as in training)."""
        half = self.config.input_size // 2
        step = -torch.log(torch.tensor(10_000.0, device=frames.device)) / (half - 1)
        places = torch.arange(start + 1, start + 1 + len(frames), dtype=torch.float32, device=frames.device)
        angles = places[:, None] * torch.exp(torch.arange(half, device=frames.device) * step)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class LinguisticTokenizer:
    """Weights of the linguistic half, shared by all streams.

    Args:
        encoder: in evaluation mode, on the device that is to do the work.
        cmvn: shape (2, input_size): added, then multiplied.
        centres: float32, shape (k, output_size).
    """

    def __init__(self, encoder: SanmEncoder, cmvn: np.ndarray, centres: np.ndarray) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        device = encoder.after_norm.weight.device
        if device.type == "cpu":
            _pack(encoder)
        self._cmvn = torch.tensor(cmvn, device=device)
        self._centres = torch.tensor(centres, device=device)

    @classmethod
    def load(cls, folder: Path, centres: Path, device: torch.device | str = "cpu") -> LinguisticTokenizer:
        """From a Paraformer's folder (``model.pt`` or ``model.safetensors``, ``config.yaml``, ``am.mvn``).

        Of the recogniser only the encoder is read. ``centres`` is the k-means file,
        ``linguistic_tokenizer.npy``.

        Raises:
            ModelMissing: a file is not there, or a Git LFS pointer.
            ConfigError: a file is damaged, or of another model; a tensor is missing, surplus or misshapen.
        """
        config = EncoderConfig.from_yaml(checkpoint.present(folder / "config.yaml"))
        cmvn = read_cmvn(checkpoint.present(folder / "am.mvn"))
        means = read_centres(checkpoint.present(centres), config.output_size)
        converted = folder / "model.safetensors"
        weights = converted if converted.is_file() else folder / "model.pt"
        with torch.device("meta"):
            encoder = SanmEncoder(config)
        checkpoint.load(encoder, encoder_tensors(checkpoint.read_tensors(weights)), weights)
        return cls(encoder.to(device), cmvn, means)

    @torch.inference_mode()
    def encode(self, chunks: Sequence[np.ndarray], state: EncoderState) -> list[Tensor]:
        """Chunks of stacked frames, (n, 560) each, not yet normalised; returns (n, output_size) each."""
        tensors = [torch.tensor(frames, device=self._cmvn.device) for frames in chunks]
        return self.encoder([(x + self._cmvn[0]) * self._cmvn[1] for x in tensors], state)

    @torch.inference_mode()
    def distances(self, outputs: Tensor) -> Tensor:
        """Euclidean distances to the centres, shape (n, k)."""
        return torch.cdist(outputs, self._centres, compute_mode="donot_use_mm_for_euclid_dist")

    def stream(self) -> LinguisticStream:
        """A stream at its start."""
        return LinguisticStream(self)


class LinguisticStream:
    """Codes of one stream of 16-kHz audio: four every 240 ms, with the rest at the end."""

    def __init__(self, tokenizer: LinguisticTokenizer) -> None:
        self._tokenizer = tokenizer
        self._held = np.empty(0, np.float32)
        self._frames = StackedFrames()
        self._state = tokenizer.encoder.begin()

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples, float32, shape (n,); returns int64 codes, shape (4 * whole chunks,)."""
        self._held = np.concatenate([self._held, samples])
        whole = len(self._held) // CHUNK_SAMPLES * CHUNK_SAMPLES
        chunks = [self._frames.push(chunk) for chunk in self._held[:whole].reshape(-1, CHUNK_SAMPLES)]
        self._held = self._held[whole:]
        blocks = [self._codes(chunks[i : i + _AT_ONCE]) for i in range(0, len(chunks), _AT_ONCE)]
        return np.concatenate([np.empty(0, np.int64), *blocks])

    def flush(self) -> np.ndarray:
        """The codes of what is left; less than 55 ms of it give none. The stream takes no more."""
        return self._codes([self._frames.push(self._held, final=True)])

    def copy(self) -> LinguisticStream:
        """A stream of its own that goes on from here."""
        other = LinguisticStream(self._tokenizer)
        other._held, other._frames, other._state = self._held, self._frames.copy(), self._state.copy()
        return other

    def _codes(self, chunks: Sequence[np.ndarray]) -> np.ndarray:
        outputs = self._tokenizer.encode([frames for frames in chunks if len(frames)], self._state)
        if not outputs:
            return np.empty(0, np.int64)
        nearest = [self._tokenizer.distances(output).argmin(dim=1) for output in outputs]
        return torch.cat(nearest).cpu().numpy()


class _PackedLinear(nn.Module):
    """A linear layer whose weight lies as the processor wants it for chunks of nine frames.

    torch packs it anew for every product otherwise, which takes longer than the product: 1.41 ms a layer of
    the public size against 0.55 (one thread, weights not in the cache).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows = CHUNK_FRAMES + OVERLAP_FRAMES
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def _pack(network: nn.Module) -> None:
    """Pack all linear layers, where torch has the means: on x86 with oneDNN."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _PackedLinear(child))


def read_centres(path: Path, size: int) -> np.ndarray:
    """The k-means centres, float32, shape (1024, size), from a ``.npy`` file.

    Raises:
        ConfigError: it is damaged, or has another shape.
    """
    try:
        centres = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read as numbers: fetch it again") from error
    if not isinstance(centres, np.ndarray) or centres.shape != (LINGUISTIC_CODES, size):
        shape = getattr(centres, "shape", "another kind of file")
        raise ConfigError(
            f"{path} is {shape} and should be {(LINGUISTIC_CODES, size)}: is it of another model?"
        )
    return centres.astype(np.float32)


def encoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's own of all tensors of a Paraformer (whose decoder and predictor only transcribe)."""
    return {name.removeprefix(_PREFIX): t for name, t in tensors.items() if name.startswith(_PREFIX)}


_PREFIX = "encoder."
