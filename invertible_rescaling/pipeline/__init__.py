"""Picture files down and up: any kind of picture, one or many, in processes.

:class:`PictureRescaler` takes pictures in memory. For files, :func:`plan` pairs what is read with what is
written, and :func:`rescale_file` does one of the pairs, in whatever process it is called; the command line is
made of the two.
"""

from invertible_rescaling.pipeline.networks import ModelChoice
from invertible_rescaling.pipeline.paths import FileTask, Plan, plan
from invertible_rescaling.pipeline.rescale import PictureRescaler
from invertible_rescaling.pipeline.tasks import FileOutcome, RescaleOptions, rescale_file

__all__ = [
    "FileOutcome",
    "FileTask",
    "ModelChoice",
    "PictureRescaler",
    "Plan",
    "RescaleOptions",
    "plan",
    "rescale_file",
]
