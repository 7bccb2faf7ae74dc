"""Table 2, recomputed."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import complexity
from invertible_rescaling import create_model, register_model, save_checkpoint
from invertible_rescaling.models.super_resolution import SuperResolver
from invertible_rescaling.training.gan import Discriminator

COMPARISON = Path(__file__).parents[1] / "docs" / "comparison.md"


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("complexity") / "figures.json"
    assert complexity.main(["--hr", "64", "64", "--json", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def rows(figures) -> dict[str, dict]:
    return {row["model"]: row for row in figures["rows"]}


def table(out: str) -> list[list[str]]:
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1  # the columns line up
    head, _, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [head, *body]


def test_what_is_printed_is_the_papers_table_2() -> None:
    assert complexity.PRINTED == {
        "srcnn_x4": (20_100, 520_000_000),
        "srresnet_x4": (1_520_000, 4_070_000_000),
        "srgan_x4": (36_400_000, 4_070_000_000),
        "esrgan_x4": (16_700_000, 28_730_000_000),
        "edsr_x4": (1_520_000, 3_180_000_000),
        "irn_x4": (4_350_000, 936_280_000),
        "iirn_x4": (2_710_000, 543_090_000),
    }
    assert list(complexity.PRINTED) == list(complexity.MODELS)


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


def test_a_rescaler_takes_as_many_each_way(rows) -> None:
    """Both ways run the same sub-networks, once for each pixel; IIRN's attention alone has a fixed part."""
    irn, iirn = rows["irn_x4"], rows["iirn_x4"]
    assert irn["hr_down"] == irn["hr_up"]
    assert irn["hr_up"] * 40 * 40 == irn["convolutions"] * 64 * 64
    assert iirn["hr_down"] == iirn["hr_up"] == pytest.approx(iirn["convolutions"] * (64 / 40) ** 2, rel=1e-3)


def test_srgans_printed_parameters_may_be_those_of_all_it_trains_with(rows) -> None:
    """The docs' two sums, of a VGG-style discriminator for 128x128 as ESRGAN's authors made it."""
    with torch.device("meta"):
        layers, before = [], 3
        for width in (64, 128, 256, 512, 512):
            layers.append(nn.Conv2d(before, width, 3, bias=before == 3))
            layers += [] if before == 3 else [nn.BatchNorm2d(width)]
            layers += [nn.Conv2d(width, width, 4, bias=False), nn.BatchNorm2d(width)]
            before = width
        styled = parameters(nn.Sequential(*layers, nn.Linear(512 * 4 * 4, 100), nn.Linear(100, 1)))
        own = parameters(Discriminator())
        widths = [3, *2 * [64], *2 * [128], *4 * [256], *8 * [512]]
        convs = map(lambda i, o: nn.Conv2d(i, o, 3), widths, widths[1:])
        vgg19 = parameters(nn.Sequential(*convs))
    generator = rows["srgan_x4"]["parameters"]
    text = COMPARISON.read_text()
    for figure in (generator, styled, vgg19, generator + styled + vgg19, own, generator + own):
        assert f"{figure / 1e6:.2f}M" in text
    less = 1 - (generator + styled + vgg19) / 36.4e6
    assert f"36.04M, {100 * less:.1f} % less" in text


def test_the_table_in_the_pages_is_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """But for the times behind it."""
    assert complexity.main([]) == 0
    head, *body = table(capsys.readouterr().out)
    shown = table((COMPARISON.parent / "measured" / "complexity.md").read_text())
    assert [line[: len(head)] for line in shown] == [head, *body]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_in_inference_mode_as_many_are_counted() -> None:
    model = create_model("iirn_x2", blocks=1)
    outside = complexity.count(model, (8, 12))
    with torch.inference_mode():
        assert complexity.count(model, (8, 12)) == outside
        assert complexity.count(create_model("iirn_x2", blocks=1), (8, 12)) == outside


