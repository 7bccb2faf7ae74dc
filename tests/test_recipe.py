"""What the documentation says of training comes out again: the recorded commands, with fewer steps."""

import json
import re
import shlex
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from invertible_rescaling.training import program
from invertible_rescaling.weights import weights_of

ROOT = Path(__file__).parents[1]
TOLERANCE = 0.3  # dB: what two seeds, or two kinds of CPU, may come to

# The model, how many steps in place of the recorded ones, and the PSNR (RGB, dB) on the first seven
# validation photographs that these came to. Bicubic has 31.12 and 26.55 dB.
CASES = [
    ("linear_x2", 1000, 35.57),
    ("linear_x4", 800, 28.53),
    ("small_x2", 200, 36.67),
]


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def photographs(benchmarks):
    return benchmarks.parent / "train", benchmarks.parent / "val"


def train(command, steps, photographs, out):
    """Carry a recorded command out with other folders and fewer steps; return its last validation."""
    python, script, *options = shlex.split(command)
    assert (python, script) == ("python", "examples/train_div2k.py")
    folders = iter(map(str, photographs))
    options = [next(folders) if option == "DIR" else option for option in options]
    for name in ("--steps", "--fit"):
        if name in options:
            del options[options.index(name) : options.index(name) + 2]
    fewer = ["--steps", str(steps), "--val-limit", "7", "--out", str(out), "--quiet"]
    assert program.main([*options, *fewer]) == 0
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [entry["val"] for entry in entries if "val" in entry][-1]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "steps", "psnr"), CASES)
def test_shipped_weights_are_trained_again_by_their_recorded_command(
    model, steps, psnr, photographs, tmp_path
) -> None:
    command = weights_of(model).DEFAULT.recipe["command"]
    found = train(command, steps, photographs, tmp_path / "run")
    assert found["psnr_rgb"] >= psnr - TOLERANCE
    assert found["lr_psnr_rgb"] >= 37.0


@pytest.mark.slow
def test_crdb_leaves_the_linear_code_behind_by_the_command_of_the_documentation(
    photographs, tmp_path
) -> None:
    """A hundred steps from the shipped code, which has 36.14 dB."""
    (command,) = re.findall(
        r"^(python examples/train_div2k\.py .*--model iirn_x2 --blocks 4 --fit 15m)$",
        (ROOT / "docs" / "training.md").read_text(),
        flags=re.MULTILINE,
    )
    found = train(f"{command} --start DEFAULT", 100, photographs, tmp_path / "run")
    assert found["psnr_rgb"] >= 36.37 - TOLERANCE / 2
    assert found["lr_psnr_rgb"] >= 37.0
