"""Independent tiles against the whole, their memory, and what is refused."""

import sys
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from strategies import SUBNETS, SmallConv, uniform
from tolerances import TILED
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarking.timing import PeakMemory
from invertible_rescaling import DenseBlock, InvertibleRescaler, ZeroLatent, iirn_x4
from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.testing import randomize


def _model(scale: int, subnet: object = SmallConv, latent: object = "wavelet") -> InvertibleRescaler:
    model = InvertibleRescaler(scale, blocks=1, subnet=subnet, latent=latent)
    return randomize(model.double(), 0.5).eval()


local_models = st.builds(
    lambda scale_and_subnet, correction: _model(
        scale_and_subnet[0],
        SUBNETS[scale_and_subnet[1]],
        {"name": "wavelet", "correction": correction},
    ),
    # So that what a tile is seen with is a small part of the image.
    st.sampled_from([(2, "dense"), (2, "own"), (4, "own")]),
    st.sampled_from(["ratio", "none"]),
)


@settings(max_examples=12)
@given(
    model=local_models,
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(110, 170), st.integers(110, 170)),
    tile=st.integers(5, 8),
    seed=st.integers(0, 99),
)
def test_with_the_receptive_field_as_overlap_tiles_equal_the_whole(model, batch, size, tile, seed) -> None:
    hr = uniform(batch, 3, *size, seed=seed, dtype=torch.float64)
    options = {"tile": 4 * tile, "overlap": model.receptive_field}
    assert min(size) > options["tile"] + 2 * options["overlap"]
    tiled, whole = model.downscale(hr, bits=16, **options), model.downscale(hr, bits=16)
    assert tiled.shape == whole.shape
    # A value between two levels may fall to either side.
    assert (tiled - whole).abs().max() <= 1.001 / (2**16 - 1)
    assert (tiled != whole).double().mean() <= 1e-3
    torch.testing.assert_close(
        model.upscale(whole, size, **options), model.upscale(whole, size), atol=TILED[torch.float64], rtol=0
    )


