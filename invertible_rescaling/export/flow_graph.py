"""The flow of a rescaler as an ONNX graph, layer by layer: in a second, where tracing takes a minute."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.export.graph import Graph
from invertible_rescaling.functional import haar_reconstruct
from invertible_rescaling.layers.base import InvertibleSequential
from invertible_rescaling.layers.coupling import AdditiveCoupling, AffineCoupling
from invertible_rescaling.layers.haar import HaarDownsampling
from invertible_rescaling.layers.hooks import alteration
from invertible_rescaling.layers.subnet_parts import ChannelAttention
from invertible_rescaling.layers.subnets import CRDB, RRDB, Conv, DenseBlock

__all__ = ["add_flow", "add_haar", "obstacle"]

_LAYERS = (HaarDownsampling, AffineCoupling, AdditiveCoupling)
_NETWORKS = (Conv, CRDB, DenseBlock, RRDB)
_SLOPE, _RESIDUAL = 0.2, 0.2  # as in the sub-networks


def obstacle(flow: InvertibleSequential) -> str | None:
    """Why a flow cannot be written down layer by layer, as a predicate; ``None`` where it can."""
    if type(flow) is not InvertibleSequential:
        return f"is of class {type(flow).__name__}"
    for layer in flow:
        if type(layer) not in _LAYERS:
            return f"has a layer of class {type(layer).__name__}"
        if getattr(layer, "condition_channels", 0):
            return "has couplings that take a condition"
        for network in layer.children():
            if type(network) not in _NETWORKS:
                return f"has sub-networks of class {type(network).__name__}"
    altered = alteration(flow)
    return None if altered is None else f"has a layer that {altered}"


def add_flow(
    graph: Graph, flow: InvertibleSequential, x: str, channels: int, dtype: torch.dtype, *, inverse: bool
) -> str:
    """Add a flow, or its inverse, of a state ``(B, C, H, W)`` to a graph; return the name of what it makes.

    Args:
        graph: to add to.
        flow: the layers.
        x: the state's name.
        channels: of the state, C.
        dtype: of the state, and of the weights.
        inverse: the direction.

    Raises:
        ConfigError: it cannot be written down; :func:`obstacle` says why.
    """
    problem = obstacle(flow)
    if problem is not None:
        raise ConfigError(f"only flows of this library's own layers have a graph; this one {problem}")
    state = _State(graph, x, channels, dtype)
    layers = list(flow)
    with torch.no_grad():
        for layer in reversed(layers) if inverse else layers:
            if isinstance(layer, HaarDownsampling):
                channels, whole = layer.channels, state.whole()
                if inverse:
                    state.put((_add_haar_inverse(graph, whole, channels, dtype),), (channels,))
                else:
                    state.put((add_haar(graph, whole, channels, dtype),), (4 * channels,))
            else:
                _add_coupling(graph, state, layer, inverse=inverse)  # type: ignore[arg-type]
    return state.whole()


class _State:
    """A state that is kept in the two parts that couplings work on."""

    def __init__(self, graph: Graph, x: str, channels: int, dtype: torch.dtype) -> None:
        self._graph, self.dtype = graph, dtype
        self.put((x,), (channels,))

    def put(self, parts: Iterable[str], sizes: Iterable[int]) -> None:
        self._parts, self._sizes = tuple(parts), tuple(sizes)

    def whole(self) -> str:
        return self._parts[0] if len(self._parts) == 1 else self._graph.add("Concat", *self._parts, axis=1)

    def halves(self, split: int, channels: int) -> tuple[str, str]:
        if self._sizes != (split, channels - split):
            self.put(self._graph.split(self.whole(), (split, channels - split)), (split, channels - split))
        first, second = self._parts
        return first, second


def add_haar(graph: Graph, x: str, channels: int, dtype: torch.dtype) -> str:
    """Add :func:`~invertible_rescaling.functional.haar_decompose` of so many channels."""
    same = torch.eye(channels)
    kernel = torch.einsum("kij,cd->kcdij", _haar_signs(), same).reshape(4 * channels, channels, 2, 2) / 4
    return graph.add("Conv", x, graph.constant(kernel.to(dtype)), kernel_shape=[2, 2], strides=[2, 2])


def _add_haar_inverse(graph: Graph, x: str, channels: int, dtype: torch.dtype) -> str:
    same = torch.eye(channels)
    mixing = torch.einsum("kij,cd->cijkd", _haar_signs(), same).reshape(4 * channels, 4 * channels, 1, 1)
    mixed = graph.add("Conv", x, graph.constant(mixing.to(dtype)), kernel_shape=[1, 1])
    return graph.add("DepthToSpace", mixed, blocksize=2, mode="CRD")


def _haar_signs() -> Tensor:
    """What each of the four bands is enlarged to, ``(4, 2, 2)``."""
    return haar_reconstruct(torch.eye(4).view(4, 4, 1, 1)).squeeze(1)


def _add_coupling(
    graph: Graph, state: _State, layer: AffineCoupling | AdditiveCoupling, *, inverse: bool
) -> None:
    first, second = state.halves(layer.split, layer.channels)
    if not inverse:
        first = graph.add("Add", first, _add_network(graph, second, layer.phi))
        if isinstance(layer, AffineCoupling):
            second = graph.add("Mul", second, _add_scale(graph, state, first, layer, 1))
        second = graph.add("Add", second, _add_network(graph, first, layer.eta))
    else:
        second = graph.add("Sub", second, _add_network(graph, first, layer.eta))
        if isinstance(layer, AffineCoupling):
            second = graph.add("Mul", second, _add_scale(graph, state, first, layer, -1))
        first = graph.add("Sub", first, _add_network(graph, second, layer.phi))
    state.put((first, second), (layer.split, layer.channels - layer.split))


def _add_scale(graph: Graph, state: _State, x: str, layer: AffineCoupling, sign: int) -> str:
    """exp(s), or exp(-s): the half of rho and the sign are in its last weights, as tanh is odd."""
    log_scale = graph.add("Tanh", _add_network(graph, x, layer.rho, 0.5 * sign))
    if layer.clamp != 1:
        log_scale = graph.add("Mul", log_scale, graph.constant(torch.tensor(layer.clamp, dtype=state.dtype)))
    return graph.add("Exp", log_scale)


def _add_network(graph: Graph, x: str, network: nn.Module, gain: float = 1.0) -> str:
    """A sub-network, its output times a gain."""
    if isinstance(network, Conv):
        return _add_conv(graph, x, gain * network.last.weight, gain * network.last.bias)
    if isinstance(network, RRDB):
        return _add_rrdb(graph, x, network, gain)
    if not isinstance(network, CRDB | DenseBlock):
        raise TypeError(type(network))
    parts = [x]
    convs: Any = network.features.convs
    for conv in convs:
        joined = graph.add("Concat", *parts, axis=1) if len(parts) > 1 else x
        made = _add_conv(graph, joined, conv.weight, conv.bias, conv.dilation)
        parts.append(graph.add("LeakyRelu", made, alpha=_SLOPE))
    features = graph.add("Concat", *parts, axis=1)
    if isinstance(network, CRDB) and network.attention is not None:
        features = graph.add("Mul", features, _add_attention(graph, features, network.attention))
    return _add_conv(graph, features, gain * network.last.weight, gain * network.last.bias)


def _add_attention(graph: Graph, x: str, attention: ChannelAttention) -> str:
    mlp: Any = attention.mlp
    first, _, second = mlp
    made = []
    for kind in ("Average", "Max"):
        hidden = _add_conv(graph, graph.add(f"Global{kind}Pool", x), first.weight, first.bias)
        made.append(_add_conv(graph, graph.add("Relu", hidden), second.weight, second.bias))
    return graph.add("Sigmoid", graph.add("Add", *made))


def _add_rrdb(graph: Graph, x: str, network: RRDB, gain: float) -> str:
    def scaled(value: str, by: float) -> str:
        weight = next(network.parameters())
        return graph.add("Mul", value, graph.constant(torch.tensor(by, dtype=weight.dtype)))

    body = x
    for block in network.blocks:
        body = graph.add("Add", body, _add_network(graph, body, block, _RESIDUAL))
    out = graph.add("Add", x, scaled(body, _RESIDUAL))
    if network.projection is None:
        return scaled(out, gain)
    gain *= _RESIDUAL
    return _add_conv(graph, out, gain * network.projection.weight, gain * network.projection.bias)


def _add_conv(graph: Graph, x: str, weight: Tensor, bias: Tensor, dilation: int = 1) -> str:
    size = list(weight.shape[2:])
    pad = dilation * (size[0] // 2)
    shape = {"kernel_shape": size, "dilations": [dilation] * 2, "pads": [pad] * 4}
    return graph.add("Conv", x, graph.constant(weight), graph.constant(bias), **shape)
