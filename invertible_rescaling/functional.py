"""Stateless pieces: the Haar step, the quantiser, bicubic resizing, and tensors laid out like others."""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from invertible_rescaling.errors import ValueRangeError
from invertible_rescaling.kernels.dispatch import may_overwrite

__all__ = ["bicubic_resize", "haar_decompose", "haar_reconstruct", "quantize"]


def haar_decompose(x: Tensor) -> Tensor:
    r"""One Haar step, ``(B, C, 2h, 2w) -> (B, 4C, h, w)``.

    For each 2x2 block ``a b / c d`` the four bands are LL = (a+b+c+d)/4, (a-b+c-d)/4, (a+b-c-d)/4 and
    (a-b-c+d)/4. Channels are ordered by band: the C low-pass channels first, then each detail's C.
    Height and width must be even; :class:`~invertible_rescaling.HaarDownsampling` checks that.

    Example:
        >>> import torch
        >>> from invertible_rescaling.functional import haar_decompose
        >>> haar_decompose(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])).flatten().tolist()
        [4.0, -1.0, -2.0, 0.0]
    """
    if may_overwrite(x):
        return _haar_decompose_into(x)
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    vertical_mean, vertical_detail = (top + bottom) / 2, (top - bottom) / 2
    left, right = vertical_mean[..., 0::2], vertical_mean[..., 1::2]
    left_detail, right_detail = vertical_detail[..., 0::2], vertical_detail[..., 1::2]
    bands = (
        (left + right) / 2,
        (left - right) / 2,
        (left_detail + right_detail) / 2,
        (left_detail - right_detail) / 2,
    )
    return torch.cat(bands, dim=1)


def haar_reconstruct(y: Tensor) -> Tensor:
    """The exact inverse of :func:`haar_decompose`, ``(B, 4C, h, w) -> (B, C, 2h, 2w)``.

    Example:
        >>> import torch
        >>> from invertible_rescaling.functional import haar_reconstruct
        >>> haar_reconstruct(torch.tensor([4.0, -1.0, -2.0, 0.0]).view(1, 4, 1, 1)).flatten().tolist()
        [1.0, 3.0, 5.0, 7.0]
    """
    low, horizontal, vertical, diagonal = y.chunk(4, dim=1)
    left, left_detail = low + horizontal, vertical + diagonal
    right, right_detail = low - horizontal, vertical - diagonal
    if may_overwrite(y):
        batch, channels, height, width = low.shape
        made = _empty_like(y, (batch, channels, 2 * height, 2 * width))
        for rows, combine in ((made[:, :, 0::2], torch.add), (made[:, :, 1::2], torch.sub)):
            combine(left, left_detail, out=rows[..., 0::2])
            combine(right, right_detail, out=rows[..., 1::2])
        return made
    top = torch.stack((left + left_detail, right + right_detail), dim=-1).flatten(-2)
    bottom = torch.stack((left - left_detail, right - right_detail), dim=-1).flatten(-2)
    out = torch.stack((top, bottom), dim=-2).flatten(-3, -2)
    return out.contiguous(memory_format=torch.channels_last) if _is_channels_last(y) else out


