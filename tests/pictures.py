"""Pictures for tests that need files to train or measure on."""

import torch

from invertible_rescaling.functional import bicubic_resize
from invertible_rescaling.images import write_image


def pictures(folder, count, side=40, seed=0):
    """Smooth random pictures, so that bicubic and Haar have something to agree on."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    for index in range(count):
        coarse = torch.rand(1, 3, 5, 5, generator=generator)
        write_image(folder / f"{index:04d}.png", bicubic_resize(coarse, (side, side))[0])
    return folder
