"""Trained weights: what is shipped is what its record says; whatever else is given is verified or refused.

While no weights are shipped, and beside those that are, everything is tried with a development checkpoint:
a small network with random weights that went through ``tools/ship_weights.py`` as a trained one would.
"""

import copy
import errno
import hashlib
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

import ship_weights
from complexity import count
from evaluate import evaluate
from evaluation.task import Task
from invertible_rescaling import (
    InvertibleRescaler,
    create_model,
    edsr_x4,
    iirn_x2,
    iirn_x4,
    irn_x4,
    list_models,
    load_checkpoint,
    save_checkpoint,
    weights,
)
from invertible_rescaling.errors import CheckpointError, UnknownNameError
from invertible_rescaling.images import find_images, from_uint8, read_image, to_uint8
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.testing import randomize
from invertible_rescaling.weights import download, enums, read_metadata
from invertible_rescaling.weights.enums import WeightsEnum, read_members, weights_of
from tests.pictures import pictures
from tests.strategies import largest_difference, uniform

ROOT = Path(__file__).parents[2]
MODELS = (
    *(f"{family}_x{scale}" for family in ("iirn", "irn", "linear", "small") for scale in (2, 4, 8)),
    *("srcnn_x4", "srresnet_x4", "srgan_x4", "edsr_x4", "esrgan_x4"),
)
ENUMS = {model: weights_of(model).__name__ for model in MODELS}
SHIPPED = [member for model in MODELS for member in weights_of(model)]
RESCALERS = [member for member in SHIPPED if "architecture" not in member.config]
SPDX = {"CC BY-SA 4.0": "CC-BY-SA-4.0"}
SMALL = {"blocks": 1, "subnet": {"name": "crdb", "growth": 4}}
BICUBIC = "bicubic (MATLAB's kernel, a = -0.5)"


