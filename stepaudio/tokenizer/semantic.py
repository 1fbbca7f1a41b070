"""The semantic half: what the speech sounds like, 25 codes a second of 4,096.

The network is the encoder of a recogniser of Whisper's kind with a codebook behind it (CosyVoice 1,
arXiv:2407.05407, section 2.1), published as ``speech_tokenizer_v1.onnx``. ``build_network`` writes the same
network from tensors, for tests, benchmarks and small models.

It hears a *window* at once, both ways in time, and its features are scaled by the window's loudest place: no
code is certain before its window is full. Published are windows of 30 s, one after another, with nothing
between them; so it is here, whole and as a stream, and therefore both give the same codes. In a stream the
codes of a turn below 30 s all come with its end. Shorter windows give them sooner, and other codes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stepaudio import checkpoint
from stepaudio.core.codes import GROUP_MS, SEMANTIC_CODES
from stepaudio.core.errors import BackendError, ConfigError
from stepaudio.tokenizer.features import RATE, WHISPER_BANDS, log_mel

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

WINDOW_S = 30.0
"""The published window, seconds."""
SHORTEST_SAMPLES = 480
"""A rest below 30 ms gives no code, as published."""

_log = logging.getLogger(__name__)


class _Codes(Protocol):
    def codes(self, samples: np.ndarray) -> np.ndarray: ...


class SemanticTokenizer:
    """The network of the semantic half, shared by all streams.

    Args:
        network: an ONNX file, or its bytes. Inputs by position: features, float32, shape (1, 128, t), and t,
            int32, shape (1,). First output: codes, t / 4 of them.
        window_s: seconds that are heard at once, a multiple of 120 ms.
        device: "cpu" or "cuda".
        threads: of the CPU, for one window; None leaves it to onnxruntime.

    Raises:
        ModelMissing: no such file, or a Git LFS pointer in its place.
        ConfigError: a damaged file, another network, or a window that holds no whole groups.
    """

    def __init__(
        self,
        network: Path | bytes,
        *,
        window_s: float = WINDOW_S,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        import onnxruntime

        self._name = "the network" if isinstance(network, bytes) else str(checkpoint.present(network))
        self.window = window_samples(window_s)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        source = network if isinstance(network, bytes) else str(network)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=_providers(device))
        except Exception as error:  # onnxruntime has an exception of its own for every kind of damage
            raise ConfigError(f"{self._name} cannot be read as ONNX: fetch it again") from error
        inputs = self._session.get_inputs()
        bands = inputs[0].shape[1] if inputs and len(inputs[0].shape) == 3 else None
        if len(inputs) != 2 or (isinstance(bands, int) and bands != WHISPER_BANDS):
            raise ConfigError(
                f"{self._name} is another network: speech_tokenizer_v1.onnx takes {WHISPER_BANDS} bands "
                "and their number of frames"
            )
        self._feats, self._length = (given.name for given in inputs)
        self._indices = self._session.get_outputs()[0].name

    def codes(self, samples: np.ndarray) -> np.ndarray:
        """Codes of one window by itself; int64, one for every 40 ms begun (of whole frames of 10 ms).

        Args:
            samples: 16 kHz, float32, shape (n,), 480 <= n <= the window.

        Raises:
            ConfigError: a code beyond 4095: the file is of another tokenizer.
            BackendError: onnxruntime failed.
        """
        (indices,) = self.run(log_mel(samples), [self._indices])
        codes = indices.reshape(-1).astype(np.int64)
        if codes.size and not 0 <= codes.min() <= codes.max() < SEMANTIC_CODES:
            raise ConfigError(
                f"{self._name} gives codes beyond {SEMANTIC_CODES - 1}: it is of another model "
                "(Step-Audio 2 has speech_tokenizer_v2_25hz.onnx); fetch the one of Step-Audio-Tokenizer"
            )
        return codes

    def run(self, feats: np.ndarray, outputs: list[str]) -> Sequence[Any]:
        """Named outputs of the network for features of shape (128, t)."""
        given = {self._feats: feats[None], self._length: np.array([feats.shape[1]], np.int32)}
        try:
            return self._session.run(outputs, given)
        except Exception as error:
            raise BackendError(f"onnxruntime could not run {self._name}: {error}") from error

    def stream(self) -> SemanticStream:
        """A stream at its start."""
        return SemanticStream(self, self.window)


class SemanticStream:
    """Codes of one stream of 16-kHz audio: those of a window when it is full, the rest at the end."""

    def __init__(self, tokenizer: _Codes, window: int) -> None:
        self._tokenizer = tokenizer
        self._window = window
        self._held: list[np.ndarray] = []
        self._count = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples, float32, shape (n,); returns int64 codes, none while no window is full."""
        codes = [np.empty(0, np.int64)]
        while self._count + len(samples) >= self._window:
            lacking = self._window - self._count
            codes.append(self._tokenizer.codes(np.concatenate([*self._held, samples[:lacking]])))
            samples, self._held, self._count = samples[lacking:], [], 0
        self._held.append(samples.copy())
        self._count += len(samples)
        return np.concatenate(codes)

    def flush(self) -> np.ndarray:
        """The codes of what is left; less than 30 ms of it give none. The stream takes no more."""
        if self._count < SHORTEST_SAMPLES:
            return np.empty(0, np.int64)
        return self._tokenizer.codes(np.concatenate(self._held))

    def copy(self) -> SemanticStream:
        """A stream of its own that goes on from here."""
        other = SemanticStream(self._tokenizer, self._window)
        other._held, other._count = list(self._held), self._count
        return other


