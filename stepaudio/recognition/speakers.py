"""Who speaks: an embedding of a voice, such that the same voice gives nearly the same one.

The network is Resemblyzer's: three LSTMs and a linear layer, trained by the generalised end-to-end loss (Wan
et al. 2018, arXiv:1710.10467) on windows of 1.6 s. Its weights are published as a pickle of PyTorch's oldest
format; ``expose`` reads the numbers out of it (nothing in it is run) and writes the network as ONNX, once.
What it does not know: whether there is speech at all, and whether one person speaks or two.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import onnxruntime

from stepaudio.core.audio import AudioChunk
from stepaudio.core.errors import AudioError, ConfigError
from stepaudio.recognition.base import RATE
from stepaudio.recognition.features import HOP, hann, mel_filters

RECIPE = "speaker-1"
"""Names what ``expose`` makes (for ``ModelStore.derived``); it changes when that does."""
SIZE = 256
"""Numbers in an embedding."""
SAME = 0.75
"""Similarity from which two recordings are called the same voice. Of real recordings of 3 to 15 s (42 English
and Mandarin speakers, rooms and microphones as they were) 98.0 % of 305 pairs of one speaker are above it,
and 0.7 % of 4846 pairs of two."""

WEIGHTS, NETWORK = "pretrained.bin", "speaker.onnx"
BANDS = 40
WINDOW = 400  # samples (25 ms)
PARTIAL = 160  # frames of a window that the network hears at once (1.6 s)
_STEP = 77  # frames from one window to the next: 1.3 a second
_COVERED = 0.75  # share of the last window that must be audio
LEVEL = -30.0  # dB of full scale; softer audio is raised to it
_LEAST_S = 0.4

# Long pauses say nothing of the voice.
_BLOCK = 480  # samples (30 ms)
_FAINT = -35.0  # dB under the loud blocks: no speech
_AROUND = 3  # blocks kept beside speech


class SpeakerEncoder:
    """Embeddings of voices. Threads may share it.

    Args:
        derived: folder that ``expose`` filled.
        threads: CPU threads.
    """

    def __init__(self, derived: Path, *, threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(derived / NETWORK)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(self, audio: AudioChunk) -> np.ndarray:
        """The embedding of a voice: float32, shape (SIZE,), length 1, no number negative.

        Args:
            audio: at 16 kHz; some seconds. Of 1.6 s and less it knows little.

        Raises:
            AudioError: less than 0.4 s that is not silent.
        """
        mean = self.windows(audio).mean(axis=0)
        return mean / np.linalg.norm(mean)

    def windows(self, audio: AudioChunk) -> np.ndarray:
        """The embeddings of the windows of 1.6 s, two of which overlap by half: float32, shape (n, SIZE).

        Raises:
            AudioError: as ``embed``.
        """
        assert audio.rate == RATE, "resample first"
        samples = without_pauses(raised(audio.samples))
        if len(samples) < _LEAST_S * RATE:
            raise AudioError("too little is heard in the audio to tell a voice: give some seconds of speech")
        begins = partials(len(samples))
        whole = np.pad(samples, (0, max(0, (begins[-1] + PARTIAL) * HOP - len(samples))))
        features = mel(whole)
        mels = np.stack([features[begin : begin + PARTIAL] for begin in begins])
        (found,) = self._session.run(None, {"mel": mels.transpose(1, 0, 2)})
        return np.asarray(found)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two embeddings, 0..1: nine in ten pairs of one voice have 0.78 to 0.94, of two 0.49 to 0.67
    (the recordings of ``SAME``)."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def mel(samples: np.ndarray) -> np.ndarray:
    """Mel power, not its logarithm, 100 frames a second: float32, shape (frames, 40).

    Args:
        samples: 16 kHz, shape (n,); there are n // 160 + 1 frames, the first centred on sample 0.
    """
    padded = np.pad(samples, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows * hann(WINDOW))
    power = spectrum.real**2 + spectrum.imag**2
    return (power @ mel_filters(BANDS, WINDOW).T).astype(np.float32)


def partials(samples: int) -> list[int]:
    """First frames of the windows that cover some samples; the last is left out where it is mostly empty."""
    frames = math.ceil((samples + 1) / HOP)
    begins = list(range(0, max(1, frames - PARTIAL + _STEP + 1), _STEP))
    if len(begins) > 1 and (samples / HOP - begins[-1]) / PARTIAL < _COVERED:
        begins.pop()
    return begins


def raised(samples: np.ndarray) -> np.ndarray:
    """Soft audio raised to the level that the network was trained with; louder audio and silence as is."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return samples * np.float32(max(1.0, 10 ** (LEVEL / 20) / math.sqrt(power))) if power else samples


