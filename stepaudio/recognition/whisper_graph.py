"""Whisper's network as two ONNX graphs, written out once from the CTranslate2 file that is distributed.

- *encoder*: features -> for each layer of the decoder, the keys and values that it looks at;
- *decoder*: a few tokens more -> logits, with the keys and values of the tokens before them kept.

Weights of matrices are int8, a scale for each output; what goes in is quantised as it comes (that is what
onnxruntime calls dynamic quantisation). Positions are cut to the length of the audio, so the encoder works
only on what there is. The operators of the domain ``com.microsoft`` are part of every build of onnxruntime.

CTranslate2's format, version 6 (its ``models/model.cc``), little-endian: version, name of the architecture,
its revision, number of variables; of each: name, rank, shape, type, bytes, data; then aliases. Layers are
pre-norm; ``linear_0`` of self-attention is query, key and value in one; that of attention to the audio is the
query, its ``linear_1`` key and value.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepaudio.core.errors import ModelMissing

if TYPE_CHECKING:
    import onnx

_VERSION = 3

ENCODER, DECODER, EMBEDDINGS, POSITIONS = "encoder.onnx", "decoder.onnx", "embeddings.npy", "positions.npy"
HEAD = 64
"""Width of an attention head, in every Whisper."""

# What CTranslate2 writes for a type.
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_MICROSOFT = "com.microsoft"


def recipe() -> str:
    """Names what ``write_graphs`` makes here (for ``ModelStore.derived``)."""
    return f"onnx-{_VERSION}-{_largest().bit_length()}"


def write_graphs(model: Path, out: Path) -> None:
    """Write the two graphs, and the decoder's embeddings and positions (n, width) beside them.

    Args:
        model: folder with the CTranslate2 model (``model.bin``, ``config.json``).
        out: folder to write to.

    Raises:
        ModelMissing: the file is not such a model; the message is the command that gets it.
    """
    try:
        weights = read_weights(model / "model.bin")
        heads = json.loads((model / "config.json").read_text("utf-8"))["alignment_heads"]
        np.save(out / EMBEDDINGS, weights["decoder/embeddings/weight"])
        np.save(out / POSITIONS, weights["decoder/position_encodings/encodings"].astype(np.float32))
        largest = _largest()
        _encoder(weights, largest, out / ENCODER)
        _decoder(weights, largest, sorted({layer for layer, _ in heads}), out / DECODER)
    except (FileNotFoundError, KeyError, ValueError, struct.error) as error:
        raise ModelMissing(
            f"{model} holds no CTranslate2 Whisper model; get it with: stepaudio models pull whisper-base"
        ) from error


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 file by name, mapped, not read."""
    data = np.memmap(path, np.uint8, "r")
    at = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        size = struct.calcsize("<" + form)
        at += size
        return struct.unpack("<" + form, bytes(data[at - size : at]))

    def string() -> str:
        nonlocal at
        (length,) = take("H")
        at += length
        return bytes(data[at - length : at - 1]).decode()  # a zero ends it

    (version,) = take("I")
    architecture = string()
    _, count = take("II")
    if version != 6 or architecture != "WhisperSpec":
        raise ValueError(f"version {version} of {architecture}")
    weights = {}
    for _ in range(count):
        name = string()
        (rank,) = take("B")
        shape = take(f"{rank}I")
        kind, size = take("BI")
        weights[name] = data[at : at + size].view(_TYPES[kind]).reshape(shape)
        at += size
    return weights


