"""``python -m invertible_rescaling``: the command ``invertible-rescaling``."""

import sys

from invertible_rescaling.cli import main

if __name__ == "__main__":
    sys.exit(main())