def test_a_convolution_is_counted_by_hand() -> None:
    conv, x = nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 4, 6)
    assert complexity.multiply_adds(lambda: conv(x))[0] == 2 * 4 * 6 * 5 * 3 * 9
    assert complexity.multiply_adds(lambda: conv(x), everything=True)[0] == 2 * 4 * 6 * 5 * (27 + 1)


# ---- weights


def test_weights_bring_their_own_network_and_only_the_papers_has_figures_in_print(
    tmp_path, capsys, monkeypatch, own_registries
) -> None:
    def grown_x4(weights=None):
        return create_model("iirn_x4", blocks=8 if weights is None else 4)

    register_model(grown_x4)
    monkeypatch.setitem(complexity.PRINTED, "grown_x4", complexity.PRINTED["iirn_x4"])
    save_checkpoint(create_model("iirn_x4", latent="zero"), tmp_path / "same.safetensors")
    save_checkpoint(create_model("srcnn_x4"), tmp_path / "srcnn.safetensors")
    given = ["grown_x4", f"iirn_x4:{tmp_path / 'same.safetensors'}", "grown_x4:V1", "iirn_x4:DEFAULT"]
    given += ["srcnn_x4", f"srcnn_x4:{tmp_path / 'srcnn.safetensors'}"]
    assert complexity.main([*given, "--hr", "32", "32"]) == 0
    head, *body = table(capsys.readouterr().out)
    named, same, smaller, shipped, srcnn, filled = (dict(zip(head, line, strict=True)) for line in body)
    for row, like in ((same, named), (filled, srcnn)):  # a latent has nothing that is counted
        assert row | {"model": ""} == like | {"model": ""}
    assert named["off"] == "-0.4 %"
    for row, model in (
        (smaller, create_model("iirn_x4", blocks=4)),
        (shipped, create_model("iirn_x4", weights="DEFAULT")),
    ):
        assert row["parameters, M"] == f"{parameters(model) / 1e6:.4f}"
    assert smaller["parameters, M"] != named["parameters, M"]
    printed = ("parameters printed, M", "multiply-adds printed, M", "off")
    assert [smaller[key] for key in printed] == ["", "", ""]
    assert srcnn["HR 32x32: down, multiply-adds, M"] == "0.0" != srcnn["up, multiply-adds, M"]


# ---- times


@pytest.fixture
def stopwatch(monkeypatch):
    """Makes every call once; what yields LR, which is small, took 1.2345 s, and what yields HR 0.0456 s."""

    def medians(calls, repeats, device):
        assert repeats == 3
        return {name: 1.2345 if call().shape[-1] == 8 else 0.0456 for name, call in calls.items()}

    monkeypatch.setattr(complexity, "medians", medians)


def test_times_are_those_of_the_way_they_stand_under(stopwatch, capsys) -> None:
    arguments = ["srcnn_x4", "iirn_x4", "--hr", "32", "32", "--repeats", "3"]
    assert complexity.main(arguments) == 0
    head, *body = table(capsys.readouterr().out)
    assert head[-4:] == [
        *("HR 32x32: down, multiply-adds, M", "up, multiply-adds, M"),
        *("down, ms", "up, ms"),
    ]
    assert [line[-2:] for line in body] == [["1230", "45.6"]] * 2
    assert complexity.main([*arguments, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["down_s"], row["up_s"]) for row in found["rows"]] == [(1.2345, 0.0456)] * 2


@pytest.mark.parametrize(
    ("seconds", "cell"),
    [
        *((None, ""), (0.0, "0"), (1.2e-6, "0.00120"), (0.00012345, "0.123"), (0.012, "12.0")),
        *((0.0009996, "1.00"), (0.09999, "100"), (12.345, "12300")),
    ],
)
def test_times_have_three_significant_digits(seconds: float | None, cell: str) -> None:
    assert complexity._milliseconds(seconds) == cell


def test_without_repeats_there_are_no_times(figures, monkeypatch, capsys) -> None:
    monkeypatch.setattr(complexity, "measure", pytest.fail)
    assert complexity.main(["srcnn_x4", "--hr", "32", "32"]) == 0
    head, line = table(capsys.readouterr().out)
    assert line[:4] == ["srcnn_x4", "0.0201", "0.0201", "512.0"]
    assert not any("ms" in heading for heading in head)
    assert len(set(head)) == len(head)
    assert {(row["down_s"], row["up_s"]) for row in figures["rows"]} == {(None, None)}


