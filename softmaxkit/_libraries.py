"""Array libraries by name: which are installed, and how to import one without its messages.

Only the command line and the conformance suite use this: the operations never import a framework
(`softmaxkit._dispatch`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

__all__ = ["import_quietly", "is_installed"]


def is_installed(module: str) -> bool:
    """Return whether `module` can be found, without importing it."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # even the package that contains it is missing
        return False
    # Without an origin it is some folder of that name on the path: a namespace package.
    return spec is not None and spec.origin is not None


def import_quietly(module: str) -> ModuleType:
    """Import `module` without showing TensorFlow's notes on this machine's CPU and GPU."""
    if module != "tensorflow" or module in sys.modules:
        return import_module(module)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _no_stderr():
        return import_module(module)


@contextmanager
def _no_stderr() -> Iterator[None]:
    # The file descriptor, not sys.stderr: TensorFlow 2.21 writes its oneDNN note from C++ before
    # its logging starts, so TF_CPP_MIN_LOG_LEVEL does not reach it.
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
