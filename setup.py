"""What pyproject.toml cannot say: the version, and a README whose links work on PyPI too."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IN_PACKAGE = (ROOT / "softmaxkit" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.findall(r'^__version__ = "(.+)"$', IN_PACKAGE, re.MULTILINE)[0]


def absolute(link: re.Match[str]) -> str:
    """Aim a link to a file of the repository at that file as it was in this version."""
    start, target = link.groups()
    if not (ROOT / target.partition("#")[0]).exists():
        return link[0]
    kind = "raw" if target.endswith((".png", ".svg", ".gif")) else "blob"
    return f"{start}{PROJECT['urls']['Source']}/{kind}/v{VERSION}/{target}"


README = (ROOT / "README.md").read_text(encoding="utf-8")

setup(
    version=VERSION,
    long_description=re.sub(r'(\]\(|src="|href=")(?!#)([^)"\s]+)', absolute, README),
    long_description_content_type="text/markdown",
)
