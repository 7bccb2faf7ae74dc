"""The moment this package began to be imported, before all that takes long: a time limit counts from it."""

import time

__all__: list[str] = []  # for the training program alone

STARTED = time.monotonic()
