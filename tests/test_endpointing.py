"""Smart Turn's input: the last 8 s, and what rate it takes. The model itself is in tests/models."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stepaudio.core.audio import AudioChunk
from stepaudio.recognition.endpointing import SmartTurn


@pytest.fixture
def mean_of_features(tmp_path):
    """A model of Smart Turn's shape whose score is the mean of its features in the first 10 ms frame."""
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["input_features", "zero", "one", "axis"], ["first"]),
            helper.make_node("ReduceMean", ["first"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "unit"], ["logits"]),
        ],
        "fake",
        [helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["n", 80, 800])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [2]),
            helper.make_tensor("unit", TensorProto.INT64, [1], [1]),
        ],
    )
    path = tmp_path / "fake.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return SmartTurn(path)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)


def test_only_the_last_8_seconds_are_heard(mean_of_features: SmartTurn) -> None:
    last = noise(8)
    longer = np.concatenate([np.ones(16_000, np.float32), last])
    assert mean_of_features.score(AudioChunk(longer, 16_000)) == mean_of_features.score(
        AudioChunk(last, 16_000)
    )


def test_a_short_turn_stands_at_the_end(mean_of_features: SmartTurn) -> None:
    silent_start = mean_of_features.score(AudioChunk(noise(2), 16_000))
    assert silent_start < mean_of_features.score(AudioChunk(noise(8), 16_000)) - 0.5


def test_loudness_does_not_count(mean_of_features: SmartTurn) -> None:
    loud, soft = (mean_of_features.score(AudioChunk(gain * noise(8), 16_000)) for gain in (1, 0.1))
    assert loud == pytest.approx(soft, abs=1e-3)


def test_no_sound_at_all_has_a_score(mean_of_features: SmartTurn) -> None:
    assert np.isfinite(mean_of_features.score(AudioChunk(np.zeros(0, np.float32), 16_000)))


def test_another_rate_is_refused(mean_of_features: SmartTurn) -> None:
    with pytest.raises(ValueError, match="16000"):
        mean_of_features.score(AudioChunk(noise(1), 8_000))
