"""What "Try it in your browser" needs: the models as ONNX files, a sample, and ONNX Runtime Web."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from front import image_of
from onnx import TensorProto, helper, numpy_helper

from invertible_rescaling import create_model, psnr
from invertible_rescaling.export import Downscale, Upscale, export_onnx
from invertible_rescaling.images import from_uint8
from invertible_rescaling.training.data import photograph
from invertible_rescaling.weights import weights_of

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
MODELS = {  # HR pixels a side of a tile, and around it; words for the visitor
    "linear_x4": (512, 36, "at once"),
    "small_x4": (384, 48, "seconds"),
    "iirn_x4": (256, 48, "best, two minutes a megapixel"),
}


def write(made: Path) -> None:
    """Write ``made/static/try/``: ``models.json``, the files it names, ``sample.png`` and ``ort/``."""
    folder = made / "static" / "try"
    folder.mkdir(exist_ok=True)
    models = []
    for name, (tile, overlap, words) in MODELS.items():
        model = create_model(name, weights="DEFAULT").eval()
        facts: dict[str, object] = {"name": name, "scale": model.scale, "words": words}
        facts |= {"tile": tile, "overlap": overlap}
        for key, direction in (("down", Downscale(model)), ("up", Upscale(model))):
            file = folder / f"{name}_{key}.onnx"
            known = weights_of(name)["DEFAULT"].value
            about = {"model": name, "licence": known.licence, "weights_sha256": known.sha256}
            export_onnx(direction, file, metadata=about)
            _halve(file)
            facts[key] = {"file": file.name, "bytes": file.stat().st_size}
        models.append(facts)
    (folder / "models.json").write_text(json.dumps(models, indent=1) + "\n")
    _sample(folder / "sample.png", made / "expected")
    _fetch_runtime(folder / "ort")


def _sample(file: Path, expected: Path) -> None:
    """A photograph to begin with, and what the library makes of it, with which a check compares."""
    hr = from_uint8(photograph("coffee")).unsqueeze(0)
    image_of(hr).save(file)
    expected.mkdir(exist_ok=True)
    with torch.inference_mode():
        model = create_model(next(iter(MODELS)), weights="DEFAULT").eval()
        lr = model.downscale(hr)
        sr = model.upscale(lr, size=hr.shape[-2:])
    image_of(lr).save(expected / "sample_lr.png")
    (expected / "sample_psnr.txt").write_text(f"{float(psnr(sr, hr).mean()):.4f}\n")


def _halve(file: Path) -> None:
    """Store weights as float16, which is what they were shipped in: half the bytes, the same values."""
    model = onnx.load(file)
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16) if values.dtype == np.float32 and values.size > 64 else None
        if half is None or not np.array_equal(half.astype(np.float32), values):
            continue
        stored = numpy_helper.from_array(half, f"{tensor.name}_half")
        cast = helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(stored)
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _fetch_runtime(folder: Path) -> None:
    """Unpack ONNX Runtime Web, which npm fetches unless it lies there already, or DOCS_RUNTIME is 0."""
    if os.environ.get("DOCS_RUNTIME") == "0":
        return
    stamp = folder / "VERSION"
    if stamp.exists() and stamp.read_text() == RUNTIME:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"the browser trial needs npm to fetch {RUNTIME}: install Node.js")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", "--silent", "--pack-destination", place, RUNTIME]
        subprocess.run(command, check=True, cwd=place, stdout=subprocess.DEVNULL)
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as packed:
            for name in RUNTIME_FILES:
                source = packed.extractfile(f"package/dist/{name}")
                if source is None:
                    raise RuntimeError(f"{RUNTIME} has no {name}")
                (folder / name).write_bytes(source.read())
    stamp.write_text(RUNTIME)
