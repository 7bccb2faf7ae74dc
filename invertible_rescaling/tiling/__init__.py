"""Images in tiles: exact ones, independent ones, and how far a network sees."""

from invertible_rescaling.tiling.receptive_field import declared_reach, reach_of

__all__ = ["declared_reach", "reach_of"]