def _haar_decompose_into(x: Tensor) -> Tensor:
    """The same bits in one tensor, which nothing has to be joined for."""
    batch, channels, height, width = x.shape
    made = _empty_like(x, (batch, 4 * channels, height // 2, width // 2))
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    halves = (top + bottom).div_(4), (top - bottom).div_(4)
    for half, bands in zip(halves, torch.split(made, 2 * channels, dim=1), strict=True):
        torch.add(half[..., 0::2], half[..., 1::2], out=bands[:, :channels])
        torch.sub(half[..., 0::2], half[..., 1::2], out=bands[:, channels:])
    return made


def _empty_like(x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """An empty tensor in one of PyTorch's two memory formats, that of ``x`` where it has one."""
    layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _is_channels_last(x: Tensor) -> bool:
    if _is_transformed(x):
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _is_transformed(x: Tensor) -> bool:
    """Return whether a function transform wraps the tensor, such as vmap, which knows of no layout."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(x)


def quantize(x: Tensor, bits: int = 8) -> Tensor:
    """Clamp to [0, 1] and round to ``bits`` bits, with a straight-through gradient.

    The result holds exactly the values ``k / (2**bits - 1)`` that a file of that depth stores. The
    gradient passes through clamp and rounding unchanged (Xiao et al. 2020, section 3.4).

    Args:
        x: any shape, nominally in [0, 1].
        bits: 1 to 16.

    Raises:
        ValueRangeError: ``bits`` is out of range.

    Example:
        >>> import torch
        >>> from invertible_rescaling.functional import quantize
        >>> (quantize(torch.tensor([-0.2, 0.5001, 7.0])) * 255).tolist()
        [0.0, 128.0, 255.0]
    """
    check_bits(bits)
    steps = 2**bits - 1
    rounded: Tensor = torch.round(x.detach().clamp(0, 1) * steps) / steps
    # q + (x - x) is q to the last bit, where x + (q - x) would be off by a rounding.
    return rounded + (x - x.detach()) if x.requires_grad else rounded


def check_bits(bits: int) -> None:
    """Refuse a depth that :func:`quantize` has no levels for.

    Raises:
        ValueRangeError: it is out of range.
    """
    if not 1 <= bits <= 16:
        raise ValueRangeError(f"quantize takes 1 to 16 bits, got {bits}")


def bicubic_resize(x: Tensor, size: tuple[int, int], *, antialias: bool = True) -> Tensor:
    """Resize ``(B, C, H, W)`` to ``size`` by bicubic interpolation.

    With ``antialias`` this is the convention of MATLAB's ``imresize`` (Keys' kernel with a = -0.5, widened
    when shrinking), within 0.02 dB of it on the usual benchmarks. Without, PyTorch takes a = -0.75, which
    is sharper: enlarging so gives about 0.2 dB more PSNR. Values may overshoot the input's range.

    PyTorch's own gradient of this is not repeatable on a GPU: with deterministic algorithms switched on, what
    is differentiated there goes by two matrix products instead, which are the same up to rounding.

    Example:
        >>> import torch
        >>> from invertible_rescaling.functional import bicubic_resize
        >>> bicubic_resize(torch.ones(1, 3, 8, 8), (2, 4)).shape
        torch.Size([1, 3, 2, 4])
    """
    if torch.are_deterministic_algorithms_enabled() and x.device.type != "cpu" and _is_differentiated(x):
        return _resize_by_matrices(x, size, antialias)
    return _interpolate(x, size, antialias)


def _is_differentiated(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _interpolate(x: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    resized: Tensor = interpolate(x, size=size, mode="bicubic", antialias=antialias, align_corners=False)
    return resized


def _resize_by_matrices(x: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """Columns, then rows, each by what bicubic interpolation makes of the identity."""

    def matrix(before: int, after: int) -> Tensor:
        identity = torch.eye(before, dtype=x.dtype, device=x.device).view(1, 1, before, before)
        return _interpolate(identity, (after, before), antialias)[0, 0]

    kind = x.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return matrix(x.shape[2], size[0]) @ x @ matrix(x.shape[3], size[1]).mT


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of ``(B, C, H, W)`` until both sides are multiples.

    What is compiled or exported has no branch in it: one graph serves sizes that need padding and others.
    """
    height, width = x.shape[-2:]
    # Nothing negative: ONNX divides integers towards zero, where Python divides downwards.
    tall, wide = ((side + multiple - 1) // multiple * multiple for side in (height, width))
    if torch.compiler.is_compiling():
        # By index, since ONNX Runtime's Pad does not take a side it is to leave as it is for granted.
        rows = torch.arange(tall, device=x.device).clamp(max=height - 1)
        columns = torch.arange(wide, device=x.device).clamp(max=width - 1)
        return x.index_select(2, rows).index_select(3, columns)
    return x if (tall, wide) == (height, width) else pad(x, (0, wide - width, 0, tall - height), "replicate")


def match_layout(given: Tensor, made: Tensor) -> Tensor:
    """``made`` in the memory format of ``given``, if that is one of PyTorch's two."""
    layout = _layout(given)
    return made if layout is None else made.contiguous(memory_format=layout)


def empty_with_layout(given: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An empty tensor of another shape in the dtype and memory format, and on the device, of ``given``."""
    layout = _layout(given) or torch.contiguous_format
    return torch.empty(shape, dtype=given.dtype, device=given.device, memory_format=layout)


def _layout(given: Tensor) -> torch.memory_format | None:
    if _is_transformed(given):
        return None
    for layout in (torch.contiguous_format, torch.channels_last):
        if given.is_contiguous(memory_format=layout):
            return layout
    return None
