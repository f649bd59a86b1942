"""What a conformance case is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softmaxkit._operations import names

ACTIVATIONS = names("activation")
CLASS_LOSSES = names("class loss")
BINARY_LOSSES = names("binary loss")
LINEAR_LOSSES = names("linear loss")
LOSSES = CLASS_LOSSES + BINARY_LOSSES
LABELS = names("labels")
OPERATIONS = ACTIVATIONS + LOSSES + LINEAR_LOSSES + LABELS


@dataclass(frozen=True)
class Case:
    """One call: ``operation(*arrays, **options)``.

    Arrays, including those among the options, are float64, integer or boolean NumPy arrays; running
    a case rounds the floats to the dtype under test, and passes the same rounded numbers to the
    backend and to the reference.

    `saturated` cases have rows in which one class dominates; their limit in ULP is wider. `raises`
    is the refusal. IndexError, which is for labels, is expected where labels can be read (or the
    exception that a `Transform` names); elsewhere the reference's NaN is. `by` names options whose
    gradient is compared, too. `cotangent` is that of an activation's value; by default one is
    drawn. A rule has the `section` of ``docs/semantics.md`` in which it stands, may be shown there
    as `text` and in `page_dtype`, and has a `variant` if an operation has several cases of it.
    """

    name: str
    operation: str
    arrays: tuple[np.ndarray, ...]
    options: dict[str, Any] = field(default_factory=dict)
    saturated: bool = False
    raises: type[Exception] | None = None
    by: tuple[str, ...] = ()
    cotangent: np.ndarray | None = None
    section: str = ""
    text: str = ""
    page_dtype: str = "float32"
    variant: str = ""

    @property
    def is_large(self) -> bool:
        """Whether it is one of the rules of 20,000 rows of 100 classes."""
        return self.arrays[0].size > 1_000_000

    @property
    def not_finite(self) -> bool:
        """Whether there is NaN or an infinity in an array."""
        given = [*self.arrays, *self.options.values()]
        floats = [one for one in given if isinstance(one, np.ndarray) and one.dtype.kind == "f"]
        return not all(np.isfinite(one).all() for one in floats)

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"{self.operation}-{self.name}", self.variant)))
