"""Whole calls, drawn at random by Hypothesis: an operation, its arrays, its options, its size."""

from contextlib import contextmanager
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from softmaxkit._operations import BY_CLASS
from softmaxkit.conformance.case import ACTIVATIONS, BINARY_LOSSES, CLASS_LOSSES, LABELS

sizes = run_path(str(Path(__file__).with_name("size_classes.py")))

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
# Few, as JAX compiles for each.
SHAPES = [(), (0,), (1,), (5,), (0, 3), (3, 0), (2, 0, 3), (4, 1), (4, 3), (2, 3, 4), (2, 1, 3, 2),
          (2, 3, 1, 2, 2)]  # fmt: skip
# Rows of many classes, and many rows; XLA has its own ways for odd numbers of them.
LONG = [(2, 70), (300, 2), (257, 3), (3, 170)]
LOGITS = {
    "ordinary": st.floats(-8, 8, width=16),
    "ties": st.sampled_from([-1.0, 0.0, 1.0]),
    "-inf": st.sampled_from([-np.inf, -1.5, 0.0, 1.0, 17.0]),
    "special": st.sampled_from([-np.inf, np.inf, np.nan, -1.5, 0.0, 1.0, 17.0]),
    "saturated": st.sampled_from([-1000.0, -200.0, -40.0, -3.0, 0.0, 0.5, 17.0, 88.0, 1000.0]),
    "offset": st.sampled_from([10020.25, 10000.0, 10001.5, 9999.0]),
    "large": st.sampled_from([-6e4, 0.0, 6e4]),
    "huge": st.sampled_from([-1e30, 0.0, 1.0, 1e30]),
}
# Exact in every dtype, so that the reference sees the same numbers whatever they are cast to.
WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 3.0])
SHARES = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 1.25])
TEMPERATURES = st.sampled_from([0.25, 0.5, 1.0, 3.0, 10.0])
SMOOTHING = st.sampled_from([0.0, 0.001, 0.1, 1.0, np.array(0.25)])
GAMMAS = st.sampled_from([0, 0.5, 1.0, 2.0, 5.0, np.array(1.5)])


def size_classes(library):
    """Return the size classes of a library, None for that of small arrays."""
    return [None, *sizes["SIZE_CLASSES"].get(library, ())]


@contextmanager
def in_size_class(size_class, library, block=1):
    """Put a library's arrays in a size class, in blocks of so many numbers where it has any."""
    with pytest.MonkeyPatch.context() as patch:
        sizes["put_in"](size_class, library, block, patch)
        yield


def arrays(shape, elements, dtype=np.float64):
    fill = st.nothing() if np.prod(shape) < 100 else None
    return hnp.arrays(dtype, shape, elements=elements, fill=fill)


@st.composite
def broadcasting(draw, shape, elements, dtype=np.float64):
    """Draw an array that broadcasts to the shape."""
    ones = [n if draw(st.booleans()) else 1 for n in shape]
    return draw(arrays(tuple(ones[draw(st.integers(0, len(ones))) :]), elements, dtype))


@st.composite
def integer_arrays(draw, shape, low, high):
    """Draw integers of any width, from low to high as far as that goes, and now and then beyond."""
    dtype = draw(st.sampled_from(INTEGERS))
    info = np.iinfo(dtype)
    elements = st.integers(max(low, info.min), max(min(high, info.max), 0))
    if draw(st.integers(0, 9)) == 0:
        elements |= st.sampled_from([100, info.max, info.min])
    return draw(arrays(shape, elements, dtype))


@st.composite
def floats(draw, dtype, shapes):
    """Draw logits, and whether they are so large that a temperature must not vary over classes."""
    kind = draw(st.sampled_from([kind for kind in LOGITS if (kind, dtype) != ("huge", "float16")]))
    x = draw(arrays(draw(st.sampled_from(shapes)), LOGITS[kind]))
    return x, kind in ("saturated", "offset", "large", "huge")


@st.composite
def temperatures(draw, shape, axes, large):
    """Draw a number or an array; z/T, unlike (z - max)/T, loses the digits of large logits."""
    t = draw(TEMPERATURES | broadcasting(shape, TEMPERATURES))
    lengths = (1,) * (len(shape) - np.ndim(t)) + np.shape(t)
    return 3.0 if large and any(lengths[one] > 1 for one in axes) else t


def some(always, **optional):
    return st.fixed_dictionaries(always, optional=optional)


@st.composite
def activation_calls(draw, name, dtype):
    if draw(st.integers(0, 5)):
        x, large = draw(floats(dtype, SHAPES + LONG))
    else:
        integers = integer_arrays(draw(st.sampled_from(SHAPES)), -(2**24), 2**24)
        x, large = draw(integers), True
        assume(abs(x.astype(float)).max(initial=0) <= 2**24)  # beyond, float32 rounds
        x = x > 0 if draw(st.booleans()) else x
    some_axes = st.sets(st.integers(0, x.ndim - 1), min_size=1) if x.ndim else st.just([0])
    axes = [one - draw(st.sampled_from([0, x.ndim])) for one in draw(some_axes)]
    axis = draw(st.sampled_from([tuple(axes), axes[0], None]))
    optional = {"where": broadcasting(x.shape, st.booleans(), bool)}
    if name == "logsumexp":
        optional["keepdims"] = st.booleans()
    elif x.ndim:
        over = range(x.ndim) if axis is None else axes
        optional["temperature"] = temperatures(x.shape, over, large)
    return [x], draw(some({"axis": st.just(axis)}, **optional))


