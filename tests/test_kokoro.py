"""Kokoro's parts that need no weights: pieces, phase, blending, statistics, and the surgery on a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from stepaudio.tts import kokoro
from stepaudio.tts.graph import Graph
from stepaudio.tts.kokoro import PIECES, _keep, _Manner, blend, pieces, source_phase
from stepaudio.tts.voicebank import Character


@pytest.mark.parametrize("frames", [0, 1, 20, 29, 30, 31, 100, 178, 400, 1001])
@pytest.mark.parametrize("done", [0, 1, 9])
def test_pieces_cover_all_frames_in_order(frames: int, done: int) -> None:
    found = list(pieces(frames, done))
    assert [begin for begin, _ in found] == [0, *(end for _, end in found)][: len(found)]
    assert sum(end - begin for begin, end in found) == frames
    assert all(0 < end - begin < 1.5 * PIECES[-1] for begin, end in found)


def test_pieces_grow_and_go_on_growing_in_the_next_run() -> None:
    assert list(pieces(200)) == [(0, 20), (20, 50), (50, 98), (98, 146), (146, 200)]
    assert next(iter(pieces(200, done=2))) == (0, 48)


def test_blend_goes_from_old_to_new() -> None:
    mixed = blend(np.ones(4, np.float32), np.zeros(4, np.float32))
    assert mixed.tolist() == [0.875, 0.625, 0.375, 0.125]
    assert blend(np.zeros(0), np.zeros(0)).size == 0


def test_source_phase_continues_the_source() -> None:
    assert np.all(source_phase(np.zeros(0)) == 0)
    phase = source_phase(np.full(3, 100.0))  # 3 * 300 samples of 100 Hz: 3.75 cycles
    assert phase.shape == (1, 1, 9)
    assert phase.dtype == np.float32
    assert phase[0, 0, :4] * 300 == pytest.approx([0.75, 0.5, 0.25, 0.0], abs=1e-5)


def manner() -> _Manner:
    means = np.array([0.0, 2.0, 4.0], np.float32).reshape(3, 1, 1, 1)
    variances = np.array([1.0, 1.0, 3.0], np.float32).reshape(3, 1, 1, 1)
    character = Character(np.zeros((510, 1, 256), np.float32), "en-US")
    return _Manner(character, np.array([-3.0, 1.0, 2.0]), means, variances)


@pytest.mark.parametrize(
    ("energy", "mean", "variance"),
    [
        (-3, 0, 1),
        (1, 2, 1),
        (2, 4, 3),
        (-1, 1, 2),  # half of each: spread about 0 and about 2 by 1 is spread about 1 by 2
        (1.5, 3, 3),
        (-9, 0, 1),
        (9, 4, 3),
    ],
)
def test_statistics_are_those_of_a_mixture_and_stay_within(
    energy: float, mean: float, variance: float
) -> None:
    found = manner().statistics(energy)
    assert found.dtype == np.float32
    assert found.shape == (1, 2, 1)
    assert found[0, :, 0] == pytest.approx([mean, variance])


def test_statistics_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    _keep(manner(), tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    with np.load(tmp_path / "a.npz") as file:
        assert file["energies"].tolist() == [-3, 1, 2]
        assert np.array_equal(file["means"], manner().means)
        assert np.array_equal(file["variances"], manner().variances)
    _keep(manner(), tmp_path / "not there" / "a.npz")  # a folder that cannot be written is no error


# The surgery, on a graph that normalises as the decoder does


def normalising_graph() -> Graph:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["unit"]),
        helper.make_node("Mul", ["scale", "unit"], ["scaled"], name="mul"),
        helper.make_node("Add", ["scaled", "offset"], ["y"]),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    values = {"deviation": 2.0, "scale": 3.0, "offset": 1.0}
    constants = [onnx.numpy_helper.from_array(np.full((1, 1), v, np.float32), k) for k, v in values.items()]
    graph = helper.make_graph(nodes, "g", [], [], constants)
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


ROW = (TensorProto.FLOAT, [1, "n"])


def run(path: Path, outputs: list[str], **inputs: np.ndarray) -> list[np.ndarray]:
    model = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return model.run(outputs, inputs)  # type: ignore[return-value]


def test_part_of_a_graph_is_written_with_what_it_needs(tmp_path: Path) -> None:
    graph = normalising_graph()
    graph.write(tmp_path / "part.onnx", {"y": ROW}, {"z": ROW})
    assert [node.op_type for node in onnx.load(tmp_path / "part.onnx").graph.node] == ["Neg"]
    assert run(tmp_path / "part.onnx", ["z"], y=np.ones((1, 2), np.float32))[0].tolist() == [[-1, -1]]


def test_folded_normalisation_is_the_same_sum(tmp_path: Path) -> None:
    x = np.array([[1.0, 2.0, 6.0]], np.float32)
    graph = normalising_graph()
    graph.write(tmp_path / "whole.onnx", {"x": ROW}, {"y": ROW})
    graph.redirect("mean", "given")
    kokoro._fold_normalisation(graph, {"given"})
    graph.write(tmp_path / "folded.onnx", {"x": ROW, "given": (TensorProto.FLOAT, [1, 1])}, {"y": ROW})
    operations = [node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node]
    assert sorted(operations) == ["Add", "Div", "Mul", "Mul", "Sub"]  # nothing that looks at all of x
    (expected,) = run(tmp_path / "whole.onnx", ["y"], x=x)
    (folded,) = run(tmp_path / "folded.onnx", ["y"], x=x, given=np.full((1, 1), 3.0, np.float32))
    assert folded == pytest.approx(expected)


def test_module_of_a_node() -> None:
    assert kokoro._module("/decoder/encode/norm1/ReduceMean") == "decoder.encode.norm1"
