"""Cells, their ratios and geometric means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, log, prod
from statistics import median, quantiles

from softmaxkit.bench.libraries import DTYPES
from softmaxkit.bench.operations import EVERY_OPERATION, Shape, is_small

OURS, COPY = "softmaxkit", "copy"

# From this spread on a time is not to be relied on. Of 9 rounds whose quartiles are 20 % apart the
# median has a standard error of 6 % (1.25 σ / √9, where σ is the distance / 1.35), and a ratio of
# two 9 %: as much as the goals of benchmarks/goals.py are about.
LARGE_SPREAD = 0.2


@dataclass(frozen=True)
class Cell:
    """One place in the tables."""

    library: str
    dtype: str
    setting: str
    operation: str
    shape: Shape

    @property
    def nbytes(self) -> int:
        """Size of the logits."""
        linear = EVERY_OPERATION[self.operation].linear
        shape = (self.shape[0], self.shape[2]) if linear else self.shape
        return prod(shape) * DTYPES[self.dtype]

    @property
    def nbytes_not_counted(self) -> int:
        """Size of the gradients that a linear loss returns; of others the result counts."""
        if not EVERY_OPERATION[self.operation].linear:
            return 0
        rows, width, classes = self.shape
        return (rows + classes) * width * DTYPES[self.dtype]

    @property
    def place(self) -> tuple[str, str, str]:
        """Library, dtype and setting: what has a table of its own."""
        return self.library, self.dtype, self.setting

    def __str__(self) -> str:
        return " ".join((*self.place, self.operation, shown_shape(self.shape)))


def shown_shape(shape: Shape) -> str:
    """Write a shape as the command takes it."""
    return "x".join(map(str, shape))


@dataclass
class Result:
    """What was measured in a cell, by contestant: "softmaxkit", "copy" and the rivals.

    Parameters
    ----------
    seconds : mapping
        Of a call, in each round.
    loops : mapping
        Calls in a round.
    memory : mapping
        Bytes that a call needs at most beyond what was there, less `Cell.nbytes_not_counted`; not
        there if not measured.
    failed, memory_failed : mapping
        Why there are no seconds, no memory.
    """

    cell: Cell
    seconds: dict[str, list[float]] = field(default_factory=dict)
    loops: dict[str, int] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    memory_failed: dict[str, str] = field(default_factory=dict)

    @property
    def rivals(self) -> list[str]:
        """Those that were measured."""
        return [name for name in self.seconds if name not in (OURS, COPY)]

    def time(self, contestant: str) -> float | None:
        """Median of the rounds."""
        return median(self.seconds[contestant]) if contestant in self.seconds else None

    def ratio(self, over: str, under: str) -> float | None:
        """Median time of one contestant over that of another; None if one is missing."""
        upper, lower = self.time(over), self.time(under)
        return None if upper is None or lower is None else upper / lower

    def spread(self, contestant: str) -> float | None:
        """Distance of the quartiles of the rounds over their median; None of a single round."""
        rounds = self.seconds.get(contestant, [])
        if len(rounds) < 2:
            return None
        low, middle, high = quantiles(rounds, n=4, method="inclusive")
        return (high - low) / middle

    def is_unsteady(self, *among: str) -> bool:
        """Return whether the spread of any of these contestants is large."""
        return any((self.spread(one) or 0.0) >= LARGE_SPREAD for one in among)

    def memory_ratio(self, contestant: str) -> float | None:
        """Peak extra memory over the size of the array."""
        return self.memory[contestant] / self.cell.nbytes if contestant in self.memory else None


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the n-th root of the product of n ratios."""
    return exp(sum(map(log, ratios)) / len(ratios))


@dataclass(frozen=True)
class Group:
    """Rival time over ours in every cell of a library, dtype, setting and family of operations."""

    library: str
    dtype: str
    setting: str
    family: str
    rival: str
    ratios: dict[Cell, float]

    @property
    def mean(self) -> float:
        """Geometric mean of all cells."""
        return geometric_mean(list(self.ratios.values()))

    def worst(self, small: bool) -> tuple[Cell, float] | None:
        """Return the cell with the lowest ratio among the small or the large arrays."""
        among = [
            (cell, ratio) for cell, ratio in self.ratios.items() if is_small(cell.shape) is small
        ]
        return min(among, key=lambda one: one[1]) if among else None


def groups(results: Iterable[Result]) -> list[Group]:
    """Collect the ratios rival / ours."""
    found: dict[tuple[str, str, str, str, str], dict[Cell, float]] = {}
    for result in results:
        cell = result.cell
        for rival in result.rivals:
            ratio = result.ratio(rival, OURS)
            if ratio is not None:
                family = EVERY_OPERATION[cell.operation].family
                key = (*cell.place, family, rival)
                found.setdefault(key, {})[cell] = ratio
    return [Group(*key, ratios) for key, ratios in found.items()]
