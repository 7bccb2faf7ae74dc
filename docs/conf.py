"""How Sphinx builds the documentation: ``python -m sphinx -W docs docs/_build/html``."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tutorials are small: threads would wait for one another
HERE = Path(__file__).parent
Path(HERE, "_build", "made", "static").mkdir(parents=True, exist_ok=True)
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent), str(HERE.parent / "tools")]

project = "invertible_rescaling"
author = "The invertible_rescaling authors"
copyright = f"2026, {author}"  # noqa: A001  # Sphinx's name for it
version = release = version_of("invertible_rescaling")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "made_pages",
    "mathml",
]
exclude_patterns = ["_build", "measured/*", "**/GALLERY_HEADER.rst"]
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_use_ivar = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Inventories of other projects lie in the network, which a build does without unless it is told otherwise.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://pytorch.org/docs/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
    }
    if os.environ.get("DOCS_INTERSPHINX")
    else {}
)

TUTORIALS = [
    "first_rescale.py",
    "train_on_your_photographs.py",
    "editing_lr.py",
    "own_subnetwork.py",
    "layer_in_your_model.py",
    "memory_saving_training.py",
    "huge_images.py",
    "exporting.py",
    "normalising_flow.py",
    "original_weights.py",
]
sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples" / "tutorials"),
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\.py$",
    "within_subsection_order": ExplicitOrder(TUTORIALS),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "plot_gallery": "True",
    "remove_config_comments": True,
    "write_computation_times": False,
}

html_theme = "furo"
html_favicon = "_static/favicon.svg"
html_title = "invertible_rescaling"
html_static_path = ["_static", "_build/made/static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#7fb4e6", "color-brand-content": "#7fb4e6"},
}
suppress_warnings = ["config.cache"]  # an order of tutorials cannot be pickled
