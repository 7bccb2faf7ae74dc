"""The layout: who may import whom, what an import costs, and which names are public."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import invertible_rescaling
from tests import tree
from tests.public_api import inventory, modules, public

PACKAGE = Path(invertible_rescaling.__file__).parent
INTERFACE = Path(__file__).with_name("public_api.txt")

# The lowest level first. A folder or module at the root imports only from levels below its own; within a
# folder modules import each other, but never round about.
LEVELS = (
    ("errors", "files", "_process", "_version"),
    ("kernels",),
    ("functional", "registry", "metrics", "images", "testing"),
    ("layers", "weights"),
    ("tiling", "flows"),
    ("models",),
    ("losses", "export", "evaluation"),
    ("engines",),
    ("pipeline", "training"),
    ("cli",),
)
LEVEL = {room: number for number, level in enumerate(LEVELS) for room in level}
# What a room must never do, whatever the levels allow.
FORBIDDEN = {
    "layers": ("models", "images", "weights", "files"),
    "weights": ("models", "layers"),
    "images": ("layers", "models"),
    "pipeline": ("training",),
    "training": ("pipeline",),
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
ids = {"ids": [str(path.relative_to(PACKAGE)) for path in MODULES]}


def _room(path: Path) -> str:
    """The module of a file: the first part of its name below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """All modules a file imports, at the top or inside functions, by statement or by name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively, in line {node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            text = "".join(n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
            found |= {text} if text else set()
    return found


def _files_of(name: str, package: Path = PACKAGE) -> set[Path]:
    """The file of this package that a dotted name is found in; none for other packages' names."""
    first, *rest = name.split(".")
    if first != package.name:
        return set()
    for length in range(len(rest), -1, -1):
        path = package.joinpath(*rest[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return {file}
    return set()


def _circles(package: Path) -> list[set[Path]]:
    """The sets of files that import each other round about."""
    files = sorted(package.rglob("*.py"))
    graph = {
        file: {there for name in _imports(file) for there in _files_of(name, package)} - {file}
        for file in files
    }
    reached = {file: set(graph[file]) for file in files}
    for middle in files:  # Warshall's closure
        for file in files:
            if middle in reached[file]:
                reached[file] |= reached[middle]
    found: list[set[Path]] = []
    for file in files:
        circle = {other for other in reached[file] if file in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def test_no_modules_import_each_other_round_about() -> None:
    assert _circles(PACKAGE) == []


def test_circles_are_found_through_functions_and_names(tmp_path) -> None:
    package = tmp_path / "parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from parts.b import g\n")
    (package / "b.py").write_text("def g():\n    importlib.import_module('parts.c')\n")
    (package / "c.py").write_text("import parts.a\n")
    (package / "d.py").write_text("import parts.a\n")
    assert _circles(package) == [{package / "a.py", package / "b.py", package / "c.py"}]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that torch is imported once")
def test_every_room_can_be_the_first_to_be_imported() -> None:
    """Folders and the modules beside them; that no import goes round about is tested for all modules."""
    rooms = [path for path in MODULES if path.parent == PACKAGE or path.name == "__init__.py"]
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in rooms]
    code = f"""
import os, sys, torch
failed = []
for name in {names}:
    child = os.fork()
    if child == 0:
        package = type(sys)("invertible_rescaling")  # its parts are found, and its face is not run first
        package.__path__ = [{str(PACKAGE)!r}]
        sys.modules["invertible_rescaling"] = package
        try:
            __import__(name)
        except BaseException as error:
            print(name, error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(failed)
"""
    assert _python(code).strip() == "[]"


def test_every_module_has_its_level() -> None:
    assert {_room(path) for path in MODULES} <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, **ids)
def test_a_module_imports_only_from_levels_below(path: Path) -> None:
    here = _room(path)
    for name in _imports(path):
        package, _, rest = name.partition(".")
        if package != "invertible_rescaling":
            continue
        there = rest.split(".")[0]
        assert there in LEVEL, f"{path.name} imports {name}: from the module, please, not from the package"
        assert LEVEL[there] < LEVEL[here] or here == there, f"{here} imports {there}"
        assert there not in FORBIDDEN.get(here, ()), f"{here} must not import {there}"


def test_nothing_imports_programs_examples_or_tests() -> None:
    root = PACKAGE.parent
    examples = sorted(root.glob("examples/*.py"))
    outside = {path.stem for path in [*examples, *root.glob("tools/*")]} | {"examples", "tools", "tests"}
    for path in [*MODULES, *examples]:
        assert not outside & {name.split(".")[0] for name in _imports(path)}, path


def test_the_rule_would_notice(tmp_path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "def f():\n    from invertible_rescaling.models.factories import irn_x4\n    import PIL.Image\n"
    )
    assert _imports(bad) == {"invertible_rescaling.models.factories.irn_x4", "PIL.Image"}


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("PIL", "images"),
        ("imagecodecs", "images"),
        ("tifffile", "images"),
        ("pytorch_wavelets", "layers"),
        ("pywt", "layers"),
        ("onnxscript", "export"),
        ("typer", "cli"),
    ],
)
def test_optional_packages_have_one_owner(name: str, owner: str) -> None:
    mentions = {_room(path) for path in MODULES if re.search(rf"\b{name}\b", path.read_text())}
    assert mentions == {owner}


