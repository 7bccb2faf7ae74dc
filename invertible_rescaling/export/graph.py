"""ONNX graphs, node by node."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

__all__ = ["Graph"]

IR_VERSION = 10  # what ONNX Runtime 1.20 reads
Port = tuple[str, Sequence[int | str | None]]  # name and shape


class Graph:
    """Nodes and constants of an ONNX graph in the making; values go by name.

    Args:
        opset: version of the operators.
    """

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._count = 0

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output; return that."""
        out = self._name(operator)
        self._nodes.append(helper.make_node(operator, list(inputs), [out], name=out, **attributes))
        return out

    def split(self, x: str, sizes: Sequence[int]) -> list[str]:
        """Cut channels into parts of these sizes."""
        parts = [self._name("part") for _ in sizes]
        given = [x, self.constant(np.array(sizes, np.int64))]
        self._nodes.append(helper.make_node("Split", given, parts, axis=1, name=parts[0]))
        return parts

    def constant(self, value: Tensor | NDArray[Any]) -> str:
        """Add a constant; return its name."""
        name = self._name("constant")
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def call(self, other: onnx.ModelProto, x: str) -> str:
        """Add all nodes of a model with one input and one output, applied to ``x``; return its output."""
        prefix, names = self._name("call") + "_", {other.graph.input[0].name: x}

        def renamed(name: str) -> str:
            return names.setdefault(name, prefix + name) if name else ""

        for constant in other.graph.initializer:
            self._constants.append(onnx.TensorProto.FromString(constant.SerializeToString()))
            self._constants[-1].name = renamed(constant.name)
        for node in other.graph.node:
            self._nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            mine = self._nodes[-1]
            mine.name = prefix + node.name
            mine.input[:], mine.output[:] = map(renamed, node.input), map(renamed, node.output)
        return renamed(other.graph.output[0].name)

    def model(self, value: str, given: Port, made: Port, dtype: torch.dtype) -> onnx.ModelProto:
        """Return the model of this graph, with one input and one output.

        Args:
            value: what is put out.
            given: name and shape of the input; nodes were given it by that name.
            made: name and shape of the output.
            dtype: of both.
        """
        self._nodes.append(helper.make_node("Identity", [value], [made[0]], name=made[0]))
        element = helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=dtype).numpy().dtype)
        ports = [helper.make_tensor_value_info(name, element, shape) for name, shape in (given, made)]
        graph = helper.make_graph(self._nodes, made[0], ports[:1], ports[1:], self._constants)
        imports = [helper.make_opsetid("", self._opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what.lower()}_{self._count}"
