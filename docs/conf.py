"""How Sphinx builds these pages: `sphinx-build -W docs build/docs`."""

from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

project = "cnnvis_fast"
author = "The cnnvis_fast developers"
version = release = installed("cnnvis_fast")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Some pages link to files of the repository, which are not part of the site;
# tests/project/test_docs.py checks those links.
suppress_warnings = ["myst.xref_missing"]

html_theme = "furo"
html_title = f"cnnvis_fast {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"


def list_other_pages(app: Any, name: str, source: list[str]) -> None:
    """Lists, in place of OTHERS in the index, the pages that it does not name."""
    if name == "index":
        named = {"index", *source[0].split()}
        others = sorted(path.stem for path in Path(app.srcdir).glob("*.md") if path.stem not in named)
        source[0] = source[0].replace("OTHERS\n", "".join(f"{other}\n" for other in others))


def escape_bars(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Keeps |k| in a docstring from being read as a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", list_other_pages)
    app.connect("autodoc-process-docstring", escape_bars)
