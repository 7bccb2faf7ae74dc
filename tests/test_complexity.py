"""Table 2, recomputed."""

import json

import pytest
import torch
from torch import nn

import complexity
from invertible_rescaling import create_model
from invertible_rescaling.comparison.super_resolver import SuperResolver


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, dict]:
    out = tmp_path_factory.mktemp("complexity") / "figures.json"
    assert complexity.main(["--hr", "64", "64", "--json", str(out)]) == 0
    return {row["model"]: row for row in json.loads(out.read_text())}


@pytest.mark.parametrize("name", complexity.MODELS)
def test_printed_figures_are_met_within_a_hundredth(name: str, rows) -> None:
    row = rows[name]
    assert row["as_printed"] == pytest.approx(row["printed"], rel=0.01)
    if name != "srgan_x4":  # which prints more than a generator
        assert row["parameters"] == pytest.approx(row["printed_parameters"], rel=0.01)


def test_convolutions_alone_are_the_designs(rows) -> None:
    assert rows["irn_x4"]["convolutions"] / 1e6 == pytest.approx(934.2, abs=0.05)
    assert rows["iirn_x4"]["convolutions"] / 1e6 == pytest.approx(536.1, abs=0.2)  # attention included


def test_one_hr_size_is_fair(rows) -> None:
    """What the paper prints for IIRN is one way, on a sixteenth of the pixels that EDSR's makes."""
    assert rows["edsr_x4"]["hr_down"] == 0
    assert rows["edsr_x4"]["hr_up"] * 40 * 40 == pytest.approx(rows["edsr_x4"]["convolutions"] * 16 * 16)
    assert rows["iirn_x4"]["hr_up"] > rows["edsr_x4"]["hr_up"]


def test_a_convolution_is_counted_by_hand() -> None:
    conv, x = nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 4, 6)
    assert complexity.multiply_adds(conv, lambda: conv(x))[0] == 2 * 4 * 6 * 5 * 3 * 9
    assert complexity.multiply_adds(conv, lambda: conv(x), everything=True)[0] == 2 * 4 * 6 * 5 * (27 + 1)


def test_times_are_medians_of_both_directions(capsys) -> None:
    assert complexity.main(["srcnn_x4", "--hr", "32", "32", "--repeats", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("| srcnn_x4 | 0.0201 | 0.0201 | 512.0")
    seconds = complexity.measure({"srcnn_x4": create_model("srcnn_x4")}, (32, 32), 1)
    assert seconds.keys() == {"srcnn_x4 down", "srcnn_x4 up"}
    assert min(seconds.values()) > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["srcnn_x5"], "did you mean"),
        (["iirn_x4", "--hr", "30", "30"], "multiples of 4"),
        (["srcnn_x4", "--json", "no/such/folder/x.json"], "cannot write --json"),
    ],
)
def test_what_cannot_be_counted_is_said(arguments: list[str], says: str, capsys) -> None:
    assert complexity.main([*arguments, "srcnn_x4"] if len(arguments) < 2 else arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert len(captured.err.splitlines()) == 1


def test_every_super_resolver_is_in_the_table() -> None:
    for name in complexity.MODELS[:5]:
        assert isinstance(create_model(name), SuperResolver)
