"""Where the optional data lies: in a folder beside the checkout."""

from pathlib import Path

SHARED = Path(__file__).parents[1].parent / "shared"