@pytest.mark.parametrize(("scale", "subnet"), [(2, SmallConv), (4, SmallConv), (2, DenseBlock)])
def test_less_overlap_would_be_noticed(scale: int, subnet) -> None:
    model = _model(scale, subnet)
    lr = uniform(1, 3, 160 // scale, 160 // scale, dtype=torch.float64)
    whole, field = model.upscale(lr), model.receptive_field
    # The latent is made with what it reaches around it, and tiles begin where no Haar step has to reach over.
    enough = field - model.latent.receptive_radius * scale - (scale - 1)
    errors = {
        overlap: float((model.upscale(lr, tile=32, overlap=overlap) - whole).abs().max())
        for overlap in (0, enough - scale, field)
    }
    assert errors[field] < TILED[torch.float64]
    assert errors[enough - scale] > 100 * TILED[torch.float64]
    assert errors[0] > 1e-4


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("latent", ["wavelet", "zero"])
def test_the_receptive_field_is_an_upper_bound(scale: int, latent: str) -> None:
    model = _model(scale, SmallConv, latent)
    field, middle = model.receptive_field, 12
    lr = uniform(1, 3, 25, 25, dtype=torch.float64).requires_grad_()
    for offset in range(scale):
        pixel = middle * scale + offset
        hr = model.inverse(lr, model.latent(lr))
        (grad,) = torch.autograd.grad(hr[0, 0, pixel, pixel], lr)
        rows = grad.abs().sum((0, 1, 3)).nonzero()
        near, far = int(rows.min()) * scale, int(rows.max()) * scale + scale - 1
        assert max(pixel - near, far - pixel) <= field
    assert min(near, 24 * scale - far) > 0
    hr = uniform(1, 3, 25 * scale, 25 * scale, dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(model(hr)[0][0, 0, middle, middle], hr)
    rows = grad.abs().sum((0, 1, 3)).nonzero()
    assert middle * scale - int(rows.min()) <= field
    assert int(rows.max()) - middle * scale - scale + 1 <= field


def test_attention_goes_by_what_each_tile_sees() -> None:
    model, lr = randomize(iirn_x4(blocks=1, latent="zero"), 0.5).eval(), uniform(1, 3, 24, 24)
    tiled = model.upscale(lr, tile=32, overlap=8)
    corner = model.upscale(lr[..., :10, :10])
    torch.testing.assert_close(tiled[..., :32, :32], corner[..., :32, :32], atol=1e-6, rtol=0)
    assert (tiled - model.upscale(lr)).abs().max() > 1e-4


def test_one_tile_over_everything_is_the_whole() -> None:
    model, hr = randomize(iirn_x4(blocks=1), 0.5).eval(), uniform(2, 3, 34, 50)
    for overlap in (0, 64):
        lr = model.downscale(hr, tile=64, overlap=overlap)
        assert torch.equal(lr, model.downscale(hr))
        sr = model.upscale(lr, (34, 50), tile=64, overlap=overlap)
        torch.testing.assert_close(sr, model.upscale(lr, (34, 50)), atol=1e-6, rtol=0)


def test_a_latent_of_ones_own_is_cut_too() -> None:
    model = _model(2)
    lr, z = (uniform(1, channels, 60, 50, seed=channels, dtype=torch.float64) for channels in (3, 9))
    whole = model.upscale(lr, latent=z)
    tiled = model.upscale(lr, latent=z, tile=16, overlap=model.receptive_field)
    torch.testing.assert_close(tiled, whole, atol=TILED[torch.float64], rtol=0)
    with pytest.raises(ShapeError, match="same batch, height and width"):
        model.upscale(lr, latent=z[..., :10], tile=16, overlap=0)


class Storages(TorchDispatchMode):
    """The sizes of all storages that anything computed within the block lies in."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}
        self.alive: list[Tensor] = []  # so that no address comes twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.bytes:
                    self.alive.append(tensor)
                self.bytes[storage.data_ptr()] = storage.nbytes()
        return out

    def beside(self, *images: Tensor) -> list[int]:
        """The sizes of those that do not hold these images, the largest first."""
        known = {image.untyped_storage().data_ptr() for image in images}
        return sorted((size for at, size in self.bytes.items() if at not in known), reverse=True)


def _largest(side: int, options: dict[str, int]) -> list[list[int]]:
    """The two largest storages beside the images, down and up, of an image so large."""
    model = InvertibleRescaler(2, blocks=1, subnet=partial(DenseBlock, growth=2)).eval()
    hr = torch.rand(1, 3, side, side)
    found = []
    with Storages() as storages:
        lr = model.downscale(hr, **options)
    found.append(storages.beside(hr, lr)[:2])
    with Storages() as storages:
        sr = model.upscale(lr, **options)
    found.append(storages.beside(lr, sr)[:2])
    return found


def test_memory_of_independent_tiles_does_not_grow_with_the_image() -> None:
    options = {"tile": 32, "overlap": 8}
    assert _largest(192, options) == _largest(96, options)


class Live(TorchDispatchMode):
    """The most bytes that storages of anything computed within the block took at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[int, int] = {}  # tensors of each storage
        self.known: set[int] = set()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and id(tensor) not in self.known:
                self.known.add(id(tensor))
                storage = tensor.untyped_storage()
                at, size = storage.data_ptr(), storage.nbytes()
                self.now += 0 if self.holders.get(at) else size
                self.most = max(self.most, self.now)
                self.holders[at] = self.holders.get(at, 0) + 1
                weakref.finalize(tensor, self.drop, id(tensor), at, size)
        return out

    def drop(self, tensor: int, at: int, size: int) -> None:
        self.known.discard(tensor)
        self.holders[at] -= 1
        self.now -= 0 if self.holders[at] else size


def _most_bytes(model: InvertibleRescaler, options: dict[str, int]) -> tuple[int, int]:
    """At one time, down and up."""
    hr = torch.rand(1, 3, 128, 128)
    with Live() as down:
        lr = model.downscale(hr, **options)
    with Live() as up:
        model.upscale(lr, **options)
    return down.most, up.most


def _of_couplings(blocks: int) -> InvertibleRescaler:
    return InvertibleRescaler(2, blocks=blocks, subnet=partial(DenseBlock, growth=2)).eval()


@pytest.mark.parametrize("options", [{"tile": 32, "overlap": 8}, {"tile": 32}], ids=["independent", "exact"])
def test_memory_of_tiles_does_not_grow_with_the_couplings(options: dict[str, int]) -> None:
    few, many = (_most_bytes(_of_couplings(blocks), options) for blocks in (2, 7))
    for of_few, of_many in zip(few, many, strict=True):
        assert 0 < of_many == of_few


def test_couplings_that_keep_what_they_made_would_be_noticed() -> None:
    kept: list[Any] = []
    many = _of_couplings(7)
    for coupling in many.flow:
        coupling.register_forward_hook(lambda module, inputs, output: kept.append(output))
    options = {"tile": 32, "overlap": 8}
    assert _most_bytes(many, options)[0] > 1.5 * _most_bytes(_of_couplings(2), options)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("layout", ["channels_last", "a view of rows of pixels", "a crop"])
def test_an_image_of_any_layout_is_not_copied(layout: str) -> None:
    """What a kernel takes for itself shows in the process alone."""
    model, side = iirn_x4(blocks=0).eval(), 2048
    if layout == "channels_last":
        hr = torch.rand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    elif layout == "a crop":
        hr = torch.rand(1, 3, side, side + 64)[..., 32:-32]
    else:
        hr = torch.rand(side, side, 3).permute(2, 0, 1)[None]
    options = {"tile": 64, "overlap": 0}
    model.downscale(hr[..., :128, :128], **options)
    with PeakMemory(torch.device("cpu")) as used:
        lr = model.downscale(hr, **options)
    assert used.bytes - lr.nbytes < hr.nbytes / 3


def test_memory_of_exact_tiles_grows_by_one_copy_of_the_image() -> None:
    large, small = _largest(256, {"tile": 32}), _largest(128, {"tile": 32})
    for (buffer, rest), (_, rest_of_small) in zip(large, small, strict=True):
        assert buffer == 256 * 256 * 3 * 4
        assert rest == rest_of_small


def test_the_whole_would_be_noticed() -> None:
    assert _largest(160, {}) != _largest(320, {})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tile": 0}, "positive multiple of the scale 4, got 0"),
        ({"tile": 30}, "positive multiple of the scale 4, got 30"),
        ({"tile": 32.0}, "positive multiple"),
        ({"tile": True}, "positive multiple"),
        ({"tile": 32, "overlap": -1}, "0 or more HR pixels, got -1"),
        ({"tile": 32, "overlap": 2.0}, "0 or more HR pixels, got 2.0"),
        ({"overlap": 16}, "pass tile= as well"),
    ],
)
def test_bad_tiles_are_refused(options, match: str) -> None:
    model = iirn_x4(blocks=0)
    for call in (model.downscale, model.upscale):
        with pytest.raises(ConfigError, match=match):
            call(torch.rand(1, 3, 40, 40), **options)


def test_a_latents_reach_that_cannot_be_is_refused() -> None:
    model = iirn_x4(blocks=0, latent=ZeroLatent())
    model.latent.receptive_radius = -1
    with pytest.raises(ConfigError, match="ZeroLatent declares must be an integer"):
        model.upscale(torch.rand(1, 3, 40, 40), tile=32)
