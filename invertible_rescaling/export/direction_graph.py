"""Both directions of a rescaler as ONNX graphs: the flow layer by layer, the rest by hand or traced."""

import warnings

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram

from invertible_rescaling.export.directions import Direction, Downscale, Upscale
from invertible_rescaling.export.flow_graph import add_flow, obstacle
from invertible_rescaling.export.graph import Graph
from invertible_rescaling.export.latent_graph import add_latent
from invertible_rescaling.export.program import (
    export_program,
    program_of,
    refuse_noise,
    refuse_what_cannot_repeat,
)
from invertible_rescaling.layers.hooks import alteration
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = ["direction_graph", "traced_graph"]


def direction_graph(direction: Direction, opset: int) -> onnx.ModelProto | None:
    """Write a direction down layer by layer; ``None`` where its model has parts of other kinds.

    Raises:
        ConfigError: as for :func:`~invertible_rescaling.export.export_program`.
    """
    model = direction.model
    if type(model) is not InvertibleRescaler or alteration(model) or obstacle(model.flow):
        return None
    refuse_what_cannot_repeat(direction)
    if type(direction) is Downscale:
        return _downscale(model, direction, opset)
    return _upscale(model, direction, opset) if type(direction) is Upscale else None


def traced_graph(direction: Direction, opset: int) -> onnx.ModelProto:
    """Trace a direction of any model.

    Raises:
        ConfigError: as for :func:`~invertible_rescaling.export.export_program`.
    """
    program, (given, made) = export_program(direction), (direction.argument, direction.result)
    return _traced(program, direction.example(), given, made, opset)


def _traced(program: ExportedProgram, example: Tensor, given: str, made: str, opset: int) -> onnx.ModelProto:
    """A program of one image batch as ONNX, by :mod:`torch.onnx`."""
    with warnings.catch_warnings():
        # Of torch itself, as it copies the program.
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        exported = torch.onnx.export(
            program,
            (example,),
            dynamo=True,
            opset_version=opset,
            verbose=False,
            input_names=[given],
            output_names=[made],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
        )
    if exported is None:  # by its type alone: with dynamo=True there is a program
        raise RuntimeError("torch.onnx.export returned no program")
    file: onnx.ModelProto = exported.model_proto
    for part in (*file.graph.node, *file.graph.value_info, *file.graph.initializer, file.graph):
        part.ClearField("metadata_props")  # stack traces, with the paths of whoever exports
    return file


def _downscale(model: InvertibleRescaler, direction: Downscale, opset: int) -> onnx.ModelProto:
    graph, scale, dtype = Graph(opset), model.scale, _dtype(model)
    padded = _add_padding(graph, direction.argument, scale)
    state = add_flow(graph, model.flow, padded, model.channels, dtype, inverse=False)
    ends = (graph.constant(np.array([end], np.int64)) for end in (0, model.channels, 1))
    low = graph.add("Slice", state, *ends)
    steps = graph.constant(torch.tensor(2.0**direction.bits - 1, dtype=dtype))
    rounded = graph.add("Round", graph.add("Mul", _add_clamp(graph, low, dtype), steps))
    sides = (f"(({side} + {scale - 1})//{scale})" for side in ("height", "width"))
    return graph.model(
        graph.add("Div", rounded, steps),
        (direction.argument, ("batch", model.channels, "height", "width")),
        (direction.result, ("batch", model.channels, *sides)),
        dtype,
    )


def _upscale(model: InvertibleRescaler, direction: Upscale, opset: int) -> onnx.ModelProto:
    graph, scale, dtype = Graph(opset), model.scale, _dtype(model)
    latent = add_latent(graph, model.latent, direction.argument, model.channels, scale, dtype)
    if latent is None:
        program = program_of(model.latent, direction.example(), direction.least_side)
        refuse_noise(model.latent, program)
        latent = graph.call(_traced(program, direction.example(), "lr", "z", opset), direction.argument)
    state = graph.add("Concat", direction.argument, latent, axis=1)
    hr = add_flow(graph, model.flow, state, model.channels * scale**2, dtype, inverse=True)
    sides = (f"{scale}*{side}" for side in ("height", "width"))
    return graph.model(
        _add_clamp(graph, hr, dtype),
        (direction.argument, ("batch", model.channels, "height", "width")),
        (direction.result, ("batch", model.channels, *sides)),
        dtype,
    )


def _add_padding(graph: Graph, x: str, multiple: int) -> str:
    """Repeat the last row and column until both sides are multiples."""

    def whole(*values: int) -> str:
        return graph.constant(np.array(values, np.int64))

    sides = graph.add("Slice", graph.add("Shape", x), whole(2), whole(4))
    over = graph.add("Mod", sides, whole(multiple))
    missing = graph.add("Mod", graph.add("Sub", whole(multiple), over), whole(multiple))
    return graph.add("Pad", x, graph.add("Concat", whole(0, 0, 0, 0, 0, 0), missing, axis=0), mode="edge")


def _add_clamp(graph: Graph, x: str, dtype: torch.dtype) -> str:
    low, high = (graph.constant(torch.tensor(float(bound), dtype=dtype)) for bound in (0, 1))
    return graph.add("Clip", x, low, high)


def _dtype(model: InvertibleRescaler) -> torch.dtype:
    return next((weight.dtype for weight in model.parameters()), torch.float32)