def reductions(rows, **optional):
    """Return a strategy for the options that all losses have."""
    common = {"sample_weight": broadcasting(rows, WEIGHTS), "label_smoothing": SMOOTHING} | optional
    names = st.sampled_from(["weight", "count", "batch"])
    numbers = st.sampled_from([3.0, 7, np.array(0.5), np.array(4), np.array(0.0)])
    summed = some({"reduction": st.sampled_from(["none", "sum"])}, **common)
    return summed | some({"reduction": st.just("mean")}, normalizer=names | numbers, **common)


@st.composite
def class_loss_calls(draw, name, dtype):
    x, large = draw(floats(dtype, SHAPES[1:] + LONG))
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    classes, rows = x.shape[axis], tuple(np.delete(x.shape, axis).tolist())
    optional = {
        "where": broadcasting(x.shape, st.sampled_from([False, True, True]), bool),
        "temperature": temperatures(x.shape, [axis], large),
        "ignore_index": st.sampled_from([None, -100, -1, 0, 1, 2**40]),
    }
    vector = arrays((classes,), WEIGHTS)
    optional[BY_CLASS[name]] = vector | WEIGHTS if name == "focal_loss" else vector
    optional |= {
        "cross_entropy": {"z_loss": st.sampled_from([0.0, 0.125, 2.0, np.array(0.5)])},
        "focal_loss": {"gamma": GAMMAS},
        "poly_loss_cross_entropy": {"epsilon": st.sampled_from([0, 0.5, 2.0, np.array(1.5)])},
    }[name]
    options = {"axis": axis} | draw(reductions(rows, **optional))
    if draw(st.booleans()):
        options.pop("ignore_index", None)  # refused beside probabilities
        return [x, draw(arrays(x.shape, SHARES))], options
    labels = draw(integer_arrays(rows, 0, classes - 1))
    ignored = options.get("ignore_index", -100)
    if ignored is not None and np.can_cast(np.min_scalar_type(ignored), labels.dtype):
        labels = np.where(
            draw(arrays(rows, st.booleans(), bool)), labels, labels.dtype.type(ignored)
        )
    return [x, labels], options


@st.composite
def binary_calls(draw, name, dtype):
    x, _ = draw(floats(dtype, SHAPES))
    t = draw(arrays(x.shape, st.sampled_from([0.0, 0.125, 0.5, 1.0])))
    hard = st.sampled_from([*INTEGERS, "bool"]).map((t == 1.0).astype)
    optional = {"pos_weight": WEIGHTS | broadcasting(x.shape, WEIGHTS)}
    if name == "sigmoid_focal_loss":
        alphas = st.sampled_from([None, 0.0, 0.25, 1.0, np.array(0.5)])
        optional = {"gamma": GAMMAS, "alpha": alphas}
    return [x, draw(hard | st.just(t))], draw(reductions(x.shape, **optional))


@st.composite
def label_calls(draw, name, dtype):
    shape, classes = draw(st.sampled_from(SHAPES)), draw(st.sampled_from([1, 3, 300]))
    if name == "smooth_labels" and shape and draw(st.booleans()):
        axis = draw(st.integers(-len(shape), len(shape) - 1))
        targets, always = draw(arrays(shape, SHARES)), {}
    else:
        axis = draw(st.integers(-len(shape) - 1, len(shape)))
        targets, always = draw(integer_arrays(shape, 0, classes - 1)), {"num_classes": classes}
        place = axis % (len(shape) + 1)
        shape = (*shape[:place], classes, *shape[place:])
    options = {}
    if name == "smooth_labels":
        always["smoothing"] = draw(SMOOTHING)
        options = draw(some({}, where=broadcasting(shape, st.booleans(), bool)))
    return [targets], {"axis": axis, **always, **options}


FAMILIES = {
    "activations": (ACTIVATIONS, activation_calls),
    "class losses": (CLASS_LOSSES, class_loss_calls),
    "binary losses": (BINARY_LOSSES, binary_calls),
    "labels": (LABELS, label_calls),
}


@st.composite
def calls(draw, dtypes, family):
    """Draw an operation, the dtype of its floats, its arrays and its options, as NumPy has them."""
    names, of_family = FAMILIES[family]
    name, dtype = draw(st.sampled_from(names)), draw(st.sampled_from(dtypes))
    given_arrays, options = draw(of_family(name, dtype))
    if name != "smooth_labels" and draw(st.integers(0, 3)) == 0:
        options["dtype"] = draw(st.sampled_from(dtypes))
    return name, dtype, given_arrays, options