def test_contributing_shows_the_tree_as_the_imports_draw_it() -> None:
    """``python -m tests.tree`` prints what is to stand there."""
    assert f"```\n{tree.draw()}\n```" in (PACKAGE.parent / "CONTRIBUTING.md").read_text()


def test_the_registry_knows_no_torch() -> None:
    assert not any(name.split(".")[0] in ("torch", "numpy") for name in _imports(PACKAGE / "registry.py"))


def test_couplings_know_no_sub_network() -> None:
    assert not any("subnets" in name for name in _imports(PACKAGE / "layers" / "coupling.py"))


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_optional() -> None:
    optional = {
        "PIL",
        "imagecodecs",
        "rich",
        "tifffile",
        "typer",
        "pytorch_wavelets",
        "pywt",
        "tensorboard",
        "accelerate",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "skimage",
        "tqdm",
        "pkg_resources",
        "FrEIA",
        "pyro",
        "zuko",
    }
    code = f"""
import sys, torch
before = set(sys.modules)  # torch itself imports some of these where they are installed
import invertible_rescaling
from tests import tree
from tests.public_api import inventory, modules, public
print(sorted({optional} & (set(sys.modules) - before)))
"""
    assert _python(code).strip() == "[]"
    assert _python("import sys, pywt; print('pywt' in sys.modules)").strip() == "True"


def test_names_are_imported_when_they_are_asked_for() -> None:
    code = """
import sys, invertible_rescaling
print("torch" in sys.modules, "numpy" in sys.modules)
from invertible_rescaling import create_model
create_model("linear_x2", weights="DEFAULT")
later = ("evaluation", "export", "flows", "images", "training", "weights.download", "weights.hub")
print([name for name in later if f"invertible_rescaling.{name}" in sys.modules])
"""
    assert _python(code).splitlines() == ["False False", "[]"]
    asked = "import invertible_rescaling as r; print(r.tiling.receptive_radius_of, r.images)"
    assert _python(asked).startswith("<function receptive_radius_of")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = invertible_rescaling.nothing


def test_every_name_and_every_public_module_can_be_asked_for() -> None:
    rooms = {module.__name__.partition(".")[2] for module in modules()}
    named = {name for name in rooms if "." not in name and not name.startswith("_")} - {"", "cli", "files"}
    assert named <= set(dir(invertible_rescaling))
    for name in (*invertible_rescaling.__all__, *named):
        assert getattr(invertible_rescaling, name) is not None
    assert not named & set(invertible_rescaling.__all__)  # a star brings no modules


def test_type_checkers_are_told_of_the_same_names() -> None:
    told: dict[str, tuple[str, ...]] = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)  # as a stub hands names on
            told[node.module or ""] = tuple(alias.name for alias in node.names)
    assert set(told.pop("")) == invertible_rescaling._MODULES
    assert told == invertible_rescaling._NAMES


def test_the_registry_knows_the_built_in_models_from_the_first() -> None:
    """Whichever of the library's modules is imported, and whoever registers first."""
    code = """
from invertible_rescaling.registry import list_models, register_model, register_subnet, subnets
from invertible_rescaling.errors import UnknownNameError
for register in (lambda: register_model(lambda: None, name="iirn_x4"), lambda: register_subnet("crdb", dict)):
    try:
        register()
    except UnknownNameError as error:
        print("registered already" in str(error))
print("iirn_x4" in list_models(), "crdb" in subnets)
"""
    assert _python(code).splitlines() == ["True", "True", "True True"]


def test_threads_may_be_the_first_to_ask() -> None:
    code = """
import threading, torch
from invertible_rescaling import iirn_x2
model, hr, done = iirn_x2(blocks=1), torch.rand(1, 3, 16, 16), []
model.enable_reversible_backprop()
def work():
    lr = model.downscale(hr, tile=8)
    model.upscale(lr, tile=8, overlap=4)
    model(hr)[0].sum().backward()
    done.append(1)
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(len(done))
"""
    assert _python(code).strip() == "4"


def test_importing_the_package_changes_nothing_and_says_nothing() -> None:
    code = """
import random, warnings
import numpy, torch
def state():
    return (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate(),
            list(warnings.filters), torch.get_default_dtype(), torch.get_num_threads(),
            torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled())
before = state()
import invertible_rescaling
from tests import tree
from tests.public_api import inventory, modules, public
assert state() == before
"""
    assert _python(code) == ""


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    constant, cls = name.isupper() and len(name) > 1, name[0].isupper()
    return (0 if constant else 1 if cls else 2), name


@pytest.mark.parametrize("module", modules()[1:], ids=lambda module: module.__name__)
def test_public_names_are_sorted(module: ModuleType) -> None:
    names = list(getattr(module, "__all__", ()))
    assert names == sorted(names, key=_as_ruff_sorts)


def test_the_public_interface_is_the_one_checked_in() -> None:
    """A change on purpose goes there by ``python -m tests.public_api``, and into the CHANGELOG."""
    assert inventory() == INTERFACE.read_text().splitlines()


@pytest.mark.parametrize("name", sorted(public()))
def test_every_public_name_is_documented(name: str) -> None:
    thing = public()[name]
    if callable(thing) and getattr(thing, "__module__", "").startswith("invertible_rescaling"):
        assert inspect.getdoc(thing), name


def test_the_version_is_the_distributions() -> None:
    assert re.fullmatch(r"\d+\.\d+.*", invertible_rescaling.__version__)


def test_type_hints_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()