@cache
def _largest() -> int:
    """Largest weight with which this processor multiplies exactly.

    With AVX2 and no more it adds two products of uint8 and int8 in 16 bits, and cuts what does not fit.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "product",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 64]),
            helper.make_tensor_value_info("b", TensorProto.INT8, [64, 16]),
        ],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [1, 16])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (product,) = session.run(
        None, {"a": np.full((1, 64), 255, np.uint8), "b": np.full((64, 16), 127, np.int8)}
    )
    return 127 if np.all(product == 64 * 255 * 127) else 63


def _encoder(weights: dict[str, np.ndarray], largest: int, path: Path) -> None:
    """``features`` (1, bands, frames) -> ``cross_key_<i>`` and ``cross_value_<i>`` (1, heads, positions, 64).

    There are half as many positions as frames.
    """
    graph = _Graph(weights, largest)
    x = "features"
    for name, stride in (("conv1", 1), ("conv2", 2)):
        weight, bias = (graph.weight(f"encoder/{name}/{part}") for part in ("weight", "bias"))
        x = graph.gelu(graph.node("Conv", [x, weight, bias], pads=[1, 1], strides=[stride]))
    x = graph.node(
        "Transpose", [graph.node("Squeeze", [x, graph.constant("batch", np.array([0]))])], perm=[1, 0]
    )
    zero = graph.constant("zero", np.array([0]))
    length = graph.node("Shape", [x], end=1)
    positions = graph.weight("encoder/position_encodings/encodings")
    x = graph.node("Add", [x, graph.node("Slice", [positions, zero, length, zero])])
    one = graph.constant("one_row", np.array([1, -1, graph.width]))
    for i in range(graph.layers("encoder")):
        layer = f"encoder/layer_{i}"
        heard = graph.attention(graph.projected(x, f"{layer}/self_attention", 3), one)
        x = graph.node("Add", [x, graph.linear(heard, f"{layer}/self_attention/linear_1")])
        x = graph.feed_forward(x, layer)
    x = graph.norm(x, "encoder/layer_norm")
    split = graph.constant("split_heads", np.array([1, -1, graph.heads, HEAD]))
    outputs = {}
    for i in range(graph.layers("decoder")):
        pair = graph.linear(x, f"decoder/layer_{i}/attention/linear_1")
        for kind, part in zip(("key", "value"), graph.parts(pair, 2), strict=True):
            name = f"cross_{kind}_{i}"
            graph.node("Transpose", [graph.node("Reshape", [part, split])], [name], perm=[0, 2, 1, 3])
            outputs[name] = [1, graph.heads, "positions", HEAD]
    bands = weights["encoder/conv1/weight"].shape[1]
    graph.write(path, {"features": [1, bands, "frames"]}, outputs)


def _decoder(weights: dict[str, np.ndarray], largest: int, aligned: Sequence[int], path: Path) -> None:
    """``x`` (beams, new, width) -> ``logits`` (beams * new, vocabulary).

    Further inputs: ``parents`` (beams,), which row of the cache each beam goes on from; the cache,
    ``past_key_<i>`` and ``past_value_<i>`` (rows, heads, past, 64); what the encoder gave. Further outputs:
    the cache that goes on, ``key_<i>`` and ``value_<i>``, and of the layers in ``aligned`` the queries to the
    audio, ``query_<i>`` (beams * new, width).
    """
    graph = _Graph(weights, largest)
    inputs: dict[str, list[int | str]] = {"x": ["beams", "new", graph.width], "parents": ["beams"]}
    outputs: dict[str, list[int | str]] = {"logits": ["rows", "vocabulary"]}
    shape = graph.node("Shape", ["x"])
    # All beams look at the same audio, and a look knows nothing of the others: one row of the batch for all.
    one = graph.constant("one_row", np.array([1, -1, graph.width]))
    x = graph.node("Reshape", ["x", graph.constant("flat", np.array([-1, graph.width]))])
    for i in range(graph.layers("decoder")):
        layer = f"decoder/layer_{i}"
        past = []
        for kind in ("key", "value"):
            inputs[f"past_{kind}_{i}"] = ["before", graph.heads, "past", HEAD]
            inputs[f"cross_{kind}_{i}"] = [1, graph.heads, "positions", HEAD]
            outputs[f"{kind}_{i}"] = ["beams", graph.heads, "all", HEAD]
            past.append(graph.node("Gather", [f"past_{kind}_{i}", "parents"], axis=0))
        new = graph.projected(x, f"{layer}/self_attention", 3)
        kept = [f"said_{i}", f"key_{i}", f"value_{i}"]
        said = graph.attention([*new, "", "", "", *past], shape, kept, unidirectional=1)
        x = graph.node("Add", [x, graph.linear(said, f"{layer}/self_attention/linear_1")])
        (query,) = graph.projected(x, f"{layer}/attention", 1)
        if i in aligned:
            graph.node("Identity", [query], [f"query_{i}"])
            outputs[f"query_{i}"] = ["rows", graph.width]
        heard = graph.attention([query, f"cross_key_{i}", f"cross_value_{i}"], one)
        x = graph.node("Add", [x, graph.linear(heard, f"{layer}/attention/linear_2")])
        x = graph.feed_forward(x, layer)
    x = graph.norm(x, "decoder/layer_norm")
    graph.linear(x, "decoder/embeddings", outputs=["logits"])
    graph.write(path, inputs, outputs)


class _Graph:
    """A graph that is being written."""

    def __init__(self, weights: dict[str, np.ndarray], largest: int) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._rows: dict[str, tuple[str, str]] = {}  # what is quantised already
        self._flat: set[str] = set()  # queries, keys and values
        self._largest = largest
        self.width = weights["decoder/embeddings/weight"].shape[1]
        self.heads = self.width // HEAD

    def layers(self, half: str) -> int:
        return len(
            {name.split("/")[1] for name in self._weights if name.startswith(f"{half}/layer_")}
            - {"layer_norm"}
        )

    def constant(self, name: str, value: np.ndarray | np.generic) -> str:
        from onnx import numpy_helper

        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name].astype(np.float32))

    def node(
        self,
        operator: str,
        inputs: list[str],
        outputs: list[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node; returns its first output."""
        from onnx import helper

        outputs = outputs or [f"{operator}_{len(self._nodes)}"]
        self._nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def parts(self, x: str, count: int) -> list[str]:
        """``x`` in equal parts along the last axis, each ``width`` wide."""
        outputs = [f"{x}_{i}" for i in range(count)]
        sizes = self.constant(f"widths_{count}", np.array([self.width] * count))
        self.node("Split", [x, sizes], outputs, axis=-1)
        self._flat.update(outputs)
        return outputs

    def norm(self, x: str, name: str) -> str:
        scale, shift = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        return self.node("LayerNormalization", [x, scale, shift], axis=-1, epsilon=1e-5)

    def gelu(self, x: str) -> str:
        return self.node("Gelu", [x], domain=_MICROSOFT)

    def linear(self, x: str, name: str, outputs: list[str] | None = None) -> str:
        """``x`` (rows, inputs) times the weights (outputs, inputs), in int8, plus the bias if there is one.

        Every row of ``x`` has a scale of its own. With one for all (onnxruntime's DynamicQuantizeMatMul), the
        few positions that are much larger than the others make the error of the encoder twice as large.
        """
        weight = self._weights[f"{name}/weight"].astype(np.float32)
        scale = np.maximum(np.abs(weight).max(axis=1), 1e-8) / self._largest
        rounded = np.round(weight / scale[:, None]).astype(np.int8)
        rows, row_scale = self._quantised(x)
        given = [rows, self.constant(f"{name}/int8", rounded.T), self.constant("one", np.float32(1))]
        given += [self.constant(f"{name}/scale", scale), self.constant("middle", np.uint8(128))]
        product = self.node("MatMulIntegerToFloat", given, domain=_MICROSOFT)
        if f"{name}/bias" not in self._weights:
            return self.node("Mul", [product, row_scale], outputs)
        return self.node(
            "Add", [self.node("Mul", [product, row_scale]), self.weight(f"{name}/bias")], outputs
        )

    def _quantised(self, x: str) -> tuple[str, str]:
        """``x`` (rows, inputs) in uint8 around 128, and the scale of each row (rows, 1)."""
        if x not in self._rows:
            peak = self.node("ReduceMax", [self.node("Abs", [x])], axes=[-1], keepdims=1)
            scale = self.node("Mul", [peak, self.constant("step", np.float32(1 / 127))])
            scale = self.node("Max", [scale, self.constant("least", np.float32(1e-8))])
            scales = self.node("Reshape", [scale, self.constant("list", np.array([-1]))])
            middles = self.constant("middles", np.array([128], np.uint8))
            middles = self.node("Expand", [middles, self.node("Shape", [scales])])
            self._rows[x] = self.node("QuantizeLinear", [x, scales, middles], axis=0), scale
        return self._rows[x]

    def attention(
        self, inputs: list[str], shape: str, outputs: list[str] | None = None, **attributes: Any
    ) -> str:
        """Attention with the usual scale of 1 / sqrt(64).

        Args:
            inputs: queries and, unless they have heads already, keys and values as (rows, width).
            shape: name of the shape (batch, length, width) that those rows are.
        """
        inputs = [self.node("Reshape", [x, shape]) if x in self._flat else x for x in inputs]
        seen = self.node(
            "MultiHeadAttention", inputs, outputs, _MICROSOFT, num_heads=self.heads, **attributes
        )
        return self.node("Reshape", [seen, self.constant("flat", np.array([-1, self.width]))])

    def projected(self, x: str, block: str, count: int) -> list[str]:
        """What goes into an attention block: normalised and projected to ``count`` parts."""
        return self.parts(self.linear(self.norm(x, f"{block}/layer_norm"), f"{block}/linear_0"), count)

    def feed_forward(self, x: str, layer: str) -> str:
        inner = self.gelu(self.linear(self.norm(x, f"{layer}/ffn/layer_norm"), f"{layer}/ffn/linear_0"))
        return self.node("Add", [x, self.linear(inner, f"{layer}/ffn/linear_1")])

    def write(self, path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        import onnx
        from onnx import helper

        def described(shapes: dict[str, Any]) -> list[onnx.ValueInfoProto]:
            kinds = {"parents": onnx.TensorProto.INT64}
            return [
                helper.make_tensor_value_info(name, kinds.get(name, onnx.TensorProto.FLOAT), shape)
                for name, shape in shapes.items()
            ]

        graph = helper.make_graph(
            self._nodes, path.stem, described(inputs), described(outputs), list(self._constants.values())
        )
        # Operator set 17 and version 9 of the format: the oldest that will do, for older runtimes.
        domains = [helper.make_opsetid("", 17), helper.make_opsetid(_MICROSOFT, 1)]
        onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=9), path)
