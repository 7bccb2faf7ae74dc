"""Checkpoints: what is written comes back to the last bit, and nothing else is let in."""

import errno
import io
import json
import os
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch.nn.utils import prune

from invertible_rescaling import (
    InvertibleRescaler,
    Latent,
    iirn_x4,
    load_checkpoint,
    load_original_irn,
    save_checkpoint,
)
from invertible_rescaling.errors import CheckpointError, ConfigError
from invertible_rescaling.testing import randomize
from invertible_rescaling.weights import load_weights, read_metadata, verify_checkpoint
from invertible_rescaling.weights.checkpoint import write_checkpoint
from tests.strategies import LATENTS, largest_difference, seeds, uniform
from tests.tolerances import IMPORTED

OFFICIAL = "irn_x4_blocks_1_1_official_layout.pth"
EXPECTED = "irn_x4_blocks_1_1_expected.safetensors"
KEY = "invertible_rescaling"
TINY = {"scale": 2, "channels": 1, "blocks": 1, "subnet": {"name": "crdb", "growth": 2}}


def _tiny(seed: int = 1, **options) -> InvertibleRescaler:
    return randomize(InvertibleRescaler(**{**TINY, **options}), seed=seed)


@pytest.fixture
def saved(tmp_path) -> Path:
    save_checkpoint(_tiny(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _rewritten(path: Path, target: Path, **altered: object) -> Path:
    """The same tensors under other facts."""
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    facts = json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"][KEY])
    save_file(load_file(path), target, metadata={KEY: json.dumps(facts | altered)})
    return target


# Round trip


@settings(max_examples=20)
@given(
    scale=st.sampled_from((2, 4)),
    channels=st.integers(1, 3),
    subnet=st.sampled_from(("crdb", "dense", "rrdb")),
    latent=st.sampled_from(sorted(LATENTS)),
    clamp=st.floats(0.1, 1),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    seed=seeds,
)
def test_what_is_saved_comes_back_bit_for_bit(
    tmp_path_factory, scale, channels, subnet, latent, clamp, dtype, seed
) -> None:
    spec = {"name": subnet, "growth": 2}
    model = InvertibleRescaler(scale, channels, 1, spec, LATENTS[latent], clamp).to(dtype)
    randomize(model, seed=seed)
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    save_checkpoint(model, path)
    twin = load_checkpoint(path)
    assert twin.config == model.config
    hr = uniform(1, channels, 2 * scale, scale, seed=seed, dtype=dtype)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(twin(hr), model(hr), strict=True))
    lr = model.downscale(hr)
    assert torch.equal(twin.upscale(lr), model.upscale(lr))
    assert _names(path.parent) == ["model.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_come_back_rounded_in_single(saved: Path, dtype) -> None:
    whole = saved.stat().st_size
    save_checkpoint(_tiny(), saved, dtype=dtype)
    assert {tensor.dtype for tensor in load_file(saved).values()} == {dtype}
    assert saved.stat().st_size < whole
    filled = InvertibleRescaler(**TINY)
    load_weights(filled, saved)
    for twin in (load_checkpoint(saved), filled):
        for ours, theirs in zip(twin.parameters(), _tiny().parameters(), strict=True):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, theirs.to(dtype).float())
    saved.write_bytes(_with_flipped_bit(saved.read_bytes(), -1, 0))
    with pytest.raises(CheckpointError, match="damaged or was altered"):
        load_checkpoint(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8, torch.float8_e4m3fn, "float16"])
def test_weights_that_do_not_fit_a_type_are_refused(saved: Path, dtype) -> None:
    before, model = saved.read_bytes(), _tiny()
    with torch.no_grad():
        model.flow[1].phi.last.bias[0] = -1e5
    with pytest.raises(CheckpointError, match=r"holds 1e\+05, too large for torch.float16|can be stored in"):
        save_checkpoint(model, saved, dtype=dtype)
    assert saved.read_bytes() == before


def test_verifying_needs_no_model(saved: Path) -> None:
    verify_checkpoint(saved)
    saved.write_bytes(_with_flipped_bit(saved.read_bytes(), -1, 0))
    with pytest.raises(CheckpointError, match="damaged or was altered"):
        verify_checkpoint(saved)


