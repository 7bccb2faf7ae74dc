"""JPEG as a function of PyTorch: what a JPEG file gives back, with a gradient."""

import math
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from invertible_rescaling.errors import ShapeError, ValueRangeError
from invertible_rescaling.images.jpeg import CHROMA, LUMA

__all__ = ["Rounding", "Subsampling", "jpeg"]

Subsampling = Literal["4:2:0", "4:4:4"]
Rounding = Literal["straight-through", "soft"]
_Matrix = tuple[tuple[int, int, int], ...]

# JFIF: full range, the matrix of BT.601, in 65536ths.
_TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_TO_RGB = ((65536, 0, 91881), (65536, -22554, -46802), (65536, 116130, 0))


def jpeg(
    image: Tensor,
    quality: float | Tensor,
    subsampling: Subsampling = "4:2:0",
    rounding: Rounding = "straight-through",
) -> Tensor:
    """Store RGB images as JPEG and read them again, differentiably.

    The values are those that libjpeg decodes of what it has encoded, to the last bit: its whole numbers are
    followed throughout. The gradient is that of the same without rounding: colour at half the resolution and
    its smooth enlargement pass theirs, so detail in colour that 4:2:0 loses gets none. Clamping passes it on.

    References:
        ITU-T T.81, annexes A and K; Loeffler, Ligtenberg and Moschytz 1989, *Practical fast 1-D DCT
        algorithms with 11 multiplications*; Shin and Song 2017, *JPEG-resistant adversarial images*, for a
        rounding with a gradient.

    Args:
        image: ``(B, 3, H, W)`` in [0, 1], any H and W of at least 1; rounded to 8 bits first.
        quality: 1 to 100, of all images or ``(B,)``; rounded to whole numbers.
        subsampling: of colour: ``"4:2:0"``, as nearly all programs write, or ``"4:4:4"``, none.
        rounding: the gradient of rounding a coefficient: ``"straight-through"`` is 1; ``"soft"`` is
            ``1 - cos(2 pi c)`` of the coefficient c in steps, which is 0 where c stays what it is, and 2
            where it is about to become another.

    Returns:
        ``(B, 3, H, W)`` in [0, 1], every value ``k / 255``.

    Raises:
        ShapeError: not a batch of RGB images, or another number of qualities than of images.
        ValueRangeError: a quality out of range, or another subsampling or rounding.

    Example:
        >>> import torch
        >>> from invertible_rescaling.training.degradations import jpeg
        >>> image = torch.rand(2, 3, 20, 30, requires_grad=True)
        >>> jpeg(image, torch.tensor([75, 95])).sum().backward()
        >>> image.grad.shape
        torch.Size([2, 3, 20, 30])
    """
    if image.dim() != 4 or image.shape[1] != 3:
        raise ShapeError(f"jpeg takes RGB images (B, 3, H, W), got {tuple(image.shape)}")
    if subsampling not in ("4:2:0", "4:4:4") or rounding not in ("straight-through", "soft"):
        raise ValueRangeError(
            "jpeg knows the subsamplings 4:2:0 and 4:4:4 and the roundings straight-through and soft, got "
            f"{subsampling!r} and {rounding!r}"
        )
    halved, steps = subsampling == "4:2:0", _steps(quality, image)
    with torch.no_grad():
        value = _decoded(image, steps, halved).to(image.dtype) / 255
    if not (image.requires_grad and torch.is_grad_enabled()):
        return value
    smooth = _smooth(image, steps, halved, rounding == "soft")
    return value + (smooth - smooth.detach())


def _steps(quality: float | Tensor, image: Tensor) -> Tensor:
    """Of luma and colour, ``(B, 2, 8, 8)``, whole numbers as the image's dtype."""
    if isinstance(quality, Tensor):
        if quality.shape != image.shape[:1]:
            raise ShapeError(f"{image.shape[0]} images have as many qualities, got {tuple(quality.shape)}")
        wanted = quality.to(image.dtype).round().clamp(1, 100)  # whether they are in range is on the device
    else:
        if not 1 <= quality <= 100:
            raise ValueRangeError(f"the quality of JPEG is 1 to 100, got {quality}")
        wanted = image.new_full(image.shape[:1], round(quality))
    percent = torch.where(wanted < 50, torch.floor(5000 / wanted), 200 - 2 * wanted)
    base = image.new_tensor((LUMA, CHROMA))
    return torch.floor((base * percent.view(-1, 1, 1, 1) + 50) / 100).clamp(1, 255)


