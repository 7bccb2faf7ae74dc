"""Picture files down and up: any kind of picture, one or many, in processes."""

from invertible_rescaling.pipeline.rescale import PictureRescaler

__all__ = ["PictureRescaler"]
