"""Checks for invertible layers, the library's and users' own.

As constructed, a coupling is the identity, and a round trip through it proves nothing: give the weights
values first, with :func:`randomize` or by training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, InvertibilityError

__all__ = ["InvertibilityReport", "check_invertible", "check_log_det", "randomize"]

_ROUND_TRIP_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
_LOG_DET_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}

Tensors = tuple[Tensor, ...]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class InvertibilityReport:
    """The measurements of :func:`check_invertible`.

    Attributes:
        forward_error: largest abs(x - inverse(forward(x))).
        inverse_error: largest abs(y - forward(inverse(y))).
        amplification: the larger of the two over the dtype's epsilon: how many roundings the error is worth.
        tolerance: what the errors were allowed to be.
    """

    forward_error: float
    inverse_error: float
    amplification: float
    tolerance: float


def randomize(module: Module, gain: float = 0.5, seed: int = 0) -> Module:
    """Fill every parameter, in place, with reproducible non-zero values; return the module.

    Weights of two or more dimensions become normal with standard deviation ``gain / sqrt(fan_in)``, all
    others (biases) normal with standard deviation ``gain / 10``.

    Args:
        module: any module.
        gain: 0.5 is moderate; the inverse of 16 couplings degrades from about 1 on.
        seed: of the draw, which is the same in every dtype and on every device.

    Example:
        >>> from invertible_rescaling import CRDB, AffineCoupling
        >>> from invertible_rescaling.testing import randomize
        >>> coupling = randomize(AffineCoupling(12, 3, CRDB))
        >>> all(parameter.abs().min() > 0 for parameter in coupling.parameters())
        True
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            std = gain / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else gain / 10
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def check_invertible(
    module: Any, x: Tensor, *, condition: Tensor | None = None, tolerance: float | None = None
) -> InvertibilityReport:
    """Check that ``inverse`` undoes ``forward`` and the other way round.

    Also checked: both directions are deterministic and leave their inputs as they were; outputs are finite,
    of the input's dtype, and as many values as go in; the ``with_log_det`` forms return the same tensors and
    finite ``(B,)`` log-determinants.

    Args:
        module: an :class:`~invertible_rescaling.InvertibleModule`, or anything with ``forward`` and
            ``inverse`` alike. A forward that returns several tensors, such as a rescaler's, has an inverse
            that takes as many.
        x: an input, float32 or float64.
        condition: what the module takes beside it, for one with ``condition_channels``.
        tolerance: largest error allowed; 1e-4 for float32, 1e-12 for float64 by default.

    Raises:
        InvertibilityError: an ``AssertionError`` that names the broken rule and the figure.

    Example:
        >>> import torch
        >>> from invertible_rescaling import HaarDownsampling
        >>> from invertible_rescaling.testing import check_invertible
        >>> check_invertible(HaarDownsampling(3), torch.rand(2, 3, 8, 8)).forward_error < 1e-6
        True
    """
    tolerance = _tolerance_for(x, tolerance, _ROUND_TRIP_TOLERANCE)
    given = () if condition is None else (condition,)
    with torch.no_grad():
        y = _run("forward", module, (x, *given))
        if sum(t.numel() for t in y) != x.numel():
            raise InvertibilityError(
                f"a bijection keeps the number of values, forward maps {tuple(x.shape)} to "
                f"{', '.join(str(tuple(t.shape)) for t in y)}"
            )
        undone = _run("inverse", module.inverse, (*y, *given))
        forward_error = _largest_difference((x,), undone, "inverse(forward(x))")
        other = tuple(t.flip(0) + 0.01 for t in y)  # a point that no forward call produced
        back = _run("inverse", module.inverse, (*other, *given))
        again = _run("forward", module, (*back, *given))
        inverse_error = _largest_difference(other, again, "forward(inverse(y))")
        _check_log_det_form("forward_with_log_det", module, (x, *given), y)
        _check_log_det_form("inverse_with_log_det", module, (*other, *given), back)
    worst = max(forward_error, inverse_error)
    report = InvertibilityReport(forward_error, inverse_error, worst / torch.finfo(x.dtype).eps, tolerance)
    if not worst <= tolerance:
        raise InvertibilityError(
            f"the round trip is off by {worst:.3g}, more than {tolerance:.3g} allowed for {x.dtype} "
            f"({report.amplification:.3g} times epsilon; forward-inverse {forward_error:.3g}, "
            f"inverse-forward {inverse_error:.3g})"
        )
    return report


