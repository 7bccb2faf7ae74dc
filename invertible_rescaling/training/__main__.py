"""``python -m invertible_rescaling.training``, for ``torchrun`` and ``accelerate launch``, too."""

import sys

from invertible_rescaling.training.launch import launch

if __name__ == "__main__":
    sys.exit(launch("python -m invertible_rescaling.training"))
