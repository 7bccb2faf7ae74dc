"""Training: images and their patches, the options of a run, and the program that carries it out.

The program needs the extra ``[train]``: ``invertible-rescaling train``, or ``accelerate launch -m
invertible_rescaling.training`` for several processes. What is imported here needs no more than images do.
"""

from typing import TYPE_CHECKING, Any

from invertible_rescaling.training import degradations
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.dataset import div2k_pairs, load_images
from invertible_rescaling.training.patches import ImagePair, PatchSampler, sub_image_corners
from invertible_rescaling.training.soap import SOAP

if TYPE_CHECKING:
    from invertible_rescaling.training.trainer import Trainer, TrainingResult

__all__ = [
    "SOAP",
    "ImagePair",
    "OptionError",
    "PatchSampler",
    "Trainer",
    "TrainingConfig",
    "TrainingResult",
    "degradations",
    "div2k_pairs",
    "load_images",
    "sub_image_corners",
]


def __getattr__(name: str) -> Any:
    if name not in ("Trainer", "TrainingResult"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from invertible_rescaling.training import trainer  # which needs the extra [train]

    return getattr(trainer, name)
