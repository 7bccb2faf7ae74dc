"""Images in tiles: exact ones, independent ones, and how far a network sees."""

from invertible_rescaling.tiling.receptive_field import declared_receptive_radius, receptive_radius_of

__all__ = ["declared_receptive_radius", "receptive_radius_of"]
