"""Configuration of Sphinx: `nox -s docs` assembles the source of the site, with this file, and builds it."""

from __future__ import annotations

import inbackward

project = "inbackward"
author = "The inbackward authors"
project_copyright = "The inbackward authors, BSD-3-Clause"
release = version = inbackward.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]

# Pages
myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["_extra"]

# Docstrings: single backticks are code there, as in Markdown.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
nitpicky = True
# Types of other projects, whose documentation a build without a network can't link to, and aliases and types without a
# page of their own.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|collections|os|nn|dist|Any|Optimizer|Tensor|Iterable|Callable)\b.*"),
    ("py:class", r"ParamsT|DistributedDataParallel|FullyShardedDataParallel|CommHook|Group|State|ComputeLoss"),
    ("py:class", r"inbackward_conformance\.outcome\.(Outcome|Difference)"),
    ("py:exc", "UnusableImplementation"),
]

# Code
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = "$ "
highlight_language = "text"

# The site
html_theme = "pydata_sphinx_theme"
html_title = "inbackward"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "inbackward"},
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": [], "matrix": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars: dict[str, list[str]] = {"index": [], "matrix": []}