def check_log_det(
    module: Any, x: Tensor, *, condition: Tensor | None = None, tolerance: float | None = None
) -> float:
    """Check both log-determinants against ``slogdet`` of the autograd Jacobian, sample by sample.

    The Jacobian is square in the number of values per sample: keep that to some hundreds.

    Args:
        module: as for :func:`check_invertible`, with ``forward_with_log_det`` and ``inverse_with_log_det``.
        x: an input, float64 by preference.
        condition: as for :func:`check_invertible`.
        tolerance: largest error allowed, relative to 1 + abs(log-det); 1e-9 for float64 and 1e-3 for float32.

    Returns:
        The largest such error.

    Raises:
        InvertibilityError: an ``AssertionError`` with both figures.

    Example:
        >>> import torch
        >>> from invertible_rescaling import HaarDownsampling
        >>> from invertible_rescaling.testing import check_log_det
        >>> check_log_det(HaarDownsampling(1), torch.rand(2, 1, 4, 4, dtype=torch.float64)) < 1e-9
        True
    """
    tolerance = _tolerance_for(x, tolerance, _LOG_DET_TOLERANCE)
    given = () if condition is None else (condition,)
    with torch.no_grad():
        outputs, forward_log_det = module.forward_with_log_det(x, *given)
        y = _as_tuple(outputs)
        _, inverse_log_det = module.inverse_with_log_det(*y, *given)
    worst = 0.0
    for i in range(x.shape[0]):
        x_i, y_i, given_i = (tuple(t[i : i + 1].detach() for t in tensors) for tensors in ((x,), y, given))
        for name, claimed, expected in (
            ("forward_with_log_det", forward_log_det[i], _slogdet(module, x_i, given_i)),
            ("inverse_with_log_det", inverse_log_det[i], _slogdet(module.inverse, y_i, given_i)),
        ):
            error = abs(float(claimed) - expected) / (1 + abs(expected))
            if not error <= tolerance:
                raise InvertibilityError(
                    f"{name} returned {float(claimed):.9g} for sample {i}, the Jacobian gives {expected:.9g}"
                )
            worst = max(worst, error)
    return worst


def _tolerance_for(x: Tensor, tolerance: float | None, table: dict[torch.dtype, float]) -> float:
    if x.dtype not in table:
        raise ConfigError(f"checks take float32 or float64 inputs, got {x.dtype}")
    return table[x.dtype] if tolerance is None else tolerance


def _as_tuple(out: Any) -> Tensors:
    return (out,) if isinstance(out, Tensor) else tuple(out)


def _run(name: str, function: Callable[..., Any], inputs: Tensors) -> Tensors:
    """Call twice; refuse changed inputs, differing results and values that are not finite."""
    before = [t.clone() for t in inputs]
    first = _as_tuple(function(*inputs))
    kept = [t.clone() for t in first]
    second = _as_tuple(function(*inputs))
    if not all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True)):
        raise InvertibilityError(f"{name} modified its input")
    if not all(torch.equal(a, b) for a, b in zip(kept, second, strict=True)):
        if not all(torch.isfinite(t).all() for t in kept):
            raise InvertibilityError(f"{name} returned values that are not finite")
        raise InvertibilityError(f"{name} is not deterministic: two calls differ")
    for t in first:
        if t.dtype != inputs[0].dtype:
            raise InvertibilityError(f"{name} turned {inputs[0].dtype} into {t.dtype}")
        if not torch.isfinite(t).all():
            raise InvertibilityError(f"{name} returned values that are not finite")
    return first


def _largest_difference(expected: Tensors, got: Tensors, what: str) -> float:
    shapes = [tuple(t.shape) for t in expected], [tuple(t.shape) for t in got]
    if shapes[0] != shapes[1]:
        raise InvertibilityError(f"{what} has shape {shapes[1]}, not {shapes[0]}")
    return max(float((a - b).abs().max()) for a, b in zip(expected, got, strict=True))


def _check_log_det_form(name: str, module: Any, inputs: Tensors, expected: Tensors) -> None:
    method = getattr(module, name, None)
    if method is None:
        return
    before = [t.clone() for t in inputs]
    out, log_det = method(*inputs)
    if not all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True)):
        raise InvertibilityError(f"{name} modified its input")
    if not all(torch.equal(a, b) for a, b in zip(_as_tuple(out), expected, strict=True)):
        raise InvertibilityError(f"{name} returns another tensor than the direction without the log-det")
    batch = (inputs[0].shape[0],)
    if tuple(log_det.shape) != batch or not torch.isfinite(log_det).all():
        raise InvertibilityError(f"{name} must return a finite log-det of shape {batch}, got {log_det}")


def _slogdet(function: Callable[..., Any], inputs: Tensors, given: Tensors) -> float:
    """log|det| of the Jacobian of ``function``, all inputs and outputs flattened and joined."""
    sizes, shapes = [t.numel() for t in inputs], [t.shape for t in inputs]

    def flat(joined: Tensor) -> Tensor:
        parts = [p.view(s) for p, s in zip(torch.split(joined, sizes), shapes, strict=True)]
        return torch.cat([t.flatten() for t in _as_tuple(function(*parts, *given))])

    joined = torch.cat([t.flatten() for t in inputs])
    jacobian = torch.func.jacrev(flat)(joined).detach()
    return float(torch.linalg.slogdet(jacobian.double())[1])
