"""What the build makes before it reads pages: the reference, the zoo, pictures and figures."""

from pathlib import Path

import front
import how
import reference
import trial
import zoo
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)


def make(app: Sphinx) -> None:
    """Write everything below ``_build/made``, and the pages of the reference."""
    made = Path(app.srcdir, "_build", "made")
    (made / "static").mkdir(parents=True, exist_ok=True)
    reference.write(Path(app.srcdir, "reference"))
    for part in (front, how, zoo, trial):
        log.info("making %s", part.__name__)
        part.write(made)


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("builder-inited", make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
