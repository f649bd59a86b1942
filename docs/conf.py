"""How Sphinx builds the site; `python -m nox -s docs` does that, and checks it."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import softmaxkit
from softmaxkit import calibration

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "extensions"))

project = "softmaxkit"
author = copyright = "The softmaxkit developers"
release = version = softmaxkit.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "mathml",
    "operation_pages",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"softmaxkit {release}"
html_static_path = ["static"]
html_css_files = ["softmaxkit.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False

# Names in single backticks: a link where softmaxkit has a page of that name, code elsewhere.
default_role = "py:obj"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_param = False  # types are prose: "floating array", nothing to link
napoleon_use_rtype = False
nitpick_ignore_regex = [("py:(exc|class)", r".*Error|Warning|NamedTuple|tuple")]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 60
nb_merge_streams = True

# Links to files of the repository, by the page that shows them.
PAGES = {
    "../examples/README.md": "/examples.md",
    "../benchmarks/README.md": "/accuracy_and_speed.md",
    "../CONTRIBUTING.md": "/adding_a_backend.md",
}
PUBLIC = {*softmaxkit.__all__, *calibration.__all__}


def _no_link(app: Sphinx, env: Any, node: Any, content: nodes.Node) -> nodes.Node | None:
    """Leave arguments and other libraries' names in docstrings as they are."""
    target = node["reftarget"].removeprefix("softmaxkit.").removeprefix("calibration.")
    return content if node.get("reftype") == "obj" and target not in PUBLIC else None


def _page_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Write links to files of the repository, and to anchors in headings, as MyST has them."""
    for file, shown in PAGES.items():
        source[0] = source[0].replace(f"]({file}", f"]({shown}")
    source[0] = re.sub(r'^(#+ )<a id="([^"]+)"></a>', r"(\2)=\n\1", source[0], flags=re.MULTILINE)
    source[0] = source[0].replace("](semantics_evidence.md#", "](#")


def setup(app: Sphinx) -> None:
    """Connect both."""
    app.connect("missing-reference", _no_link)
    app.connect("source-read", _page_links)
