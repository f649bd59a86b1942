"""JAX: classes in shards, one for each of eight devices."""

from pathlib import Path

TESTS = Path(__file__).parent
HEAD = """
import re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import shards, softmaxkit
from softmaxkit.jax import vocab_parallel_cross_entropy, vocab_parallel_linear_cross_entropy

jax.config.update("jax_enable_x64", True)
mesh = jax.make_mesh((8,), ("classes",), axis_types=(AxisType.Auto,))

def given(case, dtype):
    # Targets, options, the arrays among them, and how these are sharded.
    targets, options = shards.beside(case, dtype)
    wide = "float32" if dtype == "bfloat16" else dtype
    arrays = {
        name: jnp.asarray(one, wide if one.dtype.kind == "f" else bool)
        for name, one in options.items() if isinstance(one, np.ndarray)
    }
    options = {name: one for name, one in options.items() if name not in arrays}
    soft = targets.dtype.kind == "f"
    targets = jnp.asarray(targets, wide) if soft else jnp.asarray(targets)
    by_class = lambda one: P(*(None,) * (one.ndim - 1), "classes")
    specs = {name: by_class(one) if name == "where" else P() for name, one in arrays.items()}
    return targets, options, arrays, (by_class(targets) if soft else P(), specs)

def compiled(function, *args):
    return jax.jit(function).lower(*args).compile()

def sent(program):
    # How many numbers each collective of a compiled program makes, by its name.
    text = program.as_text()
    names = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
    found = re.findall(rf"= \\w+\\[([\\d,]*)\\]\\S* ({names})\\(", text)
    return [(name, int(np.prod([int(n) for n in shape.split(",") if n]))) for shape, name in found]
"""

EQUAL = """
SOME = "smoothing, class weights", "temperatures", "probabilities"

def losses(dtype):
    def of(case):
        targets, options, arrays, specs = given(case, dtype)

        axis = 0 if dtype == "float64" else -1  # of the classes

        def turned(value):
            return jnp.moveaxis(value, 1, axis) if value.ndim == 2 else value

        def inner(x, targets, arrays):
            arrays = shards.of_logits(arrays)
            if "where" in arrays:
                arrays["where"] = jnp.broadcast_to(arrays["where"], x.shape)
            arrays = {name: turned(one) for name, one in arrays.items()}
            return vocab_parallel_cross_entropy(
                turned(x), turned(targets), axis_name="classes", axis=axis, **arrays, **options
            )

        specs = P(None, "classes"), *specs
        loss = jax.shard_map(inner, mesh=mesh, in_specs=specs, out_specs=P())
        return lambda x: ((value := loss(x, targets, arrays)).sum(), value)

    def of_product(case):
        targets, options, arrays, specs = given(case, dtype)

        def inner(hidden, matrix, bias, targets, arrays):
            return vocab_parallel_linear_cross_entropy(
                hidden, matrix, targets, axis_name="classes", bias=bias, chunk_size=3,
                **arrays, **options,
            )

        specs = P(), P("classes"), P("classes"), *specs
        loss = jax.shard_map(inner, mesh=mesh, in_specs=specs, out_specs=P())
        return lambda *each: ((value := loss(*each, targets, arrays)).sum(), value)

    # To compile takes most of the time.
    some, products = (shards.CASES, shards.LINEAR) if dtype == "float64" else (SOME, SOME)

    def every(x, hidden, matrix, bias):
        of_logits = {case: jax.value_and_grad(of(case), has_aux=True)(x) for case in some}
        of_products = {
            case: jax.value_and_grad(of_product(case), (0, 1, 2), has_aux=True)(
                hidden, matrix, bias
            )
            for case in products
        }
        return of_logits, of_products

    return every

for dtype in ("float32", "float64", "bfloat16"):
    operands = shards.X, shards.HIDDEN, shards.MATRIX, shards.BIAS
    found = jax.jit(losses(dtype))(*(jnp.asarray(one, dtype) for one in operands))
    for case, ((_, value), gradient) in found[0].items():
        assert value.dtype == gradient.dtype == dtype
        shards.check(case, dtype, value, gradient)
    for case, ((_, value), gradients) in found[1].items():
        shards.check_linear(case, dtype, value, gradients)
    print(dtype)
"""