def test_times_are_taken_of_both_directions() -> None:
    seconds = complexity.measure({"srcnn_x4": create_model("srcnn_x4")}, (32, 32), 1)
    assert seconds.keys() == {"srcnn_x4 down", "srcnn_x4 up"}
    assert min(seconds.values()) > 0


def test_what_is_counted_is_told_even_if_timing_fails(monkeypatch, capsys) -> None:
    def fail(*_):
        raise RuntimeError("no memory\nis left")

    monkeypatch.setattr(complexity, "medians", fail)
    assert complexity.main(["srcnn_x4", "--hr", "32", "32", "--repeats", "1"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "complexity.py: no times: no memory is left\n"
    head, line = table(captured.out)
    assert dict(zip(head, line, strict=True)).items() >= {"off": "-0.6 %", "up, ms": ""}.items()


def test_ctrl_c_is_one_line(monkeypatch, capsys) -> None:
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(complexity, "medians", interrupt)
    assert complexity.main(["srcnn_x4", "--hr", "32", "32", "--repeats", "1"]) == 130
    assert capsys.readouterr().err == "complexity.py: interrupted\n"


# ---- JSON


def test_json_says_what_was_measured_and_where(figures, capsys, tmp_path) -> None:
    assert list(figures) == ["size", "hr", "repeats", "environment", "rows"]
    assert (figures["size"], figures["hr"], figures["repeats"]) == ([40, 40], [64, 64], 0)
    environment = figures["environment"]
    assert environment["threads"] == torch.get_num_threads()
    assert environment["torch"] == torch.__version__
    assert environment["device"] == "cpu"
    assert environment["machine"]
    arguments = ["srcnn_x4", "--hr", "64", "64", "--json"]
    assert complexity.main([*arguments, "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == figures | {"rows": figures["rows"][:1]}
    assert complexity.main([*arguments, str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == printed
    assert "srcnn_x4" in capsys.readouterr().out


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["srcnn_x5"], "srcnn_x5: no model is named 'srcnn_x5'; did you mean"),
        (["iirn_x4:V99"], "iirn_x4:V99: no weights of iirn_x4 are named 'V99'; known: V5"),
        (["iirn_x4:absent/file"], "iirn_x4:absent/file: weights='absent/file': there is no file"),
        (["iirn_x4:"], "iirn_x4:: weights=''"),
        (["enlarger"], "enlarger: a Identity cannot be counted"),
        (["iirn_x4", "--hr", "30", "30"], "multiples of 4"),
        (["--json", "no/such/folder/x.json"], "cannot write --json"),
    ],
)
def test_what_cannot_be_counted_is_said_beside_what_can(
    arguments: list[str], says: str, capsys, own_registries
) -> None:
    register_model(lambda weights=None: nn.Identity(), name="enlarger")
    assert complexity.main(["srcnn_x4", *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("complexity.py: ")
    assert says in line
    _, *body = table(captured.out)
    assert [row[0] for row in body] == ["srcnn_x4"]


def test_nothing_counted_is_no_table(capsys) -> None:
    assert complexity.main(["srcnn_x5", "--repeats", "1"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--repeats", "-1"), "argument --repeats: must be at least 0, got -1"),
        (("--repeats", "few"), "argument --repeats: invalid integer value: 'few'"),
        (("--size", "0", "40"), "argument --size: must be at least 1, got 0"),
        (("--hr", "4", "-4"), "argument --hr: must be at least 1, got -4"),
    ],
)
def test_a_mistake_on_the_command_line(arguments: tuple[str, ...], says: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        complexity.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"complexity.py: error: {says}"


def test_every_super_resolver_is_in_the_table() -> None:
    for name in complexity.MODELS[:5]:
        assert isinstance(create_model(name), SuperResolver)
