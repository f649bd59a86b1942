"""How a façade forwards the names that it does not define to the module that it replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any


def rest_of(
    module: str, own: Iterable[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a façade of `module` that defines `own`.

    `module` is imported only when a name is looked up in it.
    """

    def attribute(name: str) -> Any:
        if name.startswith("__"):  # Python's own names say nothing about what a module offers
            raise AttributeError(name)
        return getattr(import_module(module), name)

    def names() -> list[str]:
        return sorted({*own, *dir(import_module(module))})

    return attribute, names
