"""Seeds, threads, hypothesis profiles and the optional data beside the checkout."""

import gc
import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from invertible_rescaling import registry
from tests.shared import SHARED

settings.register_profile(
    "default",
    deadline=None,
    max_examples=40,
    derandomize="CI" in os.environ,
    # Layers are built and run for every draw: on a busy machine the first ones look slow.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=300)
settings.register_profile("quick", settings.get_profile("default"), max_examples=5)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

torch.set_warn_always(True)  # warnings are errors here; by default torch gives each once a process
torch.set_num_threads(1)  # tensors here are tiny, and pytest-xdist runs one process per core already

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is for what a script starts with '&', and every process that a test starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["typed_user.py"]  # for the type checker; importing it registers names


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: it would take half a second each time."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded_torch() -> None:
    """Hypothesis seeds random and numpy, not torch."""
    torch.manual_seed(0)


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register names that the next test does not see."""
    for table in (registry.models, registry.subnets, registry.latents):
        monkeypatch.setattr(table, "_factories", dict(table._factories))
    monkeypatch.setattr(registry, "_pretrained", set(registry._pretrained))


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        reason = f"needs {'/'.join(('shared', *parts))} beside the checkout"
        if os.environ.get("INVERTIBLE_RESCALING_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture
def shared_fixtures() -> Path:
    return _shared("fixtures")


@pytest.fixture
def benchmarks() -> Path:
    return _shared("data", "benchmarks")