PROGRAMS = """
x, y = jnp.asarray(shards.X) / 5, jnp.asarray(np.where(shards.LABELS < 0, 1, shards.LABELS))
weight, smoothing = jnp.asarray(shards.WEIGHT), jnp.asarray(0.1)

def sharded(x, weight, smoothing):
    return vocab_parallel_cross_entropy(
        x, y, axis_name="classes", weight=weight, label_smoothing=smoothing, z_loss=0.1
    )

def whole(x, weight, smoothing):
    return softmaxkit.cross_entropy(x, y, weight=weight, label_smoothing=smoothing, z_loss=0.1)

specs = P(None, "classes"), P(), P()
split = jax.shard_map(sharded, mesh=mesh, in_specs=specs, out_specs=P())
near = lambda got, want: jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got, want
)
call = x, weight, smoothing
every = jax.jit(jax.grad(split, (0, 1, 2)))
near(every(*call), jax.grad(whole, (0, 1, 2))(*call))
print("every argument")
# The gradient within shard_map, and weights that are those of the shard.
inside = jax.shard_map(
    jax.grad(sharded), mesh=mesh, in_specs=(P(None, "classes"), P("classes"), P()),
    out_specs=P(None, "classes"),
)
near(jax.jit(inside)(*call), jax.grad(whole)(*call))
print("inside")
moves = jax.tree.map(lambda one: jnp.cos(jnp.arange(one.size).reshape(one.shape)), call)
along = lambda loss: jax.jit(lambda: jax.jvp(jax.grad(loss, (0, 1)), call, moves)[1])()
near(along(split), along(whole))
again = lambda loss: jax.jit(jax.grad(lambda x: (jax.grad(loss)(x, *call[1:]) * moves[0]).sum()))
near(again(split)(x), again(whole)(x))
print("second derivatives")
labels = jnp.array([0, -1, 16, 3, 4, 5, 15])
bad = jax.jit(jax.shard_map(
    lambda x, y: vocab_parallel_cross_entropy(x, y, axis_name="classes", reduction="none"),
    mesh=mesh, in_specs=(P(None, "classes"), P()), out_specs=P(),
))
print(jnp.isnan(bad(x, labels)).tolist())
print(jnp.isnan(bad(x.at[5, 9].set(jnp.nan), labels)).tolist())
# 13 classes on 8 devices: padded to 16, whose last three are masked.
padded, present = jnp.full((7, 16), jnp.nan).at[:, :13].set(x[:, :13]), jnp.arange(16) < 13
masked = jax.shard_map(
    lambda x, present: vocab_parallel_cross_entropy(
        x, y % 13, axis_name="classes", where=present, label_smoothing=0.1
    ),
    mesh=mesh, in_specs=(P(None, "classes"), P("classes")), out_specs=P(),
)
got = jax.jit(jax.grad(masked))(padded, present)
want = jax.grad(lambda x: softmaxkit.cross_entropy(x, y % 13, label_smoothing=0.1))(x[:, :13])
near((got[:, :13], got[:, 13:]), (want, jnp.zeros((7, 3))))
print("padded")
# What a loss and its gradient send: some numbers for each of 16 rows, whatever the classes.
for classes in (256, 2048):
    z, labels = jnp.zeros((16, classes)), jnp.arange(16)
    loss = jax.shard_map(
        lambda z, labels: vocab_parallel_cross_entropy(z, labels, axis_name="classes"),
        mesh=mesh, in_specs=(P(None, "classes"), P()), out_specs=P(),
    )
    print(sent(compiled(jax.value_and_grad(loss), z, labels)))
"""

