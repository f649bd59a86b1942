"""A page for each public call, made of its docstring: `docs/operations/`, which git ignores."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pictures
from sphinx.application import Sphinx

import softmaxkit
from softmaxkit import _operations, calibration

# Page titles of the modules, and what stands above their lists.
MODULES = (
    (softmaxkit, "Losses, activations, labels, gradients"),
    (calibration, "Honest probabilities"),
)
FACADE_MODULES = {"jax": "softmaxkit.jax", "keras": "softmaxkit.keras",
                  "tensorflow": "softmaxkit.tensorflow", "torch": "softmaxkit.torch"}  # fmt: skip
FACADES = {one.name: one.facades for one in _operations.OPERATIONS}


def _page(module: ModuleType, name: str) -> str:
    directive = "autoclass" if inspect.isclass(getattr(module, name)) else "autofunction"
    parts = [
        f"# {name}",
        f"```{{eval-rst}}\n.. currentmodule:: {module.__name__}\n.. {directive}:: {name}\n```",
    ]
    if name in pictures.PICTURES or name in pictures.DRAWN:
        parts += ["## Picture", pictures.markdown(name)]
    if FACADES.get(name):
        parts += ["## Under other libraries' names", _facades(FACADES[name])]
    return "\n\n".join(parts) + "\n"


def _facades(names: tuple[str, ...]) -> str:
    by_library: dict[str, list[str]] = {}
    for one in names:
        library, _, name = one.partition(".")
        by_library.setdefault(FACADE_MODULES[library], []).append(f"`{name}`")
    return "\n".join(f"- `{module}`: {', '.join(found)}" for module, found in by_library.items())


def _summary(module: ModuleType, name: str) -> str:
    """Return the first line of a docstring, with its formulas as Markdown has them."""
    first = inspect.getdoc(getattr(module, name)).partition("\n")[0].rstrip(".:")
    return re.sub(r":math:`([^`]+)`", r"{math}`\1`", first)


def _index() -> str:
    parts = ["# Operations", "Each page is the docstring of the call, as `help()` prints it."]
    for module, title in MODULES:
        names = sorted(module.__all__, key=str.lower)
        parts += [f"## {title}", f"In `{module.__name__}`:"]
        lines = [f"- [`{name}`]({name}.md): {_summary(module, name)}" for name in names]
        pages = "\n".join(names)
        parts += ["\n".join(lines), f"```{{toctree}}\n:hidden:\n\n{pages}\n```"]
    return "\n\n".join(parts) + "\n"


def write(app: Sphinx) -> None:
    """Write the pages and their pictures, and take away those of calls that are gone."""
    folder = Path(app.srcdir, "operations")
    folder.mkdir(exist_ok=True)
    pictures.draw(folder / "pictures")
    pages = {"index": _index()}
    pages |= {name: _page(module, name) for module, _ in MODULES for name in module.__all__}
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