# In whole numbers, as libjpeg


def _decoded(image: Tensor, steps: Tensor, halved: bool) -> Tensor:
    """The 8-bit values that come back."""
    height, width = image.shape[-2:]
    ycc = _mixed((image * 255).round().clamp(0, 255).int(), _TO_YCC, (32768, 32767, 32767)) + _offset(image)
    luma, colour = ycc[:, :1], ycc[:, 1:]
    if halved:
        # To whole blocks along a row; down a column to whole pairs, and what is made of them is repeated.
        pairs = _padded(colour, -width % 16, height % 2)
        sums = pairs[..., 0::2, :] + pairs[..., 1::2, :]
        sums = sums[..., 0::2] + sums[..., 1::2]
        colour = (sums + 1 + torch.arange(sums.shape[-1], device=image.device) % 2) // 4
    luma = _through_blocks(luma, steps[:, :1].int())
    colour = _through_blocks(colour, steps[:, 1:].int())
    if halved:
        colour = _enlarged(colour[..., : (height + 1) // 2, : (width + 1) // 2])[..., :height, :width]
    return _mixed(torch.cat((luma, colour), dim=1) - _offset(image), _TO_RGB, (32768,) * 3).clamp(0, 255)


def _mixed(image: Tensor, matrix: _Matrix, halves: tuple[int, ...]) -> Tensor:
    red, green, blue = image.unbind(1)
    mixed = [
        (a * red + b * green + c * blue + half) >> 16 for (a, b, c), half in zip(matrix, halves, strict=True)
    ]
    return torch.stack(mixed, dim=1)


def _offset(image: Tensor) -> Tensor:
    """Grey in YCbCr."""
    return torch.tensor((0, 128, 128), dtype=torch.int32, device=image.device).view(1, 3, 1, 1)


def _padded(planes: Tensor, right: int, below: int) -> Tensor:
    """Planes with the last column and row repeated."""
    planes = torch.cat((planes, planes[..., -1:].expand(*planes.shape[:-1], right)), dim=-1)
    return torch.cat((planes, planes[..., -1:, :].expand(*planes.shape[:-2], below, -1)), dim=-2)


def _enlarged(colour: Tensor) -> Tensor:
    """Twice as large: 3 to 1 of the nearest two along either side, halves rounded up and down in turn."""
    if colour.shape[-1] <= 2:
        return colour.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    rows = torch.cat((colour[..., :1, :], colour, colour[..., -1:, :]), dim=-2)
    near = 3 * colour
    rows = torch.stack((near + rows[..., :-2, :], near + rows[..., 2:, :]), dim=-2).flatten(-3, -2)
    sides = torch.cat((rows[..., :1], rows, rows[..., -1:]), dim=-1)
    near = 3 * rows
    return torch.stack((near + sides[..., :-2] + 8, near + sides[..., 2:] + 7), dim=-1).flatten(-2) // 16


def _through_blocks(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes ``(B, C, H, W)`` as they come out of their quantised cosine transform, with their H and W."""
    batch, channels, height, width = planes.shape
    whole = _padded(planes, -width % 8, -height % 8) - 128
    down, across = whole.shape[2] // 8, whole.shape[3] // 8
    # (row, column, block): whatever is done to a row or a column is done to all blocks at once
    blocks = whole.view(batch, channels, down, 8, across, 8).permute(3, 5, 0, 1, 2, 4)
    sizes = 8 * steps.permute(2, 3, 0, 1)[..., None, None]  # coefficients are in eighths
    eighths = _forward_dct(_forward_dct(blocks, 1, False), 0, True)
    quantised = eighths.sign() * ((eighths.abs() + sizes // 2) // sizes)
    found = _inverse_dct(_inverse_dct(quantised * (sizes // 8), 0, 11), 1, 18)
    found = (found + 128).clamp(0, 255).permute(2, 3, 4, 0, 5, 1).reshape(whole.shape)
    return found[..., :height, :width]


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Divided by a power of 2, halves up."""
    return (x + (1 << (bits - 1))) >> bits


def _forward_dct(x: Tensor, dim: int, last: bool) -> Tensor:
    """Eight values along a dimension to eight frequencies, in 8192ths, with two bits more before the last."""
    d0, d1, d2, d3, d4, d5, d6, d7 = x.unbind(dim)
    a0, a1, a2, a3 = d0 + d7, d1 + d6, d2 + d5, d3 + d4
    b0, b1, b2, b3 = d3 - d4, d2 - d5, d1 - d6, d0 - d7
    even, odd = (a0 + a3, a1 + a2), (a0 - a3, a1 - a2)
    bits = 15 if last else 11
    sums = (even[0] + even[1], even[0] - even[1])
    f0, f4 = (_shifted(total, 2) if last else total << 2 for total in sums)
    turn = (odd[0] + odd[1]) * 4433
    f2, f6 = turn + odd[0] * 6270, turn - odd[1] * 15137
    f7, f5, f3, f1 = _odd_part(b0, b1, b2, b3)
    fractions = [_shifted(value, bits) for value in (f1, f2, f3, f5, f6, f7)]
    f1, f2, f3, f5, f6, f7 = fractions
    return torch.stack((f0, f1, f2, f3, f4, f5, f6, f7), dim=dim)


def _inverse_dct(x: Tensor, dim: int, bits: int) -> Tensor:
    """Eight frequencies along a dimension to eight values, of which so many bits are rounded off."""
    f0, f1, f2, f3, f4, f5, f6, f7 = x.unbind(dim)
    turn = (f2 + f6) * 4433
    low, high = turn - f6 * 15137, turn + f2 * 6270
    total, difference = (f0 + f4) << 13, (f0 - f4) << 13
    e0, e1, e2, e3 = total + high, difference + low, difference - low, total - high
    o3, o2, o1, o0 = _odd_part(f7, f5, f3, f1)
    values = (e0 + o0, e1 + o1, e2 + o2, e3 + o3, e3 - o3, e2 - o2, e1 - o1, e0 - o0)
    return torch.stack([_shifted(value, bits) for value in values], dim=dim)


def _odd_part(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rotations of the odd half, which are the same both ways."""
    outer, inner, even, odd = a + d, b + c, a + c, b + d
    turn = (even + odd) * 9633
    outer, inner = outer * -7373, inner * -20995
    even, odd = turn - even * 16069, turn - odd * 3196
    return (
        a * 2446 + outer + even,
        b * 16819 + inner + odd,
        c * 25172 + inner + even,
        d * 12299 + outer + odd,
    )


# Without rounding, for the gradient


def _smooth(image: Tensor, steps: Tensor, halved: bool, soft: bool) -> Tensor:
    height, width = image.shape[-2:]
    ycc = _linear(image, _TO_YCC)
    luma, colour = ycc[:, :1], ycc[:, 1:]
    if halved:
        colour = avg_pool2d(pad(colour, (0, width % 2, 0, height % 2), mode="replicate"), 2)
    if soft:
        luma = _softly(luma - 128 / 255, steps[:, :1]) + 128 / 255
        colour = _softly(colour, steps[:, 1:])
    if halved:
        how: dict[str, Any] = {"mode": "bilinear", "align_corners": False} if colour.shape[-1] > 2 else {}
        colour = interpolate(colour, scale_factor=2, **how)[..., :height, :width]
    return _linear(torch.cat((luma, colour), dim=1), _TO_RGB)


def _linear(image: Tensor, matrix: _Matrix) -> Tensor:
    return torch.einsum("dc,bchw->bdhw", image.new_tensor(matrix) / 65536, image)


def _softly(planes: Tensor, steps: Tensor) -> Tensor:
    """Coefficients drawn to the steps as far as the gradient goes."""
    batch, channels, height, width = planes.shape
    whole = pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = whole.view(batch, channels, whole.shape[2] // 8, 8, whole.shape[3] // 8, 8).transpose(3, 4)
    basis, steps = _cosines().to(planes), steps.view(batch, -1, 1, 1, 8, 8) / 255
    c = basis @ blocks @ basis.mT / steps
    found = basis.mT @ ((c - torch.sin(2 * math.pi * c) / (2 * math.pi)) * steps) @ basis
    return found.transpose(3, 4).reshape(whole.shape)[..., :height, :width]


@lru_cache
def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values, a row for each frequency."""
    rows = [
        [math.cos((2 * i + 1) * u * math.pi / 16) * math.sqrt((1 if u == 0 else 2) / 8) for i in range(8)]
        for u in range(8)
    ]
    return torch.tensor(rows, dtype=torch.float64)
