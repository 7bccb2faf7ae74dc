"""train_div2k.py as a program: killed at random moments, and on two processes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from invertible_rescaling import load_checkpoint
from invertible_rescaling.training.state import load_newest_state
from tests.pictures import pictures

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "train_div2k.py"
RECIPE = ["--model", "irn_x2", "--blocks", "1", "--patch", "16", "--batch-size", "2", "--lr", "1e-3"]
RECIPE += ["--begin", "none"]
RHYTHM = [
    "--warmup",
    "2",
    "--log-every",
    "1",
    "--validate-every",
    "3",
    "--save-every",
    "1",
    "--quiet",
    "--cpu",
]

# Its launcher of several local processes is called --multi_gpu, for CPU processes too.
ACCELERATE = ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]


@pytest.fixture
def options(tmp_path):
    data, val = pictures(tmp_path / "data", 3), pictures(tmp_path / "val", 2, seed=1)
    return [str(SCRIPT), "--data", str(data), "--val", str(val), *RECIPE, *RHYTHM]


def run(command, **kwargs):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **kwargs
    )


def losses(folder):
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


@pytest.mark.slow
def test_killed_at_random_moments_a_run_always_resumes_and_ends_the_same(options, tmp_path):
    steps = "200"
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = run([sys.executable, *options, "--steps", steps, "--out", str(whole)])
    assert done.returncode == 0, done.stderr
    chance = random.Random(int(os.environ.get("KILL_SEED", time.time_ns())))
    command = [sys.executable, *options, "--steps", steps, "--out", str(cut)]
    reached = [-1]
    for _ in range(5):
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
        before = reached[-1]
        while process.poll() is None and newest_step(cut) <= before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.6))  # training writes something at nearly every moment of this
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = load_newest_state(cut / "state", complain)
        assert found is not None
        reached.append(found[0])
        if found[0] > 0:  # the state at step 0 is written before any weights
            load_checkpoint(cut / "last.safetensors")
    assert reached == sorted(reached)
    last = run(command)
    assert last.returncode == 0, last.stderr
    assert losses(cut) == losses(whole)
    assert (cut / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


def newest_step(out):
    return max((int(path.name[5:13]) for path in (out / "state").glob("step-*")), default=-1)


def complain(line):
    raise AssertionError(line)


def kill_after_step(step, command, out):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)
    while newest_step(out) < step and process.poll() is None:
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)  # a launcher may start them as a new group
    for victim in [*workers, process]:
        victim.kill()
    process.wait()
    psutil.wait_procs(workers)
    assert newest_step(out) >= step


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_processes_train_one_model_and_resume(options, tmp_path, launcher):
    launch = {
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", *ACCELERATE],
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node=2"],
    }[launcher]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = [sys.executable, "-m", *launch, *options, "--steps", "30", "--out"]
    done = run([*command, str(whole)])
    assert done.returncode == 0, done.stderr
    kill_after_step(5, [*command, str(cut)], cut)
    done = run([*command, str(cut)])
    assert done.returncode == 0, done.stderr
    assert losses(whole) == losses(cut)
    assert load_newest_state(whole / "state", complain)[2]["fixed"]["processes"] == 2
    assert (whole / "last.safetensors").read_bytes() == (cut / "last.safetensors").read_bytes()
    assert re.search(r"going on after step \d+ of 30", done.stdout)


@pytest.mark.slow
def test_two_processes_average_the_gradients_of_both_batches(options, tmp_path):
    """Two processes see other patches than one, and so go elsewhere from the second step on."""
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run([sys.executable, *options, "--steps", "3", "--out", str(one)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    both = run([*torchrun, *options, "--steps", "3", "--out", str(two)])
    assert alone.returncode == both.returncode == 0, alone.stderr + both.stderr
    assert losses(one)[1] == losses(two)[1]
    assert losses(one)[3] != losses(two)[3]


@pytest.mark.slow
def test_two_processes_share_a_linear_start(options, tmp_path):
    out = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    start = ["--begin", "linear", "--begin-steps", "30", "--steps", "2", "--lr", "1e-9", "--out", str(out)]
    done = run([*torchrun, *options, *start])
    assert done.returncode == 0, done.stderr
    assert load_newest_state(out / "start" / "state", complain)[2]["fixed"]["processes"] == 2
    code, model = (load_checkpoint(path / "last.safetensors") for path in (out / "start", out))
    weight = code.flow[1].phi.last.weight
    assert bool(weight.any())
    assert torch.allclose(model.flow[1].phi.last.weight[:, : weight.shape[1]], weight, atol=1e-6)


@pytest.mark.slow
def test_two_processes_train_against_one_adversary_and_resume(tmp_path):
    fake = tmp_path / "site" / "torchvision"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    (fake / "models.py").write_text(
        "from types import SimpleNamespace as Space\nimport torch\nVGG19_Weights = Space(DEFAULT=None)\n"
        "def vgg19(weights):\n    torch.manual_seed(3)\n"
        "    return Space(features=torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()))\n"
    )
    data = pictures(tmp_path / "data", 2)
    recipe = ["--model", "srgan_x4", "--blocks", "1", "--gan", "srgan", "--patch", "32", "--batch-size", "2"]
    run_options = [str(SCRIPT), "--data", str(data), *recipe, *RHYTHM, "--steps", "4"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    paths = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out, more in ((whole, []), (cut, ["--stop-after", "2"]), (cut, [])):
        done = run(["env", f"PYTHONPATH={paths}", *torchrun, *run_options, *more, "--out", str(out)])
        assert done.returncode == 0, done.stderr
    assert losses(whole) == losses(cut)
    assert losses(whole)[4].keys() >= {"adversarial", "discriminator"}
    assert (whole / "last.safetensors").read_bytes() == (cut / "last.safetensors").read_bytes()


@pytest.mark.slow
def test_ctrl_c_saves_and_leaves(options, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, *options, "--steps", "100000", "--out", str(out), "--save-every", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    log = out / "log.jsonl"
    while process.poll() is None and not (log.exists() and '"loss"' in log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the same command goes on from there" in said
    assert newest_step(out) > 0


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both(options, tmp_path):
    out = tmp_path / "out"
    rare = ["--validate-every", "1000000", "--save-every", "1000000", "--time-limit", "1h"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, *options, *rare, "--steps", "1000000", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    workers = []
    try:
        log = out / "log.jsonl"
        while process.poll() is None and not (log.exists() and '"loss"' in log.read_text()):
            time.sleep(0.05)
        workers = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if str(SCRIPT) in child.cmdline() and child.environ().get("RANK") == "1"
        ]
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert newest_step(out) > 0
    finally:
        if process.poll() is None:
            for victim in [
                *psutil.Process(process.pid).children(recursive=True),
                psutil.Process(process.pid),
            ]:
                victim.kill()
            process.wait()