def test_metadata_is_kept_and_can_be_read_alone(tmp_path) -> None:
    path, facts = tmp_path / "m.safetensors", {"steps": 7, "data": "Bücher", "psnr": {"Set5": 36.19}}
    save_checkpoint(_tiny(), path, metadata=facts)
    read = read_metadata(path)
    assert read["metadata"] == facts
    assert read["config"] == _tiny().config
    assert len(read["sha256"]) == 64
    assert load_checkpoint(path).config == _tiny().config


def test_saving_again_replaces_the_file(saved: Path) -> None:
    save_checkpoint(_tiny(seed=2), saved)
    lr = uniform(1, 1, 3, 3)
    assert torch.equal(load_checkpoint(saved).upscale(lr), _tiny(seed=2).upscale(lr))
    assert not torch.equal(load_checkpoint(saved).upscale(lr), _tiny(seed=1).upscale(lr))
    assert _names(saved.parent) == [saved.name]


def test_a_file_that_names_no_known_latent_or_sub_network_says_so(saved: Path, tmp_path) -> None:
    config = {**_tiny().config, "subnet": {"name": "theirs"}}
    other = _rewritten(saved, tmp_path / "other.safetensors", config=config)
    with pytest.raises(CheckpointError):
        load_checkpoint(other)


def test_load_weights_fills_a_model_of_the_same_structure(saved: Path) -> None:
    model = InvertibleRescaler(**TINY, latent="zero")
    load_weights(model, saved)
    hr = uniform(1, 1, 4, 4)
    assert torch.equal(model.downscale(hr), _tiny().downscale(hr))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"blocks": 2}, "blocks"),
        ({"channels": 3}, "channels"),
        ({"clamp": 0.5}, "clamp"),
        ({"scale": 4}, "scale"),
    ],
)
def test_load_weights_refuses_another_model_and_leaves_it_alone(saved: Path, options, named: str) -> None:
    model = _tiny(seed=9, **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"another model's checkpoint.*{named}: file "):
        load_weights(model, saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def _save_altered(path: Path, alter) -> None:
    """A file with a valid digest whose tensors are not all those of its configuration."""
    model = _tiny()

    def alter_in_passing(_module: object, state: dict, _prefix: str, _local: dict) -> None:
        alter(state)

    model.register_state_dict_post_hook(alter_in_passing)
    write_checkpoint(path, dict(model.state_dict()), model.config, {})


ALTERED = {
    "missing: flow.layers.1.phi.last.bias": lambda state: state.pop("flow.layers.1.phi.last.bias"),
    "surplus: extra": lambda state: state.update(extra=torch.zeros(1)),
}


@pytest.mark.parametrize("message", ALTERED)
def test_strict_refuses_missing_and_surplus_tensors(tmp_path, message: str) -> None:
    path = tmp_path / "altered.safetensors"
    _save_altered(path, ALTERED[message])
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    model = _tiny(seed=9)
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, path)
    with pytest.warns(UserWarning, match=message):
        loaded = load_checkpoint(path, strict=False)
    assert torch.equal(loaded.flow[1].rho.last.bias, _tiny().flow[1].rho.last.bias)


def test_other_shapes_are_refused_even_if_not_strict(tmp_path) -> None:
    path = tmp_path / "altered.safetensors"
    _save_altered(path, lambda state: state.update({"flow.layers.1.phi.last.bias": torch.zeros(7)}))
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r"other shapes: flow.layers.1.phi.last.bias"):
            load_checkpoint(path, strict=strict)


# Writing


class Unregistered(Latent):
    def forward(self, lr):
        return lr.new_zeros(self._shape(lr))


def test_what_cannot_be_written_leaves_nothing(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ConfigError, match="register_latent"):
        save_checkpoint(_tiny(latent=Unregistered()), path)
    with pytest.raises(CheckpointError, match="JSON"):
        save_checkpoint(_tiny(), path, metadata={"model": object()})
    assert _names(tmp_path) == []
    with pytest.raises(OSError, match="no such folder"):
        save_checkpoint(_tiny(), tmp_path / "no such folder" / "model.safetensors")
    assert _names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_write_keeps_the_old_file(saved: Path, monkeypatch, call: str) -> None:
    before = saved.read_bytes()

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(_tiny(seed=2), saved)
    assert saved.read_bytes() == before
    assert _names(saved.parent) == [saved.name]


