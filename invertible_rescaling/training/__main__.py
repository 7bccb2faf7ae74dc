"""``python -m invertible_rescaling.training``, for ``torchrun`` and ``accelerate launch``, too."""

import sys

from invertible_rescaling.training.program import main
from invertible_rescaling.training.time_budget import process_started

if __name__ == "__main__":
    sys.exit(main(started=process_started(), prog="python -m invertible_rescaling.training"))
