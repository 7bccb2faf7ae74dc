"""SOAP: Adam in the eigenbasis of the gradients' second moments, for the kernels of convolutions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Bases = tuple[Tensor, Tensor, Tensor]  # of the modes out, in and taps: a column a direction


class SOAP(torch.optim.Optimizer):
    r"""Adam in a rotated basis for kernels, plain Adam for all other parameters.

    A kernel ``(out, in, height, width)`` has a gradient G of three modes: out, in and taps. With the
    eigenvectors Q of each mode's second moment,
    :math:`L_k \leftarrow \beta L_k + (1 - \beta) G_{(k)} G_{(k)}^T`,

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) G, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) (Q^T G)^2, \quad
        p \leftarrow p - \eta \, Q \, \frac{Q^T m}{\sqrt v + \epsilon}

    with Adam's corrections of m and v for their zero start. Adam itself takes Q = 1: the taps of a kernel see
    nearly the same picture, so all their second moments hold the noise of the kernel's mean, and differences
    between taps, which a code in LR consists of, are divided by it.

    :meth:`refresh` follows the eigenvectors by one step of subspace iteration; call it every ten steps or so.
    It stands apart from :meth:`step`, which waits for nothing on the host and so can be captured as a CUDA
    graph. Parameters of a shape are computed together, and their state, stacked, is kept under the first of
    them. The first step on a kernel only takes its statistics. A step for which ``found_inf`` is set to a
    tensor of 1 leaves parameters and state as they are, as it does for torch's fused Adam.

    References:
        Vyas et al. 2024, *SOAP: Improving and Stabilizing Shampoo using Adam*, algorithm 3.

    Args:
        params: tensors or groups, as any optimiser of torch takes them.
        lr: learning rate; a number or a tensor of one.
        betas: decay of m and of v.
        statistics_beta: decay of L.
        eps: added to the root of v.
        fixed: bases of kernels to keep, in place of eigenvectors; nothing is estimated then.

    Example:
        >>> import torch
        >>> kernel = torch.nn.Parameter(torch.ones(4, 3, 3, 3))
        >>> optimizer = SOAP([kernel], lr=0.1)
        >>> for step in range(200):
        ...     kernel.grad = 2 * kernel.detach()
        ...     optimizer.step()
        ...     if step % 10 == 0:
        ...         optimizer.refresh()
        >>> bool(kernel.abs().max() < 0.1)
        True
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        statistics_beta: float = 0.95,
        eps: float = 1e-8,
        fixed: Mapping[Tensor, Bases] | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "statistics_beta": statistics_beta, "eps": eps})
        self._fixed = fixed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step on the gradients at hand; parameters without one have a gradient of zeros."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for alike in _by_shape(group["params"]):
                self._step_alike(group, alike)
        return loss

    @torch.no_grad()
    def refresh(self) -> None:
        """Turn the bases towards the eigenvectors of the statistics."""
        for state in self.state.values():
            for mode in range(3) if "statistics0" in state else ():
                statistics, basis = state[f"statistics{mode}"], state[f"basis{mode}"]
                if basis.is_cuda:  # where the matrices of a stack have their QR one after the other
                    basis.copy_(_turned(statistics.double(), basis.double()))
                else:
                    basis.copy_(torch.linalg.qr(statistics @ basis)[0])

    def _step_alike(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        state = self.state[parameters[0]]
        gradient = torch.stack(
            [_modes(torch.zeros_like(p) if p.grad is None else p.grad) for p in parameters]
        )
        taken = torch.ones_like(gradient[(0,) * gradient.dim()])
        if self.found_inf is not None:
            taken = taken - self.found_inf.reshape(())
            gradient = torch.where(taken > 0, gradient, 0)  # not a product: NaN times 0 is NaN
        if not state:
            state["step"] = torch.zeros_like(taken)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if gradient.dim() == 4:
                self._begin(group, state, parameters, gradient)
                if self._fixed is None:
                    return
        elif "statistics0" in state:
            for mode, moment in enumerate(_second_moments(gradient)):
                state[f"statistics{mode}"].lerp_(moment, (1 - group["statistics_beta"]) * taken)
        state["step"].add_(taken)
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(gradient, (1 - beta1) * taken)
        mean = state["exp_avg"]
        bases = [state[f"basis{mode}"] for mode in range(3)] if gradient.dim() == 4 else None
        if bases is not None:
            gradient, mean = _rotate(gradient, bases), _rotate(mean, bases)
        state["exp_avg_sq"].lerp_(gradient.square(), (1 - beta2) * taken)
        # Of a first step that is not taken the count is 0, and so would be both corrections.
        count = state["step"].clamp(min=1)
        size = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
        update = mean / (1 - beta1**count) / size
        if bases is not None:
            update = _rotate(update, [basis.mT for basis in bases])
        for parameter, change in zip(parameters, (update * (group["lr"] * taken)).unbind(), strict=True):
            parameter.sub_(change.view(parameter.shape))

    def _begin(
        self, group: dict[str, Any], state: dict[str, Any], kernels: Sequence[Tensor], gradient: Tensor
    ) -> None:
        """Make the bases of kernels: the fixed ones, or the eigenvectors at the first gradient."""
        if self._fixed is not None:
            for mode in range(3):
                state[f"basis{mode}"] = torch.stack([self._fixed[kernel][mode] for kernel in kernels])
            return
        for mode, moment in enumerate(_second_moments(gradient)):
            state[f"statistics{mode}"] = moment * (1 - group["statistics_beta"])
            little = 1e-12 * torch.eye(moment.shape[-1], dtype=moment.dtype, device=moment.device)
            state[f"basis{mode}"] = torch.linalg.eigh(moment + little)[1].contiguous()


def _turned(statistics: Tensor, bases: Tensor) -> Tensor:
    """``qr(statistics @ bases)``'s Q, up to signs, for stacks ``(N, n, n)`` in float64 on a GPU.

    Cholesky's QR, three times, the first with a shift (Fukaya et al. 2020, *Shifted Cholesky QR*): what a GPU
    computes for all matrices at once. Of nearly an eigenbasis the products are nearly orthogonal, so that
    their norms are most of their condition. A stack's matrix for which it fails keeps its basis.
    """
    one = torch.eye(bases.shape[-1], dtype=bases.dtype, device=bases.device)
    little = 1e-10 * statistics.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    q = (statistics + little * one) @ bases  # the same eigenvectors, and none of them lost
    q = q / q.norm(dim=1, keepdim=True)
    for shift in (1e-12, 0.0, 0.0):
        lower = torch.linalg.cholesky_ex(q.mT @ q + shift * one)[0]
        q = torch.linalg.solve_triangular(lower.mT, q, upper=True, left=False)
    good = (q.mT @ q - one).abs().amax(dim=(1, 2), keepdim=True) < 1e-5  # false for what is not finite
    return torch.where(good, q, bases)


def _by_shape(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Parameters that can be stacked, in the order of the first of each shape."""
    alike: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        alike.setdefault(parameter.shape, []).append(parameter)
    return list(alike.values())


def is_kernel(parameter: Tensor) -> bool:
    """Return whether a parameter is the kernel of a convolution that looks at more than one pixel."""
    return parameter.dim() == 4 and parameter.shape[2] * parameter.shape[3] > 1


def _modes(tensor: Tensor) -> Tensor:
    """A kernel as ``(out, in, taps)``, any other parameter flat."""
    return tensor.flatten(2) if is_kernel(tensor) else tensor.flatten()


def _second_moments(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(N, n, n)`` of each mode, for gradients ``(N, out, in, taps)``."""
    by_out, by_in = gradient.flatten(2), gradient.transpose(1, 2).flatten(2)
    by_tap = gradient.flatten(1, 2)
    return by_out @ by_out.mT, by_in @ by_in.mT, by_tap.mT @ by_tap


def _rotate(x: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """The coordinates of ``(N, out, in, taps)`` along the columns of each mode's basis ``(N, n, n)``."""
    outs, ins, taps = bases
    x = (x.flatten(1, 2) @ taps).view_as(x).transpose(1, 2)
    x = (ins.mT @ x.flatten(2)).view(x.shape).transpose(1, 2)
    return (outs.mT @ x.flatten(2)).view(x.shape)
