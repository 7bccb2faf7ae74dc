"""Models for the command line: by name, by a checkpoint, or by what an LR file says it was made with."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from invertible_rescaling.engines import create_engine, fastest_engine, list_engines
from invertible_rescaling.errors import CheckpointError, ConfigError, UnknownNameError
from invertible_rescaling.models.factories import iirn_x4  # noqa: F401  (registers the models)
from invertible_rescaling.models.loading import model_of
from invertible_rescaling.models.rescaler import InvertibleRescaler
from invertible_rescaling.pipeline.record import Record
from invertible_rescaling.pipeline.rescale import PictureRescaler
from invertible_rescaling.registry import create_model, list_models
from invertible_rescaling.weights.enums import WeightsEnum, choose_weights, open_checkpoint, weights_of

__all__ = ["ModelChoice"]

DEFAULT_MODEL = "iirn_x4"
JPEG_MODEL = "small_x4"  # what LR is made with that is to be stored as JPEG


@dataclass(frozen=True)
class ModelChoice:
    """Which model to use; ``None`` leaves it to the default, or to what a picture says.

    Attributes:
        model: a name.
        weights: the name of shipped weights, a checkpoint's path or its address.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        engine: one of :func:`~invertible_rescaling.engines.list_engines`, or ``"auto"`` for the fastest here.
    """

    model: str | None = None
    weights: str | None = None
    device: str = "cpu"
    engine: str = "torch"

    def check(self) -> None:
        """Load the model, and keep it.

        Raises:
            UnknownNameError, CheckpointError, ConfigError: there is no such model, or none that can be used.
            MissingDependencyError: the engine is not installed.
        """
        network = load(self)
        if self.engine != "auto":
            network.run_by(self.engine)


@dataclass(frozen=True)
class Network:
    """A model with trained weights, ready for inference.

    Attributes:
        name: of the model.
        model: itself, on its device.
        sha256: of the file of its weights.
        engine: by name, or ``"auto"``.
    """

    name: str
    model: InvertibleRescaler
    sha256: str
    engine: str = "torch"
    _made: dict[str, InvertibleRescaler] = field(default_factory=dict, compare=False, repr=False)

    def in_tiles(self, tile: int | None, size: tuple[int, int]) -> PictureRescaler:
        """The model for whole pictures of about a size, in tiles of so many pixels."""
        auto = self.engine == "auto"
        return PictureRescaler(self.run_by(fastest_engine(self.model, size) if auto else self.engine), tile)

    def run_by(self, engine: str) -> InvertibleRescaler:
        """The model with an engine, which is kept.

        Raises:
            UnknownNameError, ConfigError, MissingDependencyError: there is none, or none for this model.
        """
        if engine not in self._made:
            self._made[engine] = self.model.with_engine(create_engine(engine, self.model))
        return self._made[engine]


@lru_cache(maxsize=2)
def load(choice: ModelChoice) -> Network:
    """Load the model that was asked for, ``iirn_x4`` with its newest weights by default.

    A checkpoint's own structure overrides the named model's, except for its scale.

    Raises:
        UnknownNameError: no model, or no weights, of that name.
        CheckpointError: no weights are shipped for the model, or the file is no good.
        ConfigError: the model is no invertible rescaler, or the checkpoint of another scale.
    """
    name = choice.model or DEFAULT_MODEL
    if name not in list_models():
        create_model(name)  # raises, naming the close ones
    wanted = choice.weights
    if wanted is None and not shipped(name):
        raise CheckpointError(
            f"no trained weights are shipped for {name}; pass --weights FILE, or one of "
            f"{', '.join(list_models(pretrained=True))} as --model"
        )
    chosen = choose_weights(wanted or "DEFAULT", name)
    with open_checkpoint(chosen) as checkpoint:
        model = checkpoint.build(model_of)
    file = checkpoint.source
    if not isinstance(model, InvertibleRescaler):
        raise ConfigError(
            f"{name} is {type(model).__name__}, which is there to be compared with; it restores nothing"
        )
    if not name.endswith(f"_x{model.scale}") and choice.model is not None:
        raise ConfigError(f"{file} holds a model of scale {model.scale}, not {name}; name one that is")
    if model.channels != 3:
        raise ConfigError(f"{file} holds a model of {model.channels} channels; pictures need 3")
    if choice.model is None and wanted is not None and not isinstance(chosen, WeightsEnum):
        name = f"unnamed_x{model.scale}"  # whatever it is: its weights' hash tells it from others
    return Network(name, model.float().eval().to(choice.device), checkpoint.sha256, choice.engine)


def choice_for(record: Record, given: ModelChoice) -> ModelChoice:
    """Return the choice that brings back an LR picture: the model that made it, unless one was named.

    Raises:
        CheckpointError: it was made with weights that are neither shipped nor given.
    """
    if given.model is not None:
        return given
    if given.weights is not None:
        found = load(given).sha256
        if found != record.weights_sha256:
            raise CheckpointError(
                f"it was made with other weights (SHA-256 {record.weights_sha256[:12]}...) than "
                f"{given.weights} ({found[:12]}...); pass --model as well to go by these"
            )
        return given
    for member in shipped(record.model):
        if member.value.sha256 == record.weights_sha256:
            return replace(given, model=record.model, weights=member.name)
    raise CheckpointError(
        f"it was made with {record.model} and weights (SHA-256 {record.weights_sha256[:12]}...) that are not "
        "shipped; pass their file as --weights, or --model to bring it back with another model"
    )


@dataclass(frozen=True)
class JpegChoice:
    """How to store LR as JPEG so that it can be brought back.

    Attributes:
        choice: weights that were trained for it.
        quality: to store at.
        lowest: the lowest quality they were trained for.
        cost: what it costs, in a sentence.
    """

    choice: ModelChoice
    quality: int
    lowest: int
    cost: str

    subsampling = "4:2:0"


def jpeg_choice(given: ModelChoice, quality: int | None) -> JpegChoice | None:
    """The weights for an LR that is to be stored as JPEG: those named, or those of the nearest quality.

    ``None`` where the model has none, or others were named.
    """
    name = given.model or JPEG_MODEL
    members = {m.value.through["quality"]: m for m in shipped(name) if m.value.through is not None}
    if given.weights is not None:
        members = {trained: member for trained, member in members.items() if member.name == given.weights}
    if not members:
        return None
    trained = max(members) if quality is None else min(members, key=lambda each: abs(each - quality))
    member = members[trained]
    return JpegChoice(
        replace(given, model=name, weights=member.name),
        quality or trained,
        (member.value.through or {})["lowest_quality"],
        _cost(name, member),
    )


def _cost(name: str, member: WeightsEnum) -> str:
    through, on = member.value.through or {}, "BSD100"
    figures, stored = through["metrics"][on], weights_of(name).DEFAULT.value.metrics[on]
    return (
        f"LR is stored with loss, by {name} {member.name}, which was trained for that: on {on} "
        f"{figures['psnr_rgb']:.2f} dB come back, of bicubic {figures['psnr_rgb_bicubic']:.2f}, and of "
        f"{name} stored as png {stored['psnr_rgb']:.2f}"
    )


def lowest_jpeg(network: Network) -> int | None:
    """The lowest quality of JPEG that a network's weights were trained for; ``None`` of others."""
    for member in shipped(network.name):
        if member.value.sha256 == network.sha256 and member.value.through is not None:
            return int(member.value.through["lowest_quality"])
    return None


def check_engine(wanted: str) -> str:
    """Refuse an engine that is not known.

    Raises:
        UnknownNameError: it is neither ``auto`` nor one that is known.
    """
    if wanted != "auto" and wanted not in list_engines():
        raise UnknownNameError(f"there is no engine {wanted!r}; there are auto, {', '.join(list_engines())}")
    return wanted


def device_of(wanted: str) -> str:
    """``auto`` is a GPU if there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"no device {wanted!r} can be used here ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return wanted


def shipped(name: str) -> list[WeightsEnum]:
    """The sets of trained weights that come with the package, the oldest first."""
    try:
        return list(weights_of(name))
    except UnknownNameError:
        return []
