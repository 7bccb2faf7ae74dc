"""When the program began: imported before all that takes long to import, from which a time limit counts."""

import time

STARTED = time.monotonic()
