"""Image files in and out: plain 8-bit RGB tensors, and whole pictures with all that a file holds.

:func:`read_image` and :func:`write_image` are enough to train and to measure; :func:`read_picture` and
:func:`write_picture` keep greyscale, alpha, 16 bits, the ICC profile and EXIF. All need Pillow, imagecodecs
or tifffile: ``pip install invertible_rescaling[images]``.
"""

from invertible_rescaling.images.encoding import LOSSLESS, SUFFIXES, encode_picture
from invertible_rescaling.images.fitting import fit_metadata
from invertible_rescaling.images.formats import PICTURE_SUFFIXES
from invertible_rescaling.images.io import MAX_PIXELS, decode_picture, read_picture, write_picture
from invertible_rescaling.images.picture import Picture
from invertible_rescaling.images.rgb import (
    find_images,
    from_uint8,
    read_image,
    to_uint8,
    write_image,
)

__all__ = [
    "LOSSLESS",
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "SUFFIXES",
    "Picture",
    "decode_picture",
    "encode_picture",
    "find_images",
    "fit_metadata",
    "from_uint8",
    "read_image",
    "read_picture",
    "to_uint8",
    "write_image",
    "write_picture",
]