# Damage and foreign files


def _refused(path: Path, message: str | None = None) -> None:
    for load in (load_checkpoint, lambda p: load_weights(_tiny(seed=9), p)):
        with pytest.raises(CheckpointError, match=message):
            load(path)


def test_a_truncated_file_is_refused_at_any_length(saved: Path) -> None:
    content = saved.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    drawn = random.Random(0).sample(range(len(content)), 60)
    for length in [0, 1, 7, 8, 9, header - 1, header, header + 1, len(content) - 1, *drawn]:
        saved.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"model.safetensors is cut short"):
            load_checkpoint(saved)


def test_a_file_with_bytes_to_spare_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    _refused(saved)


def _with_flipped_bit(content: bytes, position: int, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[position] ^= 1 << bit
    return bytes(flipped)


def test_a_flipped_bit_in_the_tensors_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    draw = random.Random(1)
    for position in [header, len(content) - 1, *draw.sample(range(header, len(content)), 40)]:
        saved.write_bytes(_with_flipped_bit(content, position, draw.randrange(8)))
        _refused(saved, "damaged or was altered")


def test_a_flipped_bit_in_the_header_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    draw = random.Random(2)
    for position in range(0, header, 7):
        saved.write_bytes(_with_flipped_bit(content, position, draw.randrange(7)))
        with pytest.raises(CheckpointError):
            load_checkpoint(saved)


def test_an_altered_configuration_is_refused(saved: Path, tmp_path) -> None:
    config = {**_tiny().config, "clamp": 0.9}  # builds, fits, and computes something else
    other = _rewritten(saved, tmp_path / "other.safetensors", config=config)
    with pytest.raises(CheckpointError):
        load_checkpoint(other)


@pytest.mark.parametrize("config", [[], None, "x", {}, {"scale": 3}, {"scale": 2, "no": 1}])
def test_a_configuration_that_is_none_is_refused(saved: Path, tmp_path, config: object) -> None:
    other = _rewritten(saved, tmp_path / "other.safetensors", config=config)
    for load in (load_checkpoint, lambda path: load_weights(_tiny(), path)):
        with pytest.raises(CheckpointError, match=r"other.safetensors"):
            load(other)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_of_the_format_is_named(saved: Path, tmp_path, version: object) -> None:
    other = _rewritten(saved, tmp_path / "other.safetensors", format=version)
    with pytest.raises(CheckpointError, match=f"has format {version!r}; this version reads format 1"):
        load_checkpoint(other)


FOREIGN = [None, {"format": "pt"}, {KEY: ""}, {KEY: "{"}, {KEY: "[]"}, {KEY: "null"}, {KEY: '{"config": {}}'}]


@pytest.mark.parametrize("metadata", FOREIGN)
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    _refused(path, "no checkpoint of this library")
    with pytest.raises(CheckpointError, match="no checkpoint of this library"):
        read_metadata(path)


def test_equal_models_make_equal_files(saved: Path, tmp_path) -> None:
    save_checkpoint(_tiny(), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"PK\x03\x04 not really a zip", b"\xff" * 200])
def test_other_files_are_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    _refused(path, "other.bin")
    with pytest.raises(CheckpointError, match=r"other.bin"):
        load_original_irn(path)


def test_missing_files_and_folders_are_named(tmp_path) -> None:
    for path, message in (
        (tmp_path / "nothing.pth", "there is no checkpoint file at"),
        (tmp_path, "is a folder"),
    ):
        for load in (load_checkpoint, load_original_irn, read_metadata):
            with pytest.raises(CheckpointError, match=message):
                load(path)


