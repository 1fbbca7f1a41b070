"""ONNX models: run on the CPU, and cut into parts.

The published models of voices make audio of phonemes in one go. To change how something is said, they are cut
where the network has decided how long each phoneme lasts, and where it has drawn pitch and energy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    import onnx


def session(path: Path, threads: int) -> Any:
    """An ONNX model on the CPU (an ``InferenceSession``): small in memory, leaves waiting cores to others.

    Typed as Any: its ``run`` is declared to return sparse tensors and maps, too, which no model here does.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Pieces differ in length, and a plan of the memory is kept for every length there was. Without plans, and
    # with the arena to reuse blocks, ten seconds of Kokoro peak at 0.46 GB instead of 1.06, and are quicker.
    options.enable_mem_pattern = False
    # The language model writes at the same time on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Graph:
    """The nodes of a model, to be rewired and written in part."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes = {tensor.name: tensor for tensor in model.graph.value_info}
        self._opsets = model.opset_import

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        return next((node for node in self.nodes if tensor in node.output), None)

    def users(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if tensor in node.input]

    def redirect(self, old: str, new: str) -> None:
        """Let everything that uses a tensor use another."""
        for node in self.users(old):
            node.input[:] = [new if name == old else name for name in node.input]

    def add(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)

    def constant(self, name: str, value: np.ndarray) -> None:
        import onnx

        self._constants[name] = onnx.numpy_helper.from_array(value, name)

    def write(self, path: Path, inputs: dict[str, tuple], outputs: dict[str, tuple]) -> None:
        """Write the part of the graph that makes ``outputs`` from ``inputs`` (name: (type, shape))."""
        import onnx
        from onnx import helper

        makers = {tensor: node for node in self.nodes for tensor in node.output}
        nodes: list[onnx.NodeProto] = []
        entered, done = set(), set(inputs) | set(self._constants) | {""}
        stack = list(outputs)
        while stack:  # depth first; a node is written after the makers of all its inputs
            tensor = stack[-1]
            if tensor in done:
                stack.pop()
            elif tensor in entered:
                nodes.append(makers[tensor])
                done.update(makers[tensor].output)
            else:
                entered.update(makers[tensor].output)
                stack += [name for name in makers[tensor].input if name not in done]
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            path.stem,
            [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
            [tensor for name, tensor in self._constants.items() if name in used],
            # Runtimes fuse what they know the shapes of: without them, a part would not compute bit for bit
            # what it does as a part of the whole.
            value_info=[self._shapes[name] for name in used & set(self._shapes) - set(inputs) - set(outputs)],
        )
        # Version 9 of the file format: the oldest with this operator set, so that older runtimes read it.
        onnx.save(helper.make_model(graph, opset_imports=self._opsets, ir_version=9), path)