def without_pauses(samples: np.ndarray) -> np.ndarray:
    """The audio without what is silent for longer than 0.2 s. Silence is what is far softer than the rest."""
    blocks = len(samples) // _BLOCK
    cut = samples[: blocks * _BLOCK].reshape(blocks, _BLOCK)
    power = np.mean(np.square(cut, dtype=np.float64), axis=1)
    if not blocks or not power.any():
        return samples[:0]
    heard = power > np.percentile(power, 95) * 10 ** (_FAINT / 10)
    near = np.convolve(heard, np.ones(2 * _AROUND + 1))[_AROUND : _AROUND + blocks] > 0.5
    return cut[near].reshape(-1)


# What follows reads the published weights. It runs once, when the model is first used.


def expose(model: Path, out: Path) -> None:
    """Write ``speaker.onnx``: "mel" (frames, windows, 40) -> "embedding" (windows, 256).

    Args:
        model: folder with the published weights.
        out: folder to write to.

    Raises:
        ConfigError: the file is not what it should be.
    """
    import onnx
    from onnx import helper, numpy_helper

    weights = read_legacy(model / WEIGHTS)
    nodes, constants, below = [], {}, "mel"
    for n in range(3):
        # PyTorch's gates are in, forget, cell, out; ONNX wants in, out, forget, cell, and a direction axis.
        order = np.r_[0:SIZE, 3 * SIZE : 4 * SIZE, SIZE : 3 * SIZE]
        into, back = (weights[f"lstm.weight_{part}_l{n}"][order][None] for part in ("ih", "hh"))
        bias = np.concatenate([weights[f"lstm.bias_{part}_l{n}"][order] for part in ("ih", "hh")])[None]
        constants |= {f"W{n}": into, f"R{n}": back, f"B{n}": bias}
        outputs = [f"all{n}", f"last{n}"]
        nodes.append(helper.make_node("LSTM", [below, f"W{n}", f"R{n}", f"B{n}"], outputs, hidden_size=SIZE))
        nodes.append(helper.make_node("Squeeze", [f"all{n}", "direction"], [f"hidden{n}"]))
        below = f"hidden{n}"
    constants["linear"], constants["offset"] = weights["linear.weight"], weights["linear.bias"]
    constants["direction"], constants["first"] = np.array([1], np.int64), np.array([0], np.int64)
    nodes += [
        helper.make_node("Squeeze", ["last2", "first"], ["last"]),
        helper.make_node("Gemm", ["last", "linear", "offset"], ["projected"], transB=1),
        helper.make_node("Relu", ["projected"], ["positive"]),
        helper.make_node("LpNormalization", ["positive"], ["embedding"], axis=1, p=2),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "speaker",
        [helper.make_tensor_value_info("mel", floats, ["frames", "windows", BANDS])],
        [helper.make_tensor_value_info("embedding", floats, ["windows", SIZE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), out / NETWORK)


_MAGIC = 0x1950A86A20F9469CFC6C  # how the format that PyTorch wrote before 1.6 begins
_PROTOCOL = 1001
_DAMAGED = (pickle.UnpicklingError, struct.error, AttributeError)


def read_legacy(path: Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a file that ``torch.save`` wrote before PyTorch 1.6, by name.

    Five pickles (magic number, version, sizes of types, the object, keys of storages) are followed by the
    storages' numbers. Of the pickles only dicts, tensors and their storages are understood: whatever else
    one asks for, above all anything that can be called, is refused.

    Raises:
        ConfigError: the file is damaged or of another kind.
    """
    try:
        with path.open("rb") as file:
            if (_Plain(file).load(), _Plain(file).load()) != (_MAGIC, _PROTOCOL):
                raise ConfigError(f"{path} is not of PyTorch's legacy format: fetch it again")
            _Plain(file).load()
            content = _Plain(file).load()
            keys = _Plain(file).load()
            storages = {key: _storage(file) for key in keys}
            return {
                name: tensor.of(storages)
                for name, tensor in content["model_state"].items()
                if isinstance(tensor, _Tensor)
            }
    except (OSError, EOFError, LookupError, TypeError, ValueError, *_DAMAGED) as error:
        raise ConfigError(f"{path} cannot be read as weights: fetch it again") from error


def _storage(file: IO[bytes]) -> np.ndarray:
    (count,) = struct.unpack("<q", file.read(8))
    return np.frombuffer(file.read(4 * count), "<f4", count)


class _Tensor:
    """Where a tensor's numbers are, as a pickle says it."""

    def __init__(self, storage: str, offset: int, shape: tuple[int, ...], *_: Any) -> None:
        self.storage, self.offset, self.shape = storage, offset, shape

    def of(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        size = math.prod(self.shape)
        return storages[self.storage][self.offset : self.offset + size].reshape(self.shape)


class _Plain(pickle.Unpickler):
    """Reads pickles that hold plain data and tensors."""

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch", "FloatStorage"): "float32",
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights") from None

    def persistent_load(self, pid: Any) -> str:
        kind, type_, key, *_ = pid
        if (kind, type_) != ("storage", "float32"):
            raise pickle.UnpicklingError("a storage that does not hold float32")
        return key
