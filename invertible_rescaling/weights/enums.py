"""Trained weights: one enum per model, and the file that an argument ``weights=`` stands for.

What is known of a member lies in ``files/MODEL_vN.json`` or ``MODEL_jpegQ.json``, beside the file itself;
``tools/ship_weights.py`` measures a checkpoint and writes both.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import Enum, EnumType
from pathlib import Path
from typing import Any

from invertible_rescaling.errors import CheckpointError, UnknownNameError
from invertible_rescaling.weights.checkpoint import Checkpoint, read_checkpoint

PRETRAINED = Path(__file__).with_name("files")
_LIKE_AN_ADDRESS = re.compile(r"([\w-]+(\.[\w-]+)+(:\d+)?|[\w-]+:\d+|https?:)/")


@dataclass(frozen=True)
class Weights:
    """The facts of one set of trained weights, as plain data.

    Attributes:
        file: the safetensors file's name.
        sha256: of the whole file, in hexadecimal.
        model: the name of the factory that takes them.
        config: the model's ``config`` as they were trained with it: the arguments of
            :class:`~invertible_rescaling.InvertibleRescaler` or of a super-resolver.
        dtype: what the file stores; the model computes in float32.
        parameters: how many.
        multiply_adds: of the convolutions on one image: ``hr_size`` [H, W], ``downscale``, ``upscale``.
        licence: of the weights.
        training_data: one dictionary each: ``name``, ``licence``, ``images``.
        recipe: ``runs``, all that led to them, in a row: ``steps``, ``batch_size``, ``patch``, ``optimizer``,
            ``hours`` and ``device`` of each, with ``linear_start``, its steps, where a run began with one,
            and ``model`` where the run trained another, from which this one began. Beside that the options
            of the last, of which ``None`` was the program's default at that time; where there is a
            ``command``, it trains them again.
        metrics: for each benchmark ``images`` and the means of ``psnr_rgb``, ``ssim_rgb``, ``psnr_y``,
            ``ssim_y`` and ``psnr_lr`` (LR against bicubic; ``None`` where LR is bicubic's), by the convention
            of ``tools/evaluate.py``.
        through: of weights that were trained for an LR stored with loss: ``codec``, ``quality``,
            ``subsampling``, and ``metrics`` through it, with bicubic's ``psnr_rgb_bicubic`` beside them;
            ``lowest_quality`` is the lowest that training drew.
    """

    file: str
    sha256: str
    model: str
    config: dict[str, Any]
    dtype: str
    parameters: int
    multiply_adds: dict[str, Any]
    licence: str
    training_data: list[dict[str, Any]]
    recipe: dict[str, Any]
    metrics: dict[str, dict[str, float | None]]
    through: dict[str, Any] | None = None


_FIELDS = tuple(field.name for field in fields(Weights))


class _Members(EnumType):
    def __getattr__(cls, name: str) -> Any:
        members = cls.__dict__.get("_member_map_", {})
        if name in members:  # where Python 3.11 looks for them
            return members[name]
        raise AttributeError(
            f"{cls.__name__} has no {name!r}; it has {', '.join(members) or 'no members yet'}"
        )


class WeightsEnum(Enum, metaclass=_Members):
    """The sets of weights that are shipped for one model: ``V1``, ``V2``, ..., and ``DEFAULT``, the newest.

    ``JPEG90`` and the like, where a model has them, are for an LR that is stored as JPEG of that quality.

    A member gives its data as attributes (``member.metrics``) and, whole, as ``member.value``, a
    :class:`Weights`. A model without shipped weights has an enum without members.

    Example:
        >>> from invertible_rescaling import list_models
        >>> from invertible_rescaling.weights import weights_of
        >>> for name in list_models(pretrained=True):
        ...     assert weights_of(name).DEFAULT.model == name
    """

    _value_: Weights

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:
            return getattr(self.value, name)
        raise AttributeError(f"weights have no {name!r}; they have {', '.join(_FIELDS)}")

    def locate(self) -> Path:
        """Return the file's path, its hash verified.

        Raises:
            CheckpointError: the file is missing from the installed package, or was damaged since.
        """
        self._content()
        return PRETRAINED / self.value.file

    def _content(self) -> bytes:
        path = PRETRAINED / self.value.file
        try:
            content = path.read_bytes()
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
        else:
            found = hashlib.sha256(content).hexdigest()
            if found == self.value.sha256:
                return content
            problem = f"is damaged: its SHA-256 is {found}, not {self.value.sha256}"
        raise CheckpointError(f"{path}, the file of {self}, {problem}; install invertible_rescaling again")


def _class_name(model: str) -> str:
    return model.upper().replace("SRRESNET", "SRResNet")


def read_members(model: str, folder: Path) -> type[WeightsEnum]:
    """Make a model's enum of the JSON files in a folder."""
    found: dict[tuple[str, int], Weights] = {}
    for path in folder.glob(f"{model}_*.json"):
        name = re.fullmatch(r"(v|jpeg)(\d+)", path.stem.removeprefix(f"{model}_"))
        if name is None:
            continue
        try:
            found[name[1], int(name[2])] = Weights(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is damaged ({type(error).__name__}: {error}); install invertible_rescaling again"
            ) from error
    versions = sorted(number for kind, number in found if kind == "v")
    members = {f"V{version}": found["v", version] for version in versions}
    members |= {
        f"{kind.upper()}{number}": found[kind, number] for kind, number in sorted(found) if kind != "v"
    }
    if versions:
        members["DEFAULT"] = found["v", versions[-1]]
    make: Any = WeightsEnum  # a type checker follows calls that make enums only if they spell the members out
    enum: type[WeightsEnum] = make(f"{_class_name(model)}_Weights", members, module=__name__)
    enum.__doc__ = f"Trained weights of ``{model}``; see :class:`WeightsEnum`."
    return enum


_MODELS = (
    *("iirn_x2", "iirn_x4", "iirn_x8", "irn_x2", "irn_x4", "irn_x8"),
    *("linear_x2", "linear_x4", "linear_x8", "small_x2", "small_x4", "small_x8"),
    *("srcnn_x4", "srresnet_x4", "srgan_x4", "edsr_x4", "esrgan_x4"),
)
_ENUMS = {model: read_members(model, PRETRAINED) for model in _MODELS}
IIRN_X2_Weights, IIRN_X4_Weights, IIRN_X8_Weights = (_ENUMS[model] for model in _MODELS[:3])
IRN_X2_Weights, IRN_X4_Weights, IRN_X8_Weights = (_ENUMS[model] for model in _MODELS[3:6])
LINEAR_X2_Weights, LINEAR_X4_Weights, LINEAR_X8_Weights = (_ENUMS[model] for model in _MODELS[6:9])
SMALL_X2_Weights, SMALL_X4_Weights, SMALL_X8_Weights = (_ENUMS[model] for model in _MODELS[9:12])
SRCNN_X4_Weights, SRResNet_X4_Weights, SRGAN_X4_Weights = (_ENUMS[model] for model in _MODELS[12:15])
EDSR_X4_Weights, ESRGAN_X4_Weights = (_ENUMS[model] for model in _MODELS[15:])


def weights_of(model: str) -> type[WeightsEnum]:
    """Return the enum of a model's weights by the model's name.

    Raises:
        UnknownNameError: no model of this library has that name.

    Example:
        >>> from invertible_rescaling.weights import weights_of
        >>> weights_of("iirn_x4")
        <enum 'IIRN_X4_Weights'>
    """
    if model not in _ENUMS:
        raise UnknownNameError(_unknown(f"no weights are kept for a model {model!r}", model, list(_ENUMS)))
    return _ENUMS[model]


def choose_weights(given: Any, model: str) -> WeightsEnum | Path | str:
    """Return what ``weights=``, other than ``None``, means for a model: a member, a path or a URL.

    Raises:
        UnknownNameError: no member has that name, or it is another model's.
        CheckpointError: there are no weights to choose from, no such file, or ``given`` is something else.
    """
    members = _ENUMS[model].__members__ if model in _ENUMS else {}  # of another package's model none are kept
    if isinstance(given, WeightsEnum):
        if given not in members.values():
            raise UnknownNameError(
                f"{given} are weights of {given.value.model}, not of {model}; "
                f"{model} has {', '.join(members) or 'none yet'}"
            )
        return given
    if isinstance(given, str) and "://" in given:
        return given
    if isinstance(given, str) and given in members:
        return members[given]
    if isinstance(given, str | os.PathLike):
        path = Path(os.path.expanduser(os.fspath(given)))
        if given and path.is_file():
            return path
        if not isinstance(given, str) or not given.isidentifier() or path.is_dir():
            raise CheckpointError(f"weights={str(given)!r}{_no_file(given, path)}")
        if members:
            raise UnknownNameError(
                _unknown(f"no weights of {model} are named {given!r}", given.upper(), list(members))
            )
    shipped = [name for name, other in _ENUMS.items() if other.__members__]
    raise CheckpointError(
        f"weights takes None, a member of {_class_name(model)}_Weights or its name, a checkpoint's path or "
        f"an http(s) address, got {given!r}; weights are shipped for {', '.join(shipped) or 'no model'} "
        "(list_models(pretrained=True))"
    )


def _no_file(given: Any, path: Path) -> str:
    if given == "":
        return " is empty; leave it out for an untrained model"
    if path.is_dir():
        return " is a folder; pass the path of a checkpoint file"
    if _LIKE_AN_ADDRESS.match(str(given)):
        return ": there is no file of that path; before an address write http:// or https://"
    return ": there is no file of that path"


@contextmanager
def open_checkpoint(chosen: WeightsEnum | Path | str) -> Iterator[Checkpoint]:
    """Read what :func:`choose_weights` returned: a member's file, a local one, or an address's.

    A file fetched from an address is kept if the block succeeds.

    Raises:
        CheckpointError: the file is damaged or cannot be had.
    """
    if isinstance(chosen, WeightsEnum):
        yield Checkpoint.parse(chosen._content(), str(PRETRAINED / chosen.value.file))
    elif isinstance(chosen, Path):
        yield read_checkpoint(chosen)
    else:
        from invertible_rescaling.weights.download import fetched  # here, since few need it

        with fetched(chosen) as checkpoint:
            yield checkpoint


def _unknown(problem: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known)}"
    return f"{problem}; {hint}"
