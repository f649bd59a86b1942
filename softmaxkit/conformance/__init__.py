"""The conformance suite as data, and a way to run it on any backend, including one of your own.

``pytest --pyargs softmaxkit.conformance`` runs it on every library installed, or on those that the
environment variable SOFTMAXKIT_BACKENDS names; with SOFTMAXKIT_CONFORMANCE=dealt, each case runs on
only one of them, in float32 and untransformed. From Python, one case at a time:

>>> from softmaxkit import conformance
>>> results = conformance.run(conformance.load("numpy"))
>>> all(result.passed for result in results)
True

For a backend of your own, make an `Adapter`: either your library's arrays go through softmaxkit
(an array-API library), or ``functions=`` has operations of the same names and arguments. Those it
lacks are skipped, with a reason. ``examples/own_backend.py`` is one.
"""

from softmaxkit.conformance.adapter import DERIVATIVES, FEATURES, Adapter, Transform
from softmaxkit.conformance.adapters import load, names
from softmaxkit.conformance.case import OPERATIONS, Case
from softmaxkit.conformance.cases import cases
from softmaxkit.conformance.running import Result, groups, run, run_case, run_group, settings

__all__ = [
    "DERIVATIVES",
    "FEATURES",
    "OPERATIONS",
    "Adapter",
    "Case",
    "Result",
    "Transform",
    "cases",
    "groups",
    "load",
    "names",
    "run",
    "run_case",
    "run_group",
    "settings",
]
