"""``python -m invertible_rescaling.cli``."""

import sys

from invertible_rescaling.cli import main

if __name__ == "__main__":
    sys.exit(main())