def small(seed: int = 1, gain: float = 0.2) -> InvertibleRescaler:
    return randomize(InvertibleRescaler(4, **SMALL), seed=seed, gain=gain)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def flip_a_bit(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


# ---- the development checkpoint, shipped into a folder of its own


@dataclass(frozen=True)
class Development:
    checkpoint: Path
    benchmarks: Path
    pretrained: Path


def ship(
    checkpoint: Path, benchmarks: Path, out: Path, *more: str, which: tuple[str, str] = ("--version", "1")
) -> int:
    facts = [
        "--licence",
        "Apache-2.0",
        "--device-used",
        "none",
        "--hours",
        "0",
        "--data",
        "noise",
        "CC0",
        "7",
    ]
    where = ["--benchmarks", str(benchmarks), "--out", str(out)]
    chosen = ["--model", "iirn_x4", *which, "--accept-structure"]
    return ship_weights.main([str(checkpoint), *chosen, *facts, *where, *more])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Development:
    folder = tmp_path_factory.mktemp("development")
    checkpoint = folder / "best.safetensors"
    trained_for = {"step": 3, "options": {"lr": 1e-3, "model": "iirn_x4", "loss_weights": [1, 1, 1]}}
    save_checkpoint(small(), checkpoint, metadata=trained_for)
    benchmarks = pictures(folder / "sets" / "Set5", 2).parent
    assert ship(checkpoint, benchmarks, folder / "pretrained") == 0
    return Development(checkpoint, benchmarks, folder / "pretrained")


@pytest.fixture
def development(made: Development, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[WeightsEnum]:
    """The enum of iirn_x4 as if the development checkpoint, and no other, had come with the package."""
    folder = tmp_path / "pretrained"
    shutil.copytree(made.pretrained, folder)
    monkeypatch.setattr(enums, "PRETRAINED", folder)
    monkeypatch.setattr(enums, "_ENUMS", {model: read_members(model, folder) for model in MODELS})
    for model in MODELS:
        for module in (weights, enums):
            monkeypatch.setattr(module, ENUMS[model], weights_of(model))
    return weights_of("iirn_x4")


@dataclass(frozen=True)
class Case:
    member: Any
    benchmarks: Path

    @property
    def set5(self) -> Path:
        return self.benchmarks / "Set5"


def case_name(member: Any) -> str:
    return str(member or "development")


@pytest.fixture(params=[*SHIPPED, None], ids=case_name)
def case(request: pytest.FixtureRequest, made: Development) -> Case:
    """Each member that is shipped, and the development checkpoint."""
    if request.param is None:
        return Case(request.getfixturevalue("development").V1, made.benchmarks)
    return Case(request.param, request.getfixturevalue("benchmarks"))


# ---- what is shipped is what its record says


def test_the_folder_the_enums_and_the_registry_agree() -> None:
    files = {f"{member.model}_{member.name.lower()}" for member in SHIPPED}
    expected = {f"{name}.{suffix}" for name in files for suffix in ("json", "safetensors")}
    assert set(names(enums.PRETRAINED)) == expected | {"LICENSE.md"}
    assert {member.file for member in SHIPPED} == {name for name in expected if name.endswith("safetensors")}
    assert [name for name in list_models(pretrained=True) if name in MODELS] == sorted(
        {member.model for member in SHIPPED}
    )
    for model in MODELS:
        enum = weights_of(model)
        assert enum is getattr(weights, ENUMS[model])
        assert enum.__members__.keys() == ({"DEFAULT", *(m.name for m in enum)} if len(enum) else set())
        assert not len(enum) or enum.DEFAULT is [m for m in enum if m.name[0] == "V"][-1]
        for member in enum:
            assert (member.through is None) == (member.name[0] == "V")


def test_a_member_is_plain_and_complete_data(case: Case) -> None:
    member = case.member
    assert json.loads(json.dumps(asdict(member.value))) == asdict(member.value)
    assert member.licence
    assert member.training_data
    for data in member.training_data:
        assert data["name"]
        assert data["licence"]
        assert data["images"] > 0
    assert member.recipe.keys() >= {"runs", "lr", "loss_weights"}
    assert "Set5" in member.metrics
    assert pickle.loads(pickle.dumps(member)) is member
    assert copy.deepcopy(member) is member


def test_a_member_was_measured_on_all_benchmarks(case: Case) -> None:
    """Of Urban100, which takes an hour of a core for ``iirn_x4``, as well where it was measured."""
    measured = {name: figures["images"] for name, figures in case.member.metrics.items()}
    assert measured == {name: len(find_images(case.benchmarks / name)) for name in measured}
    assert measured.keys() >= {folder.name for folder in case.benchmarks.iterdir()} - {"Urban100"}


def test_the_file_has_the_recorded_hash_type_and_origin(case: Case) -> None:
    path = case.member.locate()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == case.member.sha256
    with safe_open(path, framework="pt") as file:
        dtypes = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    assert dtypes == {f"torch.{case.member.dtype}"}
    origin = read_metadata(path)["metadata"]
    name = origin.get("member") or f"V{origin['version']}"
    assert (origin["model"], name) == (case.member.model, case.member.name)
    assert origin["licence"] == case.member.licence
    assert origin["training_data"] == case.member.training_data
    assert origin["recipe"] == case.member.recipe


@pytest.mark.parametrize("member", SHIPPED, ids=case_name)
def test_the_licence_of_what_is_shipped_is_told(member: Any) -> None:
    readme = (ROOT / "README.md").read_text().partition("## Licence")[2]
    notice = (enums.PRETRAINED / "LICENSE.md").read_text()
    metadata = (ROOT / "pyproject.toml").read_text()
    for text in (readme, notice):
        assert member.licence in text
    assert f"| every `.safetensors` and `.json` file here | {member.licence} (" in notice
    for data in member.training_data:
        assert f"{data['name']}, {data['images']} images, {data['licence']}" in " ".join(notice.split())
    assert re.search(rf'^license = ".*{re.escape(SPDX[member.licence])}.*"', metadata, re.MULTILINE)


@pytest.mark.parametrize("member", SHIPPED, ids=case_name)
def test_a_recipe_names_the_weights_that_it_went_on_from(member: Any) -> None:
    """``DEFAULT`` is another set as soon as the next is shipped."""
    assert member.recipe.get("weights") != "DEFAULT"


@pytest.mark.parametrize("model", MODELS)
def test_the_newest_rescaler_is_good_enough_to_be_the_default(model: str) -> None:
    """The least that is asked of IIRN at x4, and that no version fall behind an earlier one."""
    enum = weights_of(model)
    for earlier in (member for member in enum if member.through is None):
        assert enum.DEFAULT.metrics.keys() == earlier.metrics.keys()
        for name, figures in enum.DEFAULT.metrics.items():
            assert figures["psnr_rgb"] >= earlier.metrics[name]["psnr_rgb"], (name, earlier)
    if model == "iirn_x4":
        assert enum.DEFAULT.metrics["Set5"]["psnr_rgb"] > 28.43  # SRCNN's, as IIRN's paper prints it
        for name, figures in enum.DEFAULT.metrics.items():
            assert figures["psnr_lr"] >= 38, name


def test_the_model_has_the_recorded_parameters_and_multiply_adds(case: Case) -> None:
    member = case.member
    model = create_model(member.model, weights=member)
    assert model.config == member.config
    assert all(p.dtype == torch.float32 for p in model.parameters())
    cost = count(model, tuple(member.multiply_adds["hr_size"]))
    assert cost.parameters == member.parameters
    assert (cost.downscale, cost.upscale) == (
        member.multiply_adds["downscale"],
        member.multiply_adds["upscale"],
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(member, marks=pytest.mark.slow if member.multiply_adds["upscale"] > 3 * 10**7 else ())
        for member in SHIPPED
    ]
    + [None],
    indirect=True,
    ids=case_name,
)
def test_the_recorded_figures_on_set5_come_out_again(case: Case) -> None:
    member, (scale, device) = case.member, (case.member.config["scale"], torch.device("cpu"))
    report = evaluate(Task((case.set5,), (member.locate(),), (), scale, None, device, None, None))
    assert report.problems == []
    (benchmark,), recorded = report.benchmarks, member.metrics["Set5"]
    found = vars(benchmark.figures[report.rows[-1].name])
    assert {"images", *found} == recorded.keys()
    assert benchmark.measured == recorded["images"]
    for name, value in found.items():
        if recorded[name] is None:  # as JSON has it: a super-resolver's LR is bicubic's to the last bit
            assert (name, value) == ("psnr_lr", math.inf)
            continue
        assert value == pytest.approx(recorded[name], abs=0.005 if "psnr" in name else 1e-4), name
    if member in SHIPPED:
        assert found["psnr_rgb"] > benchmark.figures[BICUBIC].psnr_rgb


THROUGH = [member for member in SHIPPED if member.through is not None]


@pytest.mark.parametrize("case", THROUGH, indirect=True, ids=case_name)
def test_the_recorded_figures_through_jpeg_come_out_again(case: Case) -> None:
    """And are above bicubic through the same on every benchmark, with an LR that is like bicubic's."""
    member, through = case.member, case.member.through
    words = f"jpeg:{through['quality']}"
    report = evaluate(Task((case.set5,), (member.locate(),), scale=member.config["scale"], through=words))
    assert report.problems == []
    (benchmark,), recorded = report.benchmarks, through["metrics"]["Set5"]
    bicubic = max(benchmark.figures[row.name].psnr_rgb for row in report.rows[:-1])
    found = benchmark.figures[report.rows[-1].name]
    assert found.psnr_rgb == pytest.approx(recorded["psnr_rgb"], abs=0.005)
    assert bicubic == pytest.approx(recorded["psnr_rgb_bicubic"], abs=0.005)
    for figures in through["metrics"].values():
        assert figures["psnr_rgb"] > figures["psnr_rgb_bicubic"] + 0.5
        assert figures["psnr_lr"] >= 34
    assert 0 <= through["quality"] - through["lowest_quality"] <= 5


@pytest.mark.parametrize("case", [*RESCALERS, None], indirect=True, ids=case_name)
def test_pictures_go_through_and_back_to_the_last_bit(case: Case) -> None:
    model = create_model(case.member.model, weights=case.member).eval()
    for path in find_images(case.set5)[:3]:
        image = read_image(path)[None, :, :96, :96]
        image = image[..., : image.shape[2] // model.scale * model.scale, :]
        image = image[..., : image.shape[3] // model.scale * model.scale]
        with torch.no_grad():
            assert torch.equal(to_uint8(model.inverse(*model(from_uint8(image)))), image)


def test_multiply_adds_are_the_papers_and_pytorchs() -> None:
    for model, expected in ((iirn_x4(), 536_222_688), (irn_x4(), 934_221_600)):
        cost = count(model, (40, 40))
        assert (cost.downscale, cost.upscale) == (expected, expected)
    model = small()
    with fast_kernels(False), FlopCounterMode(display=False) as flops:  # kernels add filters of zeros
        model(torch.zeros(1, 3, 24, 40))
    assert flops.get_total_flops() == 2 * count(model, (24, 40)).downscale
    assert not any(module._forward_hooks for module in model.modules())


# ---- choosing


def same(a: InvertibleRescaler, b: InvertibleRescaler) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_member_its_name_and_default_are_the_same_weights(development: type[WeightsEnum]) -> None:
    stored = load_checkpoint(development.V1.locate())
    trained = small()
    for given in ("DEFAULT", "V1", development.V1, development.DEFAULT):
        model = iirn_x4(weights=given)
        assert same(model, stored)
        assert model.config == trained.config
        hr = uniform(1, 3, 13, 18)
        assert largest_difference(model(hr[..., :12, :16])[1], trained(hr[..., :12, :16])[1]) < 1e-2
    assert same(create_model("iirn_x4", weights="DEFAULT"), stored)


def test_the_latent_alone_can_be_overridden(development: type[WeightsEnum]) -> None:
    assert iirn_x4(weights="V1", latent="zero").config == {**small().config, "latent": {"name": "zero"}}
    for override in ({"blocks": 2}, {"subnet": "dense"}, {"clamp": 0.5}, {"channels": 1}):
        message = rf"another model's checkpoint \({next(iter(override))}: file .*the file's values"
        with pytest.raises(CheckpointError, match=message):
            iirn_x4(weights="DEFAULT", **override)


def test_another_models_member_and_unknown_names_are_named(development: type[WeightsEnum]) -> None:
    with pytest.raises(UnknownNameError, match=r"IIRN_X4_Weights.V1 are weights of iirn_x4, not of irn_x4"):
        irn_x4(weights=development.V1)
    for name, hint in {
        "V2": "'V1'",
        "default": "'DEFAULT'",
        "v1": "'V1'",
        "imagenet": "known: V1, DEFAULT",
    }.items():
        with pytest.raises(UnknownNameError, match=f"no weights of iirn_x4 are named '{name}'; .*{hint}"):
            iirn_x4(weights=name)
    with pytest.raises(UnknownNameError, match=r"did you mean .*'iirn_x4'"):
        weights_of("iirnx4")
    with pytest.raises(AttributeError, match="IIRN_X4_Weights has no 'V9'; it has V1, DEFAULT"):
        _ = development.V9
    with pytest.raises(AttributeError, match="have no 'url'; they have file, sha256"):
        _ = development.V1.url


def test_a_model_without_weights_says_which_have_some(development: type[WeightsEnum]) -> None:
    for name in ("DEFAULT", "V1"):
        with pytest.raises(CheckpointError, match=rf"got '{name}'; weights are shipped for iirn_x4 \("):
            irn_x4(weights=name)
    with pytest.raises(AttributeError, match="IRN_X4_Weights has no 'DEFAULT'; it has no members yet"):
        _ = weights_of("irn_x4").DEFAULT


@pytest.mark.parametrize("given", [3, True, b"model.safetensors", ["V1"]])
def test_what_is_no_weights_is_refused(given: object) -> None:
    with pytest.raises(CheckpointError, match="weights takes None, a member of IIRN_X4_Weights or its name"):
        iirn_x4(weights=given)


@pytest.mark.parametrize(
    "given", ["no/such/file", "nothing.safetensors", "~/none.safetensors", Path("DEFAULT")]
)
def test_a_path_without_a_file_is_named(given: object) -> None:
    with pytest.raises(CheckpointError, match=f"^weights='{given}': there is no file of that path$"):
        iirn_x4(weights=given)


ADDRESSES = ("example.com/m.safetensors", "localhost:80/m.safetensors", "10.0.0.1:8/m", "http:/example.com/m")


@pytest.mark.parametrize("given", ADDRESSES)
def test_an_address_without_its_beginning_is_told_so(given: str) -> None:
    with pytest.raises(CheckpointError, match=f"'{given}': .* before an address write http:// or https://"):
        iirn_x4(weights=given)


def test_folders_and_nothing_are_named_and_the_home_is_known(
    made: Development, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for given in (tmp_path, str(tmp_path), "folder", "./folder", "."):
        with pytest.raises(CheckpointError, match=r"^weights='.*' is a folder; pass the path"):
            iirn_x4(weights=given)
    with pytest.raises(CheckpointError, match=r"^weights='' is empty; leave it out for an untrained model"):
        iirn_x4(weights="")
    monkeypatch.setenv("HOME", str(made.checkpoint.parent))
    monkeypatch.setenv("USERPROFILE", str(made.checkpoint.parent))
    for home in ("~/best.safetensors", Path("~/best.safetensors")):
        assert same(iirn_x4(weights=home), small())


def test_the_newest_version_is_the_default(made: Development, tmp_path: Path) -> None:
    record = json.loads((made.pretrained / "iirn_x4_v1.json").read_text())
    for version in (2, 10, 9):
        (tmp_path / f"iirn_x4_v{version}.json").write_text(json.dumps(record | {"licence": str(version)}))
    enum = read_members("iirn_x4", tmp_path)
    assert [member.name for member in enum] == ["V2", "V9", "V10"]
    assert enum.DEFAULT is enum.V10


# ---- a damaged installation


def replace_by_another(path: Path) -> None:
    save_checkpoint(small(seed=2), path, dtype=torch.float16)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip_a_bit,
    "a flipped bit in the header": partial(flip_a_bit, position=40),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "another model's": replace_by_another,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_package_is_refused(development: type[WeightsEnum], damage: str) -> None:
    path = development.V1.locate()
    DAMAGES[damage](path)
    with pytest.raises(CheckpointError, match=r"iirn_x4_v1.safetensors.*is damaged.*install .* again"):
        iirn_x4(weights="DEFAULT")


def test_a_missing_file_of_the_package_is_named(development: type[WeightsEnum]) -> None:
    development.V1.locate().unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file.*install .* again"):
        iirn_x4(weights="DEFAULT")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"file": "x"}', '{"what": 1}', "\udcff"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "iirn_x4_v1.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"iirn_x4_v1.json is damaged .*install .* again"):
        read_members("iirn_x4", tmp_path)


# ---- from the network


Behaviour = Callable[["Handler", bytes], None]


@dataclass
class Service:
    """What the server holds, how it answers request after request (at last ``serve``), what it was asked."""

    content: bytes
    plan: list[Behaviour] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def url(self, name: str = "best.safetensors") -> str:
        return f"http://127.0.0.1:{self.port}/models/{name}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    service: Service

    def do_GET(self) -> None:
        self.service.asked.append(self.path)
        behaviour = self.service.plan.pop(0) if self.service.plan else serve
        behaviour(self, self.service.content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def serve(handler: Handler, content: bytes) -> None:
    handler.answer(content, Content_Length=str(len(content)))


def without_length(handler: Handler, content: bytes) -> None:
    handler.answer(content)


def break_off(handler: Handler, content: bytes, upto: int = 5000) -> None:
    handler.answer(content[:upto], Content_Length=str(len(content)))


def break_off_without_length(handler: Handler, content: bytes) -> None:
    handler.answer(content[:5000])


def break_off_a_chunk(handler: Handler, content: bytes) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.answer(b"2000\r\n" + content[:5000], Transfer_Encoding="chunked")


def stall(handler: Handler, content: bytes, upto: int = 5000) -> None:
    break_off(handler, content, upto)
    handler.service.stop.wait(5)


def say_nothing(handler: Handler, content: bytes) -> None:
    handler.service.stop.wait(5)


def no_http(handler: Handler, content: bytes) -> None:
    handler.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")


def a_page(handler: Handler, content: bytes) -> None:
    handler.answer(b"<html>log in!</html>", Content_Type="text/html")


def noise(handler: Handler, content: bytes) -> None:
    serve(handler, bytes(reversed(content)))


def altered(handler: Handler, content: bytes) -> None:
    serve(handler, content[:-1] + bytes([content[-1] ^ 1]))


def a_pickle(handler: Handler, content: bytes) -> None:
    serve(handler, pickle.dumps({"weight": [1.0]}))


def status(handler: Handler, content: bytes, code: int) -> None:
    handler.answer(b"sorry", code, Content_Length="5")


def moved(handler: Handler, content: bytes) -> None:
    handler.answer(b"", 302, Location="/elsewhere/file", Content_Length="0")


def in_a_circle(handler: Handler, content: bytes) -> None:
    handler.service.plan = [in_a_circle]
    handler.answer(b"", 302, Location=handler.path, Content_Length="0")


def announce_too_much(handler: Handler, content: bytes) -> None:
    handler.answer(content, Content_Length="1000000000000")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have left."""


@pytest.fixture
def service(made: Development, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    service = Service(made.checkpoint.read_bytes())
    handler = type("BoundHandler", (Handler,), {"service": service})
    with Server(("127.0.0.1", 0), handler) as server:
        service.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield service
        service.stop.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def load(url: str) -> InvertibleRescaler:
    return iirn_x4(weights=url, **SMALL)


@pytest.mark.parametrize("behaviour", [serve, without_length, moved])
def test_an_address_is_fetched_once_into_the_hubs_cache(
    service: Service, cache: Path, behaviour: Behaviour
) -> None:
    service.plan = [behaviour]
    assert same(load(service.url()), small())
    asked = len(service.asked)
    assert same(load(service.url()), small())
    assert len(service.asked) == asked
    (name,) = names(cache)
    assert name.startswith("best.")
    assert name.endswith(".safetensors")
    assert (cache / name).read_bytes() == service.content


def test_a_hash_in_the_address_is_checked(service: Service, cache: Path) -> None:
    good = service.sha256
    named = f"small-{good[:8]}.safetensors"
    for url in (
        service.url() + f"#sha256={good}",
        service.url() + f"#sha256={good.upper()}",
        service.url(named),
    ):
        assert same(load(url), small())
    assert names(cache) == sorted([f"best.{good[:8]}.safetensors", named])
    assert len(service.asked) == 2
    assert all("#" not in asked for asked in service.asked)
    for url in (service.url() + f"#sha256={'0' * 64}", service.url("small-00000000.safetensors")):
        with pytest.raises(
            CheckpointError, match=f"http.* has the SHA-256 {good}; the address asks for 0000"
        ):
            load(url)
    assert len(names(cache)) == 2


def test_two_addresses_with_one_file_name_are_told_apart(service: Service, cache: Path) -> None:
    load(service.url())
    assert same(load(service.url("other/../best.safetensors?run=2")), small())
    assert len(service.asked) == len(names(cache)) == 2


FAILURES: dict[str, tuple[Behaviour, str]] = {
    "breaks off": (break_off, r"the connection ended after 5000 of \d+ bytes"),
    "sends a head and no more": (partial(break_off, upto=0), "the connection ended after 0 of"),
    "breaks off, no length": (break_off_without_length, "is cut short or is no safetensors file"),
    "breaks off in a chunk": (break_off_a_chunk, r"no proper HTTP \(IncompleteRead\)"),
    "stalls": (stall, "no data for 0.2 s"),
    "never answers": (say_nothing, "no data for 0.2 s"),
    "speaks no HTTP": (no_http, r"no proper HTTP \(BadStatusLine\)"),
    "serves a page": (a_page, "is cut short or is no safetensors file"),
    "serves noise": (noise, "is cut short or is no safetensors file"),
    "serves a pickle": (a_pickle, "is cut short or is no safetensors file"),
    "serves an altered file": (altered, "is damaged or was altered"),
    "has no such file": (partial(status, code=404), "the server answered HTTP 404"),
    "forbids": (partial(status, code=403), "the server answered HTTP 403"),
    "fails": (partial(status, code=500), "the server answered HTTP 500"),
    "redirects in a circle": (in_a_circle, "answered HTTP 302 .*redirect.* loop"),
    "announces too much": (announce_too_much, r"the connection ended after \d+ of 1000000000000"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_server_is_one_clear_error_and_a_clean_cache(
    service: Service, cache: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    behaviour, message = FAILURES[failure]
    service.plan = [behaviour]
    if "0.2 s" in message:
        monkeypatch.setattr(download, "TIMEOUT", 0.2)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=message) as caught:
        load(service.url())
    assert time.monotonic() - started < 4
    assert service.url() in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert "nothing was kept or loaded" in str(caught.value)
    assert "original" not in str(caught.value)  # no hint at .pth files where it is none
    assert len(str(caught.value).splitlines()) == 1
    assert names(cache) == []
    service.plan = []
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    assert same(load(service.url()), small())  # the next try is not hindered by the last


def test_a_server_that_is_not_there_is_named(service: Service, cache: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"http://127.0.0.1:9/m.safetensors: .*refused.*nothing was kept"
    ):
        load("http://127.0.0.1:9/m.safetensors")
    assert names(cache) == []


def test_another_models_file_is_not_loaded(service: Service, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another model's checkpoint \(scale: file 4, model 2"):
        iirn_x2(weights=service.url(), **SMALL)
    for make, overrides in ((iirn_x2, {}), (irn_x4, {}), (edsr_x4, {}), (iirn_x4, {"blocks": 2})):
        with pytest.raises(
            CheckpointError, match=f"^{service.url()} is another model's.*nothing was kept"
        ) as caught:
            make(weights=service.url(), **overrides)
        assert ".tmp" not in str(caught.value)
        assert names(cache) == []
    assert same(iirn_x4(weights=service.url()), small())
    with pytest.raises(CheckpointError, match=f"^{service.url()} is another model's checkpoint"):
        irn_x4(weights=service.url())
    assert len(names(cache)) == 1  # it was there before, and whole: iirn_x4's


def test_a_damaged_file_in_the_cache_is_fetched_again(service: Service, cache: Path) -> None:
    load(service.url())
    (name,) = names(cache)
    for damage in DAMAGES.values():
        if damage is replace_by_another:
            continue  # whole, and no hash was given that could tell
        damage(cache / name)
        with pytest.warns(UserWarning, match=r"in the cache, .*best.*; it is fetched again"):
            assert same(load(service.url()), small())
        assert (cache / name).read_bytes() == service.content
    flip_a_bit(cache / name)
    service.plan = [break_off]
    with (
        pytest.warns(UserWarning, match="fetched again"),
        pytest.raises(CheckpointError, match="ended after"),
    ):
        load(service.url())
    assert names(cache) == []


def test_another_file_in_the_cache_is_noticed_by_its_hash(service: Service, cache: Path) -> None:
    url = f"{service.url()}#sha256={service.sha256}"
    load(url)
    replace_by_another(cache / names(cache)[0])
    with pytest.warns(UserWarning, match=f"the address asks for {service.sha256}; it is fetched again"):
        assert same(load(url), small())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_named_and_leaves_nothing(
    service: Service, cache: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
        with pytest.raises(
            CheckpointError, match=r"cannot be kept in .*checkpoints: No space left.*make room"
        ):
            load(service.url())
    assert names(cache) == []
    assert same(load(service.url()), small())


def test_a_full_disk_in_the_middle_of_a_file_leaves_nothing(service: Service, cache: Path) -> None:
    """For once with a real limit, of the process, on the size of a file."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
from invertible_rescaling import RescalingError, iirn_x4
try:
    iirn_x4(weights={service.url()!r}, **{SMALL!r})
except RescalingError as error:
    print(error)
"""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "cannot be kept in" in done.stdout, done.stderr
    assert "File too large" in done.stdout
    assert names(cache) == []


def test_a_cache_that_cannot_be_written_is_named(service: Service, cache: Path) -> None:
    cache.parents[1].write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot be kept in .*Not a directory.*TORCH_HOME"):
        load(service.url())


def test_an_interrupted_download_leaves_nothing(
    service: Service, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(service.url())
    assert names(cache) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "fetched from http and https addresses, got 'file:///etc/passwd'"),
        ("ftp://host/m.safetensors", "fetched from http and https addresses"),
        ("http://host/", "names no file"),
        ("http://[host/m.safetensors", "is no address"),
        ("http://host/a/..", "names no file"),
        ("https://host/m.safetensors#sha256=12", "a hash is written #sha256="),
        ("https://host/m.safetensors#main", "a hash is written #sha256="),
        ("http://host:port/m.safetensors", "no proper HTTP|port"),
        ("http://a b/m.safetensors", "InvalidURL|a b"),
    ],
)
def test_other_addresses_are_refused(cache: Path, url: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(url)
    assert names(cache) == []


def test_a_file_name_cannot_lead_out_of_the_cache(service: Service, cache: Path) -> None:
    load(service.url("..%2F..%2F..%2Fbest.safetensors"))
    (name,) = names(cache)
    assert name.startswith(".._.._.._best.")
    assert names(cache.parents[2]) == ["torch"]


# ---- shipping


def test_shipping_records_what_the_command_line_and_the_checkpoint_say(
    made: Development, development: type[WeightsEnum]
) -> None:
    member = development.V1
    assert member.training_data == [{"name": "noise", "licence": "CC0", "images": 7}]
    run = {"steps": 3, "batch_size": None, "patch": None, "optimizer": None, "hours": 0.0, "device": "none"}
    recipe = {"runs": [run], "lr": 1e-3, "loss_weights": [1, 1, 1]}
    assert member.recipe == recipe
    assert read_metadata(member.locate())["metadata"] == {
        "model": "iirn_x4",
        "version": 1,
        "licence": "Apache-2.0",
        "training_data": member.training_data,
        "recipe": recipe,
    }
    assert names(made.pretrained) == ["iirn_x4_v1.json", "iirn_x4_v1.safetensors"]


def test_weights_for_jpeg_are_members_of_their_own(
    made: Development, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made.pretrained, out)
    for quality in ("90", "75"):
        assert ship(made.checkpoint, made.benchmarks, out, which=("--jpeg", quality)) == 0
    enum = read_members("iirn_x4", out)
    assert [member.name for member in enum] == ["V1", "JPEG75", "JPEG90"]
    assert enum.DEFAULT is enum.V1
    assert enum.JPEG90.file == "iirn_x4_jpeg90.safetensors"
    through = enum.JPEG90.through
    assert {key: value for key, value in through.items() if key != "metrics"} == {
        "codec": "jpg",
        "quality": 90,
        "subsampling": "4:2:0",
        "lowest_quality": 90,
    }
    task = Task((made.benchmarks,), (made.checkpoint,), through="jpeg:90")
    (benchmark,) = (report := evaluate(task)).benchmarks
    figures = benchmark.figures[report.rows[-1].name]
    assert through["metrics"]["Set5"]["psnr_rgb"] == pytest.approx(figures.psnr_rgb, abs=0.01)
    assert through["metrics"]["Set5"]["psnr_rgb"] < enum.JPEG90.metrics["Set5"]["psnr_rgb"]
    monkeypatch.setattr(enums, "PRETRAINED", out)
    assert read_metadata(enum.JPEG90.locate())["metadata"]["member"] == "JPEG90"
    with pytest.raises(SystemExit):
        ship(made.checkpoint, made.benchmarks, out, which=("--jpeg", "0"))


def test_half_precision_is_chosen_where_it_costs_nothing(
    made: Development, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tolerated, dtype in ((100.0, "float16"), (-100.0, "float32")):
        monkeypatch.setattr(ship_weights, "TOLERATED_DB", tolerated)
        assert ship(made.checkpoint, made.benchmarks, tmp_path / dtype) == 0
        assert f"stored in {dtype}" in capsys.readouterr().out
        member = read_members("iirn_x4", tmp_path / dtype).V1
        assert member.dtype == dtype
        monkeypatch.setattr(enums, "PRETRAINED", tmp_path / dtype)
        assert member.locate().stat().st_size < (made.checkpoint.stat().st_size + 2000) * (
            0.6 if dtype == "float16" else 1
        )


def test_weights_too_large_for_half_precision_are_kept_in_single(
    made: Development, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small()
    with torch.no_grad():
        model.flow[1].phi.last.bias[0] = 1e5
    save_checkpoint(model, tmp_path / "big.safetensors", metadata={"step": 1})
    assert ship(tmp_path / "big.safetensors", made.benchmarks, tmp_path / "out") == 0
    assert "too large for torch.float16" in capsys.readouterr().out
    assert read_members("iirn_x4", tmp_path / "out").V1.dtype == "float32"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "iirn_x5"], "did you mean 'iirn_x"),
        (["--model", "iirn_x2"], "is of scale 4, iirn_x2 of scale 2"),
        (["--data", "more", "CC0", "many"], "a whole number is wanted, got 'many'"),
        (["--benchmarks", "nowhere"], "nowhere"),
        (["--after", "pyproject.toml"], "--after pyproject.toml: it is no record of weights"),
        (["--after", "nowhere.json"], "nowhere.json"),
        (["--earlier", "7", "3", "64", "soap", "long", "a core"], "a number is wanted, got 'long'"),
    ],
)
def test_what_cannot_be_shipped_says_so(
    made: Development, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert ship(made.checkpoint, made.benchmarks, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert names(tmp_path / "out") == []


def test_what_was_trained_before_is_recorded_run_by_run(made: Development, tmp_path: Path) -> None:
    out = tmp_path / "out"
    earlier = ("--earlier", "7", "3", "64", "soap", "0.5", "a core")
    assert ship(made.checkpoint, made.benchmarks, out, *earlier) == 0
    first = {"steps": 7, "batch_size": 3, "patch": 64, "optimizer": "soap", "hours": 0.5, "device": "a core"}
    own = {"steps": 3, "batch_size": None, "patch": None, "optimizer": None, "hours": 0.0, "device": "none"}
    assert read_members("iirn_x4", out).V1.recipe["runs"] == [first, own]
    after = ("--after", str(out / "iirn_x4_v1.json"))
    assert ship(made.checkpoint, made.benchmarks, out, *after, which=("--version", "2")) == 0
    assert read_members("iirn_x4", out).V2.recipe["runs"] == [first, own, own]


@pytest.mark.parametrize("name", [name for name in list_models() if len(weights_of(name))])
def test_shipped_members_name_all_runs(name: str) -> None:
    for member in weights_of(name):
        for run in member.recipe["runs"]:
            assert min(run["steps"], run["batch_size"], run["hours"]) > 0
            assert run["patch"] >= 16
            assert run["optimizer"] in ("adam", "adam-dct", "soap")
            assert run["device"]
        assert run["patch"] == member.recipe["patch"]


def test_another_structure_and_a_taken_version_need_a_word(
    made: Development, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ship_weights.parse(
        [
            *(str(made.checkpoint), "--model", "iirn_x4", "--version", "1"),
            *("--benchmarks", str(made.benchmarks), "--out", str(made.pretrained)),
            *("--licence", "x", "--device-used", "x", "--hours", "0", "--data", "a", "b", "1"),
        ]
    )
    with pytest.raises(ship_weights.ShippingError, match=r"v1.json is there.*next --version"):
        ship_weights.ship(options)
    options.version = 2
    with pytest.raises(
        ship_weights.ShippingError, match=r"not iirn_x4 as its factory makes it \(blocks: file"
    ):
        ship_weights.ship(options)
    out = tmp_path / "out"
    shutil.copytree(made.pretrained, out)
    assert ship(made.checkpoint, made.benchmarks, out, "--replace") == 0
    assert (out / "iirn_x4_v1.json").read_bytes() == (made.pretrained / "iirn_x4_v1.json").read_bytes()


def test_a_network_for_comparison_ships_as_a_rescaler_does(
    made: Development, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = randomize(create_model("edsr_x4", width=4, blocks=1), 0.2)
    save_checkpoint(model, tmp_path / "edsr.safetensors", metadata={"step": 2})
    out = tmp_path / "out"
    assert ship(tmp_path / "edsr.safetensors", made.benchmarks, out, "--model", "edsr_x4") == 0
    member = read_members("edsr_x4", out).V1
    assert (member.model, member.config["width"], member.recipe["runs"][0]["steps"]) == ("edsr_x4", 4, 2)
    assert member.parameters == sum(p.numel() for p in model.parameters())
    assert member.multiply_adds["downscale"] == 0 < member.multiply_adds["upscale"]
    monkeypatch.setattr(enums, "PRETRAINED", out)
    monkeypatch.setitem(enums._ENUMS, "edsr_x4", read_members("edsr_x4", out))
    again = create_model("edsr_x4", weights="DEFAULT")
    assert again.config == model.config
    assert largest_difference(again(uniform(1, 3, 5, 6)), model(uniform(1, 3, 5, 6))) < 1e-2
    for other in ("srcnn_x4", "iirn_x4"):  # however loudly it is accepted
        assert ship(tmp_path / "edsr.safetensors", made.benchmarks, tmp_path / "no", "--model", other) == 2
        assert "edsr.safetensors holds edsr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "trained", "message"),
    [
        ("srgan_x4", {"model": "srresnet_x4", "gan": None}, "trained without --gan: that is srresnet_x4"),
        ("srresnet_x4", {"model": "srgan_x4", "gan": "srgan"}, "with --gan srgan: that is srgan_x4"),
        ("srresnet_x4", {"model": "edsr_x4"}, "was trained as edsr_x4, not as srresnet_x4"),
        ("srresnet_x4", {"weights": "DEFAULT"}, "--begun-with"),
        ("srresnet_x4", {"start": "runs/code/last.safetensors"}, "--begun-with"),
    ],
)
def test_weights_ship_as_what_they_were_trained_as(
    made: Development,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    trained: dict[str, Any],
    message: str,
) -> None:
    file = tmp_path / "m.safetensors"
    save_checkpoint(
        create_model("srresnet_x4", width=4, blocks=1), file, metadata={"step": 2, "options": trained}
    )
    assert ship(file, made.benchmarks, tmp_path / "out", "--model", model) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_run_was_begun_with_can_be_said_in_lasting_words(made: Development, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_checkpoint(small(), file, metadata={"step": 2, "options": {"weights": "DEFAULT"}})
    assert ship(file, made.benchmarks, tmp_path / "out", "--begun-with", "V3, grown") == 0
    assert read_members("iirn_x4", tmp_path / "out").V1.recipe["weights"] == "V3, grown"


def test_the_package_is_kept_small_and_other_folders_take_any_size(
    made: Development, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ship_weights, "LARGEST_MB", 0.001)
    assert ship(made.checkpoint, made.benchmarks, tmp_path / "beside") == 0
    monkeypatch.setattr(ship_weights, "PRETRAINED", tmp_path / "package")
    assert ship(made.checkpoint, made.benchmarks, tmp_path / "package") == 2
    assert "keep it beside it with --out DIR, for weights=PATH" in capsys.readouterr().err
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize("full_at", [1, 2])
def test_a_disk_that_fills_up_while_weights_are_replaced_leaves_the_old_ones(
    made: Development,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_at: int,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made.pretrained, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    plain = ship_weights.write_atomically
    written: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        plain(path, content)

    monkeypatch.setattr(ship_weights, "write_atomically", full)
    assert ship(made.checkpoint, made.benchmarks, out, "--replace", "--note", "another record") == 2
    assert "No space left" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# ---- installed


IN_A_FRESH_ENVIRONMENT = """
import sys

def refuse(event, arguments):
    if event.startswith("socket."):
        raise OSError("the network is off")

sys.addaudithook(refuse)
import urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:9", timeout=1)
except OSError as error:
    assert "the network is off" in str(error), error

import invertible_rescaling
assert invertible_rescaling.__file__.startswith(sys.prefix), invertible_rescaling.__file__
"""
GAIN = """
import sys
from invertible_rescaling import iirn_x4, list_models, psnr
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.images import from_uint8, read_image

assert "iirn_x4" in list_models(pretrained=True)
model = iirn_x4(weights="DEFAULT").eval()
hr = from_uint8(read_image(sys.argv[1])).unsqueeze(0)
size = hr.shape[-2:]
lr = model.downscale(hr)
ours = psnr(model.upscale(lr, size=size), hr, border=4).item()
small = quantize(bicubic_resize(hr, lr.shape[-2:]))
theirs = psnr(bicubic_resize(small, size).clamp(0, 1), hr, border=4).item()
print(ours - theirs)
"""


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_built_wheel_restores_a_photograph_with_the_network_off(tmp_path: Path) -> None:
    """Installed in an environment that sees the others' packages and not this checkout."""
    pytest.importorskip("hatchling")
    from skimage import data

    from invertible_rescaling.images import write_image

    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("invertible_rescaling", "pyproject.toml", "README.md", "LICENSE"):
        copy_ = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy_(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", tmp_path, tree]
    run(*pip, *built, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 40e6
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = archive.read(metadata).decode().splitlines()
        notices = [name for name in archive.namelist() if name.endswith("files/LICENSE.md")]
    licences = {SPDX[member.licence] for member in SHIPPED}
    assert f"License-Expression: {' AND '.join(['Apache-2.0', *sorted(licences)])}" in told
    assert {"License-File: LICENSE", "License-File: invertible_rescaling/weights/files/LICENSE.md"} <= {*told}
    assert len(notices) == 2  # beside the weights, and with the licences of the distribution
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    # A line of a .pth file is a place to look in last, whose own .pth files are not followed.
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    write_image(tmp_path / "photo.png", torch.from_numpy(data.astronaut()).permute(2, 0, 1))
    installed = run(python, "-c", IN_A_FRESH_ENVIRONMENT + GAIN, tmp_path / "photo.png", cwd=tmp_path)
    here = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{GAIN}"
    source = run(sys.executable, "-c", here, tmp_path / "photo.png", cwd=tmp_path)
    assert float(installed) == pytest.approx(float(source), abs=0.1)
    assert float(source) > 2  # untrained, it would be a third of a decibel
