"""Both directions as modules, and as graphs: torch.export, ONNX and torch.compile."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from invertible_rescaling import (
    CRDB,
    GaussianLatent,
    InvertibleRescaler,
    Latent,
    iirn_x4,
    irn_x4,
    small_x4,
    srcnn_x4,
)
from invertible_rescaling.errors import ConfigError, MissingDependencyError, ValueRangeError
from invertible_rescaling.export import Direction, Downscale, Upscale, export_onnx, export_program
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.layers.subnet_parts import Conv3x3
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.data import photograph
from tests.strategies import largest_difference, uniform
from tests.tolerances import ONNX_LR_SAME, ONNX_SR, SAME

SMALL = {"name": "crdb", "growth": 8}
CLOSE = SAME[torch.float32]
STEP = 1 / 255 + CLOSE  # of LR, where rounding tips a value over
SIZES = [(1, 3, 20, 24), (3, 3, 17, 30), (2, 3, 9, 9), (1, 3, 40, 5)]
SMALLEST = [(1, 3, 1, 1), (1, 3, 1, 7), (2, 3, 4, 3)]
LATENTS = [
    {"name": "gaussian", "std": 0.0},
    "wavelet",
    *(
        pytest.param(latent, marks=pytest.mark.slow)
        for latent in (
            "zero",
            {"name": "wavelet", "correction": "difference"},
            {"name": "wavelet", "wavelet": "db2"},
        )
    ),
]


def _small(scale: int = 4, **options) -> InvertibleRescaler:
    """With one coupling, in its last stage."""
    blocks = {2: 1, 4: (0, 1), 8: (0, 0, 1)}[scale]
    return randomize(InvertibleRescaler(scale, **{"blocks": blocks, "subnet": SMALL, **options}), 0.5).eval()


def _check(direction: Direction, run, sizes) -> None:
    """That another way to run a direction gives what the model gives, which differs from size to size."""
    for size in sizes:
        image = uniform(*size)
        with torch.no_grad():
            expected, found = direction(image), run(image)
        assert found.shape == expected.shape
        difference = (found - expected).abs()
        if isinstance(direction, Downscale):
            assert float((difference > CLOSE).float().mean()) <= 0.01
            assert float(difference.max()) <= STEP
        else:
            assert float(difference.max()) <= CLOSE


def _runtime(file: Path | bytes):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda image: torch.from_numpy(session.run(None, {given.name: image.numpy()})[0])


# The two modules


def test_directions_are_the_models_two_calls() -> None:
    model, hr = _small(), uniform(2, 3, 18, 21)
    down, up = Downscale(model), Upscale(model)
    assert torch.equal(down(hr), model.downscale(hr))
    assert torch.equal(Downscale(model, bits=16)(hr), model.downscale(hr, bits=16))
    assert torch.equal(up(down(hr)), model.upscale(model.downscale(hr)))
    assert {id(p) for p in down.parameters()} == {id(p) for p in model.parameters()}
    assert not down.training
    assert Upscale(_small().train()).training


def test_directions_refuse_what_has_none() -> None:
    with pytest.raises(ConfigError, match=r"Downscale takes an InvertibleRescaler .*, got Conv2d"):
        Downscale(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueRangeError, match="1 to 16 bits, got 0"):
        Downscale(_small(), bits=0)


# torch.export


@pytest.mark.parametrize("scale", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_programs_shrink_any_size(scale: int) -> None:
    direction = Downscale(_small(scale))
    _check(direction, export_program(direction).module(), SIZES if scale < 8 else SIZES[:3])


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_programs_enlarge_any_size_with_every_latent(latent) -> None:
    direction = Upscale(_small(latent=latent))
    _check(direction, export_program(direction).module(), SIZES + SMALLEST)


@pytest.mark.slow
def test_a_strict_program_can_be_had_too() -> None:
    """By whoever calls torch.export on the module, with dimensions that it works out itself."""
    direction, auto = Downscale(_small()), torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},)
    program = torch.export.export(direction, (uniform(2, 3, 21, 30),), dynamic_shapes=shapes, strict=True)
    _check(direction, program.module(), SIZES)


def test_programs_hold_the_plain_modules() -> None:
    model = _small(2)
    convs = sum(isinstance(module, Conv3x3) for module in model.modules())
    for direction in (Downscale(model), Upscale(model)):
        targets = [str(node.target) for node in export_program(direction).graph.nodes]
        assert targets.count("aten.conv2d.default") == convs
        assert not [target for target in targets if "copy_" in target or "empty" in target]


def test_exporting_leaves_the_model_as_it_was() -> None:
    model, hr = _small(), uniform(1, 3, 32, 32)
    before, parameters = model.downscale(hr), dict(model.named_parameters())
    export_program(Downscale(model))
    assert torch.equal(model.downscale(hr), before)
    assert all(parameter.requires_grad for parameter in parameters.values())
    assert dict(model.named_parameters()).keys() == parameters.keys()


class Noise(Latent):
    def forward(self, lr: Tensor) -> Tensor:
        return torch.rand(self._shape(lr), device=lr.device)


@pytest.mark.parametrize("latent", ["gaussian", GaussianLatent(0.5, seed=1), Noise()], ids=str)
def test_random_latents_are_refused_where_they_are_used(latent) -> None:
    model = _small(2, blocks=0, latent=latent)
    with pytest.raises(ConfigError, match=r"(GaussianLatent\(std=.*\)|Noise) draws new noise.*'zero'"):
        export_program(Upscale(model))
    export_program(Downscale(model))


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training mode; call model.eval\(\)"):
        export_program(Downscale(_small().train()))


# ONNX


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Direction, Path]]:
    model, folder = _small(), tmp_path_factory.mktemp("onnx")
    made: dict[str, tuple[Direction, Path]] = {}
    for direction in (Downscale(model), Upscale(model)):
        path = folder / f"{direction.name}.onnx"
        export_onnx(direction, path, metadata={"model": "mine", "licence": "MIT"})
        made[direction.name] = direction, path
    return made


@pytest.mark.parametrize("name", ["downscale", "upscale"])
def test_onnx_runtime_gives_the_same_for_any_size(files, name: str) -> None:
    direction, path = files[name]
    _check(direction, _runtime(path), SIZES + SMALLEST)


def test_onnx_runtime_goes_there_and_back_like_the_model(files) -> None:
    """The padding is in the file that shrinks, and cutting it off again is left to the caller."""
    (down, small), (_, large) = files["downscale"], files["upscale"]
    hr = from_uint8(photograph("chelsea"))[None, :, 30:131, 50:149]
    lr = _runtime(small)(hr)
    assert lr.shape == (1, 3, 26, 25)
    same = torch.isclose(lr, down.model.downscale(hr), atol=CLOSE, rtol=0).float().mean()
    assert same >= ONNX_LR_SAME
    sr = _runtime(large)(lr)[..., :101, :99]
    assert largest_difference(sr, down.model.upscale(lr, size=(101, 99))) <= CLOSE


@pytest.mark.parametrize(
    ("name", "given", "made", "dims"),
    [
        ("downscale", "hr", "lr", "((height + 3)//4)"),
        ("upscale", "lr", "sr", "4*height"),
    ],
)
def test_onnx_files_say_what_they_are(files, name: str, given: str, made: str, dims: str) -> None:
    direction, path = files[name]
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", 18)]
    facts = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(facts.pop("config")) == direction.model.config
    assert facts.pop("library").startswith("invertible_rescaling ")
    assert facts == {"direction": name, "scale": "4", "model": "mine", "licence": "MIT"}
    (source,), (target,) = file.graph.input, file.graph.output
    assert (source.name, target.name) == (given, made)
    assert [dim.dim_param or dim.dim_value for dim in source.type.tensor_type.shape.dim] == [
        *("batch", 3, "height", "width")
    ]
    assert target.type.tensor_type.shape.dim[2].dim_param == dims


def test_onnx_files_hold_no_paths_and_little_but_weights(files) -> None:
    direction, path = files["upscale"]
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert str(Path(__file__).parents[1]).encode() not in content
    weights = 4 * sum(parameter.numel() for parameter in direction.parameters())
    assert weights < len(content) < weights + 100_000


@pytest.mark.slow
def test_equal_models_make_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_onnx(Downscale(_small(2, blocks=0)), tmp_path / name, opset=20)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert onnx.load(tmp_path / "a").opset_import[0].version == 20


@pytest.mark.slow
def test_what_is_compared_with_exports_too(tmp_path: Path) -> None:
    model = srcnn_x4().eval()
    for direction in (Downscale(model), Upscale(model)):
        export_onnx(direction, tmp_path / "file.onnx")
        _check(direction, _runtime(tmp_path / "file.onnx"), [*SIZES[:2], SMALLEST[1]])


@pytest.mark.slow
def test_models_without_a_name_export_without_a_configuration(tmp_path: Path) -> None:
    model = _small(2, subnet=lambda i, o: CRDB(i, o, growth=4), latent="zero")
    export_onnx(Upscale(model), tmp_path / "file.onnx")
    keys = {entry.key for entry in onnx.load(tmp_path / "file.onnx").metadata_props}
    assert keys == {"library", "direction", "scale"}


def test_another_number_of_channels_is_refused_by_the_runtime(files) -> None:
    with pytest.raises(Exception, match="Got invalid dimensions for input: hr"):
        _runtime(files["downscale"][1])(uniform(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"opset": 17}, "opset must be 18 or more, got 17"),
        ({"metadata": {"year": 2026}}, "metadata is strings, got 'year': 2026"),
        ({"metadata": {"scale": "2"}}, "says scale='4' itself"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, options, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        export_onnx(Downscale(_small()), tmp_path / "file.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invertible_rescaling.export.onnx_file.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"need onnx and onnxscript: pip install.*\[onnx\]"):
        export_onnx(Downscale(_small()), tmp_path / "file.onnx")


@pytest.mark.slow
def test_onnx_runtime_agrees_on_the_benchmarks(benchmarks: Path, tmp_path: Path) -> None:
    """The default network takes minutes: ``examples/export_onnx.py --check`` measures it."""
    model = small_x4(weights="DEFAULT").eval()
    export_onnx(Downscale(model), tmp_path / "down.onnx")
    export_onnx(Upscale(model), tmp_path / "up.onnx")
    down, up = _runtime(tmp_path / "down.onnx"), _runtime(tmp_path / "up.onnx")
    for path in find_images(benchmarks / "Set5"):
        _agree(model, from_uint8(read_image(path)).unsqueeze(0), down, up)


def _agree(model, hr: Tensor, down, up) -> None:
    lr = model.downscale(hr)
    steps = (255 * (down(hr) - lr)).abs().round()
    assert float((steps == 0).float().mean()) >= ONNX_LR_SAME
    assert float(steps.max()) <= 1
    assert largest_difference(up(lr), model.upscale(lr)) <= ONNX_SR


# torch.compile


@pytest.mark.usefixtures("fresh_compiler")
def test_both_directions_are_one_graph_each() -> None:
    model, hr = _small(), uniform(2, 3, 64, 61)
    lr, sr = model.downscale(hr), model.upscale(model.downscale(hr), size=(64, 61))
    down = torch.compile(model.downscale, backend="eager", fullgraph=True)
    up = torch.compile(model.upscale, backend="eager", fullgraph=True)
    with fast_kernels(False):
        plain = model.downscale(hr), model.upscale(lr, size=(64, 61))
    for found, expected, own in ((down(hr), lr, plain[0]), (up(lr, size=(64, 61)), sr, plain[1])):
        assert largest_difference(found, expected) <= STEP
        assert largest_difference(found, own) <= CLOSE  # the plain modules, to the kind of convolution


@pytest.mark.parametrize("latent", ["zero", {"name": "gaussian", "std": 0.0}, "gaussian"], ids=str)
@pytest.mark.usefixtures("fresh_compiler")
def test_other_latents_compile(latent) -> None:
    model, lr = _small(2, latent=latent), uniform(1, 3, 9, 8)
    torch.manual_seed(1)
    expected = model.upscale(lr)
    torch.manual_seed(1)
    found = torch.compile(model.upscale, backend="eager", fullgraph=True)(lr)
    assert largest_difference(found, expected) <= CLOSE


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Every test in this process compiles the same code, and PyTorch gives up after a few times."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as torch imports its compiler
@pytest.mark.parametrize("direction", [Downscale, Upscale])
@pytest.mark.parametrize(
    ("model", "dynamic", "sizes"),
    [
        (partial(irn_x4, blocks=(0, 1), latent="zero"), False, [(1, 3, 40, 48)]),
        (partial(iirn_x4, blocks=(0, 1)), True, [(2, 3, 40, 48), (1, 3, 33, 50)]),
    ],
)
def test_compiled_code_gives_the_same(model, direction, dynamic: bool, sizes) -> None:
    made = direction(randomize(model(), 0.5).eval())
    _check(made, torch.compile(made, fullgraph=True, dynamic=dynamic), sizes)