def window_samples(window_s: float) -> int:
    """A window in samples.

    Raises:
        ConfigError: it is not a multiple of 120 ms, or longer than what the network has places for.
    """
    groups = window_s * 1000 / GROUP_MS
    if not 0 < window_s <= WINDOW_S or abs(groups - round(groups)) > 1e-6:
        raise ConfigError(
            f"a window of {window_s} s cannot be used: take a multiple of {GROUP_MS / 1000}, up to {WINDOW_S}"
        )
    return round(groups) * GROUP_MS * RATE // 1000


def _providers(device: str) -> list[str]:
    import onnxruntime

    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        _log.warning(
            "onnxruntime is without CUDA here (onnxruntime-gpu has it): the semantic half runs on the CPU"
        )
        return ["CPUExecutionProvider"]
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


# --- the network, written anew ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Sizes of the network; the defaults are those of the public file."""

    n_mels: int = WHISPER_BANDS
    n_audio_ctx: int = 1500
    n_audio_state: int = 1280
    n_audio_head: int = 20
    n_audio_layer: int = 6
    n_codebook_size: int = SEMANTIC_CODES

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor by its name in PyTorch ports of the network, with its shape."""
        size = self.n_audio_state
        shapes: dict[str, tuple[int, ...]] = {
            "encoder.positional_embedding": (self.n_audio_ctx, size),
            "encoder.conv1.weight": (size, self.n_mels, 3),
            "encoder.conv1.bias": (size,),
            "encoder.conv2.weight": (size, size, 3),
            "encoder.conv2.bias": (size,),
            "quantizer._codebook.embed": (self.n_codebook_size, size),
        }
        for i in range(self.n_audio_layer):
            for name, outputs, inputs in (
                ("attn.query", size, size),
                ("attn.key", size, size),
                ("attn.value", size, size),
                ("attn.out", size, size),
                ("mlp.0", 4 * size, size),
                ("mlp.2", size, 4 * size),
            ):
                shapes[f"encoder.blocks.{i}.{name}.weight"] = (outputs, inputs)
                if name != "attn.key":
                    shapes[f"encoder.blocks.{i}.{name}.bias"] = (outputs,)
            for name in ("attn_ln", "mlp_ln"):
                shapes[f"encoder.blocks.{i}.{name}.weight"] = (size,)
                shapes[f"encoder.blocks.{i}.{name}.bias"] = (size,)
        return shapes


def build_network(weights: Mapping[str, np.ndarray], config: NetworkConfig) -> ModelProto:
    """The network as ONNX, with the inputs and the first output of the public file.

    A second output, ``hidden``, is what the codebook is asked for; shape (1, t / 4, n_audio_state).

    Raises:
        ConfigError: a tensor is missing, surplus or misshapen; the message names it.
    """
    from onnx import TensorProto, helper, numpy_helper

    shapes = config.shapes()
    problems = [f"{name} is missing" for name in shapes if name not in weights]
    problems += [f"{name} has no place" for name in weights if name not in shapes]
    problems += [
        f"{name} is {weights[name].shape} and should be {shape}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != shape
    ]
    if problems:
        raise ConfigError(
            f"these are no weights of the semantic network: {'; '.join(problems[: checkpoint.SHOWN])}"
        )
    graph = _Graph()
    hidden = _write_encoder(graph, weights, config)
    # Nearest entry to the hidden vector h, made a unit vector: largest 2 h e - |e|^2.
    book = weights["quantizer._codebook.embed"]
    unit = graph.add("LpNormalization", hidden, axis=-1, p=2)
    near = graph.add("MatMul", unit, graph.constant(np.ascontiguousarray(2 * book.T)))
    near = graph.add("Sub", near, graph.constant((book**2).sum(axis=1)))
    graph.nodes += [
        helper.make_node("ArgMax", [near], ["indices"], axis=-1, keepdims=0),
        helper.make_node("Identity", [hidden], ["hidden"]),
    ]
    float32, int32, int64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "speech_tokenizer",
            [
                helper.make_tensor_value_info("feats", float32, [1, config.n_mels, "frames"]),
                helper.make_tensor_value_info("feats_length", int32, [1]),
            ],
            [
                helper.make_tensor_value_info("indices", int64, [1, "codes"]),
                helper.make_tensor_value_info("hidden", float32, [1, "codes", config.n_audio_state]),
            ],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )


def _write_encoder(graph: _Graph, weights: Mapping[str, np.ndarray], config: NetworkConfig) -> str:
    """Two convolutions that halve the rate, and blocks of attention; the name of what comes out."""
    size, heads = config.n_audio_state, config.n_audio_head

    def linear(x: str, name: str) -> str:
        x = graph.add("MatMul", x, graph.constant(np.ascontiguousarray(weights[f"{name}.weight"].T)))
        bias = weights.get(f"{name}.bias")
        return x if bias is None else graph.add("Add", x, graph.constant(bias))

    def norm(x: str, name: str) -> str:
        scale, shift = (graph.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    by_head = graph.constant(np.array([1, -1, heads, size // heads]))
    together = graph.constant(np.array([1, -1, size]))
    scale = graph.constant(np.array((size // heads) ** -0.25, np.float32))

    def split(x: str, order: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", x, by_head), perm=order)

    x = "feats"
    for name in ("encoder.conv1", "encoder.conv2"):
        kernel, bias = (graph.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        x = graph.add("Gelu", graph.add("Conv", x, kernel, bias, kernel_shape=[3], strides=[2], pads=[1, 1]))
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    frames = graph.add("Shape", x, start=1, end=2)
    zero = graph.constant(np.array([0]))
    places = graph.constant(weights["encoder.positional_embedding"])
    x = graph.add("Add", x, graph.add("Slice", places, zero, frames, zero))
    for i in range(config.n_audio_layer):
        block = f"encoder.blocks.{i}"
        normed = norm(x, f"{block}.attn_ln")
        query = graph.add("Mul", split(linear(normed, f"{block}.attn.query"), [0, 2, 1, 3]), scale)
        key = graph.add("Mul", split(linear(normed, f"{block}.attn.key"), [0, 2, 3, 1]), scale)
        value = split(linear(normed, f"{block}.attn.value"), [0, 2, 1, 3])
        shares = graph.add("Softmax", graph.add("MatMul", query, key), axis=-1)
        heard = graph.add("Transpose", graph.add("MatMul", shares, value), perm=[0, 2, 1, 3])
        x = graph.add("Add", x, linear(graph.add("Reshape", heard, together), f"{block}.attn.out"))
        inner = graph.add("Gelu", linear(norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0"))
        x = graph.add("Add", x, linear(inner, f"{block}.mlp.2"))
    return x


class _Graph:
    """Nodes and constants in the making; every node has one output, named after its number."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name
