"""Names for models, sub-networks and latents."""

import pytest
import torch
from torch import nn

from invertible_rescaling import (
    InvertibleRescaler,
    Latent,
    create_model,
    iirn_x4,
    list_models,
    load_checkpoint,
    register_latent,
    register_model,
    register_subnet,
    save_checkpoint,
)
from invertible_rescaling.errors import ConfigError, UnknownNameError
from invertible_rescaling.testing import randomize
from tests.strategies import uniform

BUILT_IN = [f"{family}_x{scale}" for family in ("iirn", "irn", "linear", "small") for scale in (2, 4, 8)]


class Conv(nn.Conv2d):
    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)


class Constant(Latent):
    """A third party's latent, with an option."""

    def __init__(self, value: float = 0.0, *, scale: int | None = None) -> None:
        super().__init__(scale)
        self.value = value

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return lr.new_full(self._shape(lr), self.value)

    @property
    def options(self) -> dict[str, float]:
        return {"value": self.value}


def test_the_published_models_are_listed() -> None:
    assert set(BUILT_IN) <= set(list_models())
    assert list_models("iirn*") == BUILT_IN[:3]
    assert list_models("irn_x?") == BUILT_IN[3:6]
    compared = ["edsr_x4", "esrgan_x4", "srcnn_x4", "srgan_x4", "srresnet_x4"]
    assert list_models("*x4") == sorted([*compared, *(name for name in BUILT_IN if name.endswith("4"))])
    assert list_models("no such*") == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_listed_model_can_be_made(name: str) -> None:
    model = create_model(name, blocks=1)
    assert isinstance(model, InvertibleRescaler)
    assert model.scale == int(name[-1])


def test_overrides_reach_the_model() -> None:
    model = create_model("iirn_x4", blocks=(2, 1), latent="zero", clamp=0.5)
    assert (model.blocks, model.config["latent"], model.clamp) == ((2, 1), {"name": "zero"}, 0.5)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("irnn_x4", "did you mean .*'irn_x4'"),
        ("IIRN_X4", "did you mean 'iirn_x4'"),
        ("vgg16", "known: .*iirn_x4"),
        ("resnet50", "did you mean .*'srresnet_x4'"),
        ("", "known: "),
        (4, "known: "),
        (["iirn_x4"], "iirn_x4"),
    ],
)
def test_an_unknown_model_is_named_with_the_close_ones(name: object, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        create_model(name)


def test_a_taken_name_is_refused_and_stays(own_registries: None) -> None:
    for register, name in (
        (lambda name, factory: register_model(factory, name=name), "iirn_x4"),
        (register_subnet, "crdb"),
        (register_latent, "wavelet"),
    ):
        with pytest.raises(UnknownNameError, match=f"named '{name}' is registered already"):
            register(name, lambda *_args, **_options: None)
    assert create_model("iirn_x4", blocks=1).config["subnet"] == {"name": "crdb"}


def test_the_same_object_may_be_registered_again(own_registries: None) -> None:
    assert register_model(iirn_x4) is iirn_x4
    assert register_subnet("mine", Conv) is register_subnet("mine", Conv) is Conv


@pytest.mark.parametrize("register", [register_subnet, register_latent])
@pytest.mark.parametrize(
    ("name", "factory", "message"),
    [("", Conv, "non-empty string"), (3, Conv, "non-empty string"), ("mine", 7, "must be callable")],
)
def test_what_cannot_be_registered_is_refused(own_registries: None, register, name, factory, message) -> None:
    with pytest.raises(UnknownNameError, match=message):
        register(name, factory)


def test_pretrained_models_can_be_listed(own_registries: None) -> None:
    @register_model(name="mine_x2", pretrained=True)
    def _mine(*, weights=None, **overrides):
        return InvertibleRescaler(2, **overrides)

    assert "mine_x2" in list_models(pretrained=True)
    assert "mine_x2" in list_models()
    assert set(list_models(pretrained=True)) <= set(list_models())


def test_a_third_partys_parts_work_end_to_end(own_registries: None, tmp_path) -> None:
    register_subnet("their_conv", Conv)
    register_latent("their_constant", Constant)

    @register_model
    def theirs_x2(*, weights=None, **overrides):
        defaults = {
            "blocks": 2,
            "subnet": {"name": "their_conv", "kernel": 5},
            "latent": {"name": "their_constant", "value": 0.1},
        }
        return InvertibleRescaler(2, **(defaults | overrides))

    model = randomize(create_model("theirs_x2"))
    assert model.flow[1].phi.kernel_size == (5, 5)
    save_checkpoint(model, tmp_path / "theirs.safetensors")
    twin = load_checkpoint(tmp_path / "theirs.safetensors")
    assert twin.config == model.config
    lr = uniform(1, 3, 4, 5)
    assert torch.equal(twin.upscale(lr), model.upscale(lr))
    assert torch.equal(twin.latent(lr), torch.full((1, 9, 4, 5), 0.1))


def test_a_registered_class_is_known_by_its_name_when_given_as_such(own_registries: None) -> None:
    register_subnet("their_conv", Conv)
    register_latent("their_constant", Constant)
    config = InvertibleRescaler(2, blocks=1, subnet=Conv, latent=Constant(0.5)).config
    assert config["subnet"] == {"name": "their_conv"}
    assert config["latent"] == {"name": "their_constant", "value": 0.5}


def test_pretrained_is_told_as_this_library_says_it() -> None:
    with pytest.raises(ConfigError, match=r"create_model\('iirn_x4', weights=\"DEFAULT\"\)"):
        create_model("iirn_x4", pretrained=True)


@pytest.mark.parametrize("slip", ["iirn_4x", "IIRN_X4", "iirn-x4", "Iirn_4x", "iirn_x4_"])
def test_the_model_that_was_meant_is_suggested_first(slip: str) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'iirn_x4'"):
        create_model(slip)
