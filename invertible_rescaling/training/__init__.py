"""Training data: images, their patches, and DIV2K's layout."""

from invertible_rescaling.training.dataset import div2k_pairs, load_images
from invertible_rescaling.training.patches import ImagePair, PatchSampler, sub_image_corners

__all__ = ["ImagePair", "PatchSampler", "div2k_pairs", "load_images", "sub_image_corners"]
