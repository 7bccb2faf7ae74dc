"""How far sub-networks reach."""

from functools import partial

import pytest
import torch
from strategies import SmallConv
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from invertible_rescaling import CRDB, RRDB, ChannelAttention, DenseBlock
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.testing import randomize
from invertible_rescaling.tiling import receptive_radius_of


def dilated(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 4, padding="same"),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.Conv2d(4, out_channels, (3, 5), padding=(3, 6), dilation=3, padding_mode="reflect"),
        nn.Dropout2d(),
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("kind", [CRDB, DenseBlock, RRDB, SmallConv, dilated])
def test_the_reach_is_an_upper_bound_that_is_met(kind) -> None:
    network = randomize(kind(2, 1).double(), 2.0).eval()
    if kind is CRDB:
        network.attention = None  # it would look at the whole image
    receptive_radius = receptive_radius_of(network)
    side = 2 * receptive_radius + 5
    x = torch.rand(1, 2, side, side, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(network(x)[0, 0, receptive_radius + 2, receptive_radius + 2], x)
    columns = grad[0].abs().sum((0, 1)).nonzero()
    assert columns.min() >= 2
    assert columns.max() == 2 * receptive_radius + 2
    rows = grad[0].abs().sum((0, 2)).nonzero()
    assert 2 <= rows.min() <= rows.max() <= 2 * receptive_radius + 2


def test_attention_and_what_works_pixel_by_pixel_do_not_reach() -> None:
    network = nn.Sequential(ChannelAttention(4), nn.PReLU(), nn.ModuleList(), nn.Conv2d(4, 4, 1))
    assert receptive_radius_of(network) == 0
    assert receptive_radius_of(nn.BatchNorm2d(4).eval()) == 0


def test_a_module_that_a_sequence_runs_twice_counts_twice() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    assert receptive_radius_of(nn.Sequential(conv, conv)) == 2


class Declared(nn.Module):
    def __init__(self, receptive_radius: object) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.receptive_radius = receptive_radius


def test_what_is_declared_is_believed() -> None:
    assert receptive_radius_of(nn.Sequential(Declared(3), nn.Conv2d(4, 4, 3, padding=1))) == 4


@pytest.mark.parametrize("receptive_radius", [-1, 1.5, True, "2"])
def test_what_cannot_be_a_reach_is_refused(receptive_radius) -> None:
    with pytest.raises(ConfigError, match="integer of at least 0"):
        receptive_radius_of(Declared(receptive_radius))


class OwnAttention(ChannelAttention):
    def attention(self, x):
        return x.mean((2, 3), keepdim=True)


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + x.mean((2, 3), keepdim=True)


class OwnCRDB(CRDB):
    def forward(self, x):
        return super().forward(x).roll(9, 3)


class OwnActivation(nn.ReLU):
    def forward(self, x):
        return x.flip(3)


class OwnNetwork(nn.Module):
    """Reaches further than its modules, by what it calls between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return F.avg_pool2d(self.conv(x), 7, 1, 3)


@pytest.mark.parametrize(
    "make",
    [
        partial(nn.Conv2d, 4, 4, 3, stride=2, padding=1),
        partial(nn.Conv2d, 4, 4, 3),
        partial(nn.Conv2d, 4, 4, 3, padding=2),
        partial(nn.Conv2d, 4, 4, 3, padding="valid"),
        partial(nn.Conv2d, 4, 4, 3, padding=1, padding_mode="circular"),
        partial(nn.Conv1d, 4, 4, 1),
        partial(nn.InstanceNorm2d, 4),
        partial(nn.GroupNorm, 1, 4),
        partial(nn.AdaptiveAvgPool2d, 1),
        partial(OwnAttention, 4),
        partial(OwnConv, 4, 4, 3, padding=1),
        OwnNetwork,
        partial(OwnCRDB, 4, 4),
        partial(OwnActivation),
    ],
)
def test_a_reach_that_is_not_known_is_not_guessed(make) -> None:
    module = make()
    with pytest.raises(ConfigError, match="`receptive_radius`") as caught:
        receptive_radius_of(nn.Sequential(nn.ReLU(), module))
    assert "overlap=" in str(caught.value)
    assert str(module) in str(caught.value)


def test_batch_norm_without_running_statistics_is_never_local() -> None:
    with pytest.raises(ConfigError, match="track_running_stats=False"):
        receptive_radius_of(nn.BatchNorm2d(4, track_running_stats=False).eval())


@pytest.mark.parametrize("make", [partial(nn.BatchNorm2d, 4), nn.Dropout, nn.Dropout2d, nn.RReLU])
def test_in_training_mode_the_way_out_is_eval(make) -> None:
    network = nn.Sequential(nn.ReLU(), make())
    with pytest.raises(ConfigError, match=r"training mode.*call eval\(\)") as caught:
        receptive_radius_of(network)
    assert str(network[1]) in str(caught.value)
    assert "overlap=" not in str(caught.value)
    assert receptive_radius_of(network.eval()) == 0


@pytest.mark.parametrize("kind", [CRDB, DenseBlock, RRDB])
def test_what_is_patched_or_hooked_is_not_guessed(kind) -> None:
    for module in kind(4, 4).modules():
        if isinstance(module, nn.ModuleList):
            continue  # never called
        network = nn.Sequential(module)
        receptive_radius = receptive_radius_of(network)
        module.forward = lambda x: x.flip(3)
        with pytest.raises(ConfigError, match=r"patched or hooked.*`receptive_radius`"):
            receptive_radius_of(network)
        del module.forward
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            handle = register(lambda *_: None)
            with pytest.raises(ConfigError, match=r"patched or hooked.*`receptive_radius`"):
                receptive_radius_of(network)
            handle.remove()
        assert receptive_radius_of(network) == receptive_radius
        module.receptive_radius = 17
        assert receptive_radius_of(network) == 17
        del module.receptive_radius


def test_parametrizations_change_no_reach() -> None:
    network = CRDB(4, 4)
    before = receptive_radius_of(network)
    for conv in network.features.convs:
        weight_norm(conv)
    assert receptive_radius_of(network) == before == 8
    with pytest.raises(ConfigError, match="`receptive_radius`"):
        receptive_radius_of(weight_norm(OwnConv(4, 4, 3, padding=1)))


class Further(SmallConv):
    def forward(self, x):
        return super().forward(x.roll(5, 3))


class FurtherAndSaysSo(Further):
    receptive_radius = 6


def test_a_declared_receptive_radius_goes_with_its_forward() -> None:
    with pytest.raises(ConfigError, match="`receptive_radius`"):
        receptive_radius_of(Further(4, 4))
    assert receptive_radius_of(FurtherAndSaysSo(4, 4)) == 6
    network = SmallConv(4, 4)
    network.forward = lambda x: x.roll(5, 3)
    with pytest.raises(ConfigError, match="`receptive_radius`"):
        receptive_radius_of(network)
    network.receptive_radius = 5
    assert receptive_radius_of(network) == 5