# Sharded arrays under jit: the compiler places the collectives, and gathers no logits.
JIT = """
mesh_of = {kind: jax.make_mesh((2, 4), ("rows", "classes"), axis_types=(kind,) * 2)
           for kind in (AxisType.Auto, AxisType.Explicit)}
random = np.random.default_rng(0)
ROWS, CLASSES = 8, 1024
arrays = {
    "x": random.normal(0, 3, (ROWS, CLASSES)), "q": random.dirichlet(np.ones(CLASSES), ROWS),
    "hidden": random.normal(size=(ROWS, 5)), "matrix": random.normal(size=(CLASSES, 5)),
    "labels": random.integers(0, CLASSES, ROWS), "weight": random.random(CLASSES),
}
CALLS = {
    "softmax": lambda a: (softmaxkit.softmax(a["x"]) ** 2).sum(),
    "log_softmax": lambda a: (softmaxkit.log_softmax(a["x"]) ** 2).sum(),
    "logsumexp": lambda a: (softmaxkit.logsumexp(a["x"]) ** 2).sum(),
    "cross_entropy": lambda a: softmaxkit.cross_entropy(a["x"], a["labels"]),
    "smoothing": lambda a: softmaxkit.cross_entropy(
        a["x"], a["labels"], label_smoothing=0.1, weight=a["weight"], z_loss=0.1),
    "probabilities": lambda a: softmaxkit.cross_entropy(a["x"], a["q"]),
    "focal_loss": lambda a: softmaxkit.focal_loss(a["x"], a["labels"], label_smoothing=0.1),
    "linear_cross_entropy": lambda a: softmaxkit.linear_cross_entropy(
        a["hidden"], a["matrix"], a["labels"]),
}
by = "x", "hidden", "matrix"

def gradients(call, arrays):
    return jax.value_and_grad(lambda moved: call(arrays | moved))({n: arrays[n] for n in by})

want = {name: gradients(call, jax.tree.map(jnp.asarray, arrays)) for name, call in CALLS.items()}
for kind, mesh in mesh_of.items():
    for rows in (None, "rows"):
        places = {"x": (rows, "classes"), "q": (rows, "classes"), "hidden": (rows, None),
                  "matrix": ("classes", None), "labels": (rows,), "weight": ("classes",)}
        with jax.set_mesh(mesh):
            put = {name: jax.device_put(jnp.asarray(one), NamedSharding(mesh, P(*places[name])))
                   for name, one in arrays.items()}
            for name, call in CALLS.items():
                program = compiled(lambda put: gradients(call, put), put)
                jax.tree.map(lambda a, b: np.testing.assert_allclose(
                    a, b, rtol=1e-9, atol=1e-12), program(put), want[name])
                most = max(size for _, size in sent(program))
                # The maxima of four shards of each row are the most that is gathered, but for the
                # gradient by the hidden states, which all devices sum.
                assert most <= ROWS * max(4, 5), (kind, rows, name, most)
        print(kind.name, rows)
# So many classes that a single CPU computes their sums in another way.
by_class = NamedSharding(mesh_of[AxisType.Auto], P(None, "classes"))
long = jax.device_put(jnp.zeros((8, 1 << 17)), by_class)
for call in (
    lambda x: softmaxkit.cross_entropy(x, jnp.arange(8)), lambda x: softmaxkit.logsumexp(x).sum()
):
    print(max(size for _, size in sent(compiled(jax.value_and_grad(call), long))))
"""


def program(run_python, text, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    return run_python(HEAD + text, TESTS).splitlines()


def test_shards_give_what_whole_rows_give(jax, run_python, monkeypatch):
    """Every option in float64, some in float32 and bfloat16."""
    assert program(run_python, EQUAL, monkeypatch) == ["float32", "float64", "bfloat16"]


def test_derivatives_padding_and_what_is_sent(jax, run_python, monkeypatch):
    sent = "[('all-reduce', 16), ('all-reduce', 48)]"
    assert program(run_python, PROGRAMS, monkeypatch) == [
        "every argument",
        "inside",
        "second derivatives",
        "[False, True, True, False, False, False, False]",
        "[False, True, True, False, False, True, False]",
        "padded",
        sent,
        sent,
    ]


def test_sharded_arrays_under_jit_are_not_gathered(jax, run_python, monkeypatch):
    lines = [f"{kind} {rows}" for kind in ("Auto", "Explicit") for rows in (None, "rows")]
    assert program(run_python, JIT, monkeypatch) == [*lines, "8", "8"]