class Evil:
    """Pickled, it makes a folder when it is unpickled in full."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def _zip_pickle(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("write", [pickle.dumps, _zip_pickle])
@pytest.mark.parametrize("wrapped", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, write, wrapped: bool) -> None:
    marker, path = tmp_path / "executed", tmp_path / "evil.pth"
    thing = {"operations.0.haar_weights": Evil(marker)} if wrapped else Evil(marker)
    path.write_bytes(write(thing))
    for load in (load_checkpoint, load_original_irn, read_metadata, lambda p: iirn_x4(weights=p)):
        with pytest.raises(CheckpointError, match=r"evil.pth"):
            load(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(thing))  # the control: it does run where it is let
    assert marker.exists()


def test_a_pickled_state_dict_is_no_checkpoint_and_points_to_the_importer(tmp_path) -> None:
    torch.save(_tiny().state_dict(), tmp_path / "weights.pth")
    _refused(tmp_path / "weights.pth", "load_original_irn")
    torch.save(_tiny().state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    _refused(tmp_path / "old.pth", "load_original_irn")
    for content in (b"", b"<html>log in!</html>", b"\xff" * 200):
        (tmp_path / "no.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match="cut short") as caught:
            load_checkpoint(tmp_path / "no.pth")
        assert "original" not in str(caught.value)


# The original authors' files


def test_the_import_computes_what_the_original_network_does(shared_fixtures) -> None:
    expected = load_file(shared_fixtures / EXPECTED)
    model = load_original_irn(shared_fixtures / OFFICIAL, latent="zero").double()
    assert (model.scale, model.channels, model.blocks) == (4, 3, (1, 1))
    hr, lr = expected["hr"].double(), expected["lr_quantized"].double()
    with torch.no_grad():
        forward = torch.cat(model(hr), dim=1)
        sr = model.inverse(lr, torch.zeros(len(lr), 45, *lr.shape[2:], dtype=torch.float64))
    assert largest_difference(forward, expected["forward"]) <= IMPORTED
    assert largest_difference(model.downscale(hr), expected["lr_quantized"]) <= IMPORTED
    assert largest_difference(sr, expected["sr_zero_latent"]) <= IMPORTED
    assert largest_difference(model.upscale(lr), expected["sr_zero_latent"].clamp(0, 1)) <= IMPORTED


IRN = {"scale": 4, "blocks": (1, 2), "subnet": {"name": "dense", "growth": 4}, "latent": "gaussian"}


def _irn(**options) -> InvertibleRescaler:
    return randomize(InvertibleRescaler(**(IRN | options)))


def _official(model: InvertibleRescaler) -> dict[str, torch.Tensor]:
    """A model's weights under the original authors' names."""
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 4
    roles, state = {"phi": "F", "eta": "G", "rho": "H"}, {}
    for index, layer in enumerate(model.flow):
        if not hasattr(layer, "phi"):
            filters = signs.view(4, 1, 2, 2).repeat(layer.channels, 1, 1, 1)
            state[f"operations.{index}.haar_weights"] = filters
            continue
        for role, letter in roles.items():
            block = getattr(layer, role)
            for number, conv in enumerate([*block.features.convs, block.last], start=1):
                for kind in ("weight", "bias"):
                    name = f"operations.{index}.{letter}.conv{number}.{kind}"
                    state[name] = getattr(conv, kind).detach()
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("options", [{}, {"scale": 2, "blocks": 3}, {"scale": 8, "blocks": (1, 0, 1)}])
def test_any_number_of_stages_and_blocks_is_imported(tmp_path, options, prefix: str) -> None:
    model = _irn(**options)
    torch.save({prefix + name: tensor for name, tensor in _official(model).items()}, tmp_path / "irn.pth")
    twin = load_original_irn(tmp_path / "irn.pth")
    assert twin.config == {**model.config, "latent": {"name": "gaussian"}}
    hr = uniform(1, 3, 8, 16)
    assert torch.equal(twin.downscale(hr), model.downscale(hr))


def test_the_older_pickle_format_is_imported(tmp_path) -> None:
    model = _irn()
    torch.save(_official(model), tmp_path / "irn.pth", _use_new_zipfile_serialization=False)
    hr = uniform(1, 3, 8, 8)
    assert torch.equal(load_original_irn(tmp_path / "irn.pth").downscale(hr), model.downscale(hr))


def test_a_truncated_pth_is_refused(shared_fixtures, tmp_path) -> None:
    content, path = (shared_fixtures / OFFICIAL).read_bytes(), tmp_path / "cut.pth"
    for length in [0, 1, 100, len(content) - 1, *random.Random(0).sample(range(len(content)), 10)]:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut.pth"):
            load_original_irn(path)


def _without(name: str):
    return lambda state: state.pop(name)


def _setting(name: str, tensor: torch.Tensor):
    return lambda state: state.update({name: tensor})


FIRST, HAAR = "operations.1.F.conv1.weight", "operations.0.haar_weights"
FOREIGN_LAYOUTS = {
    "a surplus name": _setting("head.weight", torch.zeros(1)),
    "a sixth convolution": _setting("operations.1.F.conv6.weight", torch.zeros(1)),
    "a missing convolution": _without("operations.1.F.conv3.weight"),
    "a missing first convolution": _without(FIRST),
    "no first Haar step": _without(HAAR),
    "a gap": _setting("operations.9.F.conv1.weight", torch.zeros(4, 9, 3, 3)),
    "another shape": _setting(FIRST, torch.zeros(4, 8, 3, 3)),
    "another growth": _setting(FIRST, torch.zeros(5, 9, 3, 3)),
    "a scalar convolution": _setting(FIRST, torch.tensor(0.0)),
    "other filters": _setting(HAAR, torch.ones(12, 1, 2, 2)),
    "filters in another order": _setting(HAAR, torch.randn(12, 1, 2, 2)),
    "flat filters": _setting(HAAR, torch.ones(12)),
    "no filters": _setting(HAAR, torch.ones(0, 1, 2, 2)),
    "filters of other channels": _setting("operations.2.haar_weights", torch.ones(4, 1, 2, 2)),
    "nothing at all": lambda state: state.clear(),
}


@pytest.mark.parametrize("kind", FOREIGN_LAYOUTS)
def test_a_foreign_layout_is_refused(tmp_path, kind: str) -> None:
    state = _official(_irn())
    FOREIGN_LAYOUTS[kind](state)
    torch.save(state, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=r"foreign.pth"):
        load_original_irn(tmp_path / "foreign.pth")


@pytest.mark.parametrize(
    "thing", [[torch.zeros(1)], torch.zeros(3), {"weights": {"a": torch.zeros(1)}}, 7, None]
)
def test_what_is_no_state_dict_is_refused(tmp_path, thing) -> None:
    torch.save(thing, tmp_path / "thing.pth")
    with pytest.raises(CheckpointError, match=r"thing.pth does not hold a state_dict"):
        load_original_irn(tmp_path / "thing.pth")


def _pruned(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            prune.l1_unstructured(module, "weight", amount=0.5)


def _normed(model):
    for module in list(model.modules()):
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.utils.parametrizations.weight_norm(module)


def _broken(model):
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))


def _grown(model):
    model.extra = torch.nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_pruned, r"weight_mask.*torch.nn.utils.prune.remove"),
        (_normed, r"parametrizations.*remove_parametrizations"),
        (_broken, "is not finite everywhere"),
        (_grown, "extra.bias"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, spoil, message: str) -> None:
    model = _tiny()
    spoil(model)
    for save in (
        lambda: save_checkpoint(model, tmp_path / "a.safetensors"),
        lambda: model.save_pretrained(tmp_path),
    ):
        with pytest.raises(CheckpointError, match=message):
            save()
    assert not list(tmp_path.iterdir())
    if spoil is _pruned:  # and the way out that is named is one
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                prune.remove(module, "weight")
        save_checkpoint(model, tmp_path / "a.safetensors")
        loaded = load_checkpoint(tmp_path / "a.safetensors").state_dict()
        assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict"])
def test_original_weights_are_found_under_the_names_of_others(tmp_path, shared_fixtures, key: str) -> None:
    plain = shared_fixtures / "irn_x4_blocks_1_1_official_layout.pth"
    state = torch.load(plain, weights_only=True)
    worse = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({key: state} | ({"params": worse} if key == "params_ema" else {}), tmp_path / "a.pth")
    wanted, found = load_original_irn(plain).state_dict(), load_original_irn(tmp_path / "a.pth").state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
