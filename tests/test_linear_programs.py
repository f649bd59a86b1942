"""linear_cross_entropy in programs of JAX, PyTorch and TensorFlow: the loss of whole logits."""

from functools import partial

import numpy as np
import pytest

import softmaxkit
from softmaxkit import linear_cross_entropy
from softmaxkit.conformance import reference_linear

RANDOM = np.random.default_rng(0)
# Of three batches of ten rows, over six classes.
H, M = RANDOM.normal(size=(3, 10, 4)), RANDOM.normal(size=(6, 4))
Y = RANDOM.integers(0, 6, (3, 10))
Y[:, 2] = -100
REDUCTIONS = ("mean", "none")
# Of float64: gradients are sums of dozens of products near 1.
near = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)


def loss(hidden, weight_matrix, targets, **options):
    """Return a number, by chunks that do not divide the rows."""
    return linear_cross_entropy(hidden, weight_matrix, targets, chunk_size=4, **options).sum()


def plain(hidden, weight_matrix, targets, **options):
    return softmaxkit.cross_entropy(hidden @ weight_matrix.T, targets, **options).sum()


# --- JAX ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("remade", [False, True])
def test_scan_over_microbatches(jax, remade):
    """Gradients are summed in a scan, as a training step accumulates them."""
    of_batch = jax.checkpoint(loss) if remade else loss

    @jax.jit
    def step(weight_matrix, batches):
        def body(total, batch):
            return total + jax.grad(of_batch, 1)(batch[0], weight_matrix, batch[1]), None

        return jax.lax.scan(body, jax.numpy.zeros_like(weight_matrix), batches)[0]

    want = sum(reference_linear.linear_gradients(h, M, y)[0][1] for h, y in zip(H, Y, strict=True))
    near(step(M, (H, Y)), want)

    @jax.jit
    def through(weight_matrix):
        def body(total, batch):
            return total + of_batch(batch[0], weight_matrix, batch[1]), None

        return jax.lax.scan(body, 0.0, (H, Y))[0]

    near(jax.grad(through)(M), want)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_derivatives_of_jax(jax, reduction):
    options = {"reduction": reduction, "label_smoothing": 0.1, "softcap": 2.0}

    def capped(z):
        return 2.0 * jax.numpy.tanh(z / 2.0)

    def fused(h, m):
        return loss(h, m, Y[0], **options)

    def whole(h, m):
        given = {"reduction": reduction, "label_smoothing": 0.1}
        return softmaxkit.cross_entropy(capped(h @ m.T), Y[0], **given).sum()

    moves = RANDOM.normal(size=H[0].shape), RANDOM.normal(size=M.shape)

    def derivatives(f):
        return jax.jit(
            lambda h, m: (
                jax.hessian(f)(h, m),
                jax.jvp(f, (h, m), moves),
                jax.jvp(jax.grad(f, (0, 1)), (h, m), moves),
                jax.grad(lambda h: (jax.grad(f, 1)(h, m) ** 2).sum())(h),
            )
        )(H[0], M)

    jax.tree.map(near, derivatives(fused), derivatives(whole))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap_over_weight_matrices_of_jax(jax, reduction):
    matrices = RANDOM.normal(size=(5, 6, 4))
    both = jax.value_and_grad(partial(loss, reduction=reduction), (0, 1))
    got = jax.jit(jax.vmap(both, (None, 0, None)))(H[0], matrices, Y[0])
    each = [both(H[0], one, Y[0]) for one in matrices]
    jax.tree.map(lambda one, *rows: near(one, np.stack(rows)), got, *each)


SHARDED = """
import jax, numpy as np, softmaxkit
from jax.sharding import AxisType, PartitionSpec as P
random = np.random.default_rng(0)
h, m, y = random.normal(size=(8, 4)), random.normal(size=(6, 4)), random.integers(0, 6, 8)
h, m = h.astype("float32"), m.astype("float32")
mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
loss = softmaxkit.linear_cross_entropy

def on_each(h, m, y):  # a mean of as many rows on each; JAX sums the gradients of what all have
    value, found = softmaxkit.value_and_grad(loss)(h, m, y, chunk_size=1)
    return jax.lax.pmean(value, "rows"), found.hidden / 4, found.weight_matrix / 4

by_row = jax.shard_map(
    on_each, mesh=mesh, in_specs=(P("rows"), P(), P("rows")), out_specs=(P(), P("rows"), P())
)

def total(reduction):
    def on_each(h, m, y):
        return jax.lax.psum(loss(h, m, y, reduction=reduction, chunk_size=1).sum(), "rows")

    specs = P("rows"), P(), P("rows")
    return jax.shard_map(on_each, mesh=mesh, in_specs=specs, out_specs=P())

value, found = softmaxkit.value_and_grad(loss)(h.astype("float64"), m.astype("float64"), y)
# Some ten roundings of float32, of terms near 1.
near = lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
want = value, found.hidden, found.weight_matrix
for one, other in zip(jax.jit(by_row)(h, m, y), want):
    near(one, other)
for reduction in ("sum", "none"):
    for one, other in zip(jax.jit(jax.grad(total(reduction), (0, 1)))(h, m, y), want[1:]):
        near(one / 8, other)
# A matrix that is gathered from the devices, as one whose rows they share, differs between them.
gathered = jax.shard_map(
    lambda h, m, y: loss(h, jax.lax.all_gather(m, "rows", tiled=True), y, chunk_size=1)[None],
    mesh=mesh, in_specs=(P(), P("rows"), P()), out_specs=P("rows"),
)
value, found = softmaxkit.value_and_grad(loss)(h, np.concatenate([m, -m[:2]]), y)
got = jax.jit(jax.grad(lambda m: gathered(h, m, y).mean()))(np.concatenate([m, -m[:2]]))
near(got, found.weight_matrix)
print("checked")
"""


def test_rows_on_four_devices(jax, run_python, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    assert run_python(SHARDED) == "checked\n"


# --- PyTorch --------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_func_of_torch(torch, reduction):
    func = torch.func
    h, m, y = (torch.from_numpy(one) for one in (H, M, Y))
    matrices = torch.stack([m, 2 * m, -m])
    fused, whole = (partial(one, reduction=reduction) for one in (loss, plain))
    for transform in (
        lambda f: func.grad(f, (0, 1))(h[0], m, y[0]),
        lambda f: func.vmap(func.grad(f, (0, 1)))(h, matrices, y),
        lambda f: func.vmap(func.grad(f, 1), (None, 0, None))(h[0], matrices, y[0]),
        lambda f: func.jvp(lambda m: f(h[0], m, y[0]), (m,), (m.cos(),)),
        lambda f: func.hessian(lambda h: f(h, m, y[0]))(h[0]),
    ):
        torch.testing.assert_close(transform(fused), transform(whole))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_activation_checkpointing_of_torch(torch, reduction):
    from torch.utils.checkpoint import checkpoint

    h, m = (torch.from_numpy(one).requires_grad_() for one in (H[0], M))
    y = torch.from_numpy(Y[0])
    function = partial(loss, reduction=reduction)
    want = torch.autograd.grad(function(h, m, y), (h, m))
    for reentrant in (False, True):
        value = checkpoint(function, h, m, y, use_reentrant=reentrant)
        if reentrant:  # which refuses autograd.grad
            value.backward()
            got = h.grad, m.grad
        else:
            got = torch.autograd.grad(value, (h, m))
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["sum", *REDUCTIONS])
def test_two_cotangents_of_one_graph_of_torch(torch, reduction):
    h, m = (torch.from_numpy(one).requires_grad_() for one in (H[0], M))
    before = h.detach().clone(), m.detach().clone()
    y = torch.from_numpy(Y[0])
    options = {"reduction": reduction}
    value = linear_cross_entropy(h, m, y, chunk_size=4, **options)
    whole = softmaxkit.cross_entropy(h @ m.T, y, **options)
    kept = []
    for cotangent in (torch.ones_like(value), torch.linspace(-1, 2, 10).double()[: value.numel()]):
        cotangent = cotangent.view(value.shape)
        got, want = (
            torch.autograd.grad(one, (h, m), cotangent, retain_graph=True) for one in (value, whole)
        )
        torch.testing.assert_close(got, want)
        kept.append((got, [one.clone() for one in got]))
    for got, as_it_was in kept:
        torch.testing.assert_close(list(got), as_it_was, rtol=0, atol=0)
    torch.testing.assert_close((h.detach(), m.detach()), before, rtol=0, atol=0)


def test_gradients_under_autocast_of_torch(torch):
    """They have the dtype of the leaves, and are those of operands in half precision."""
    h, m = (torch.from_numpy(one).float().requires_grad_() for one in (H[0], M))
    y = torch.from_numpy(Y[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = torch.autograd.grad(loss(h, m, y), (h, m))
    half = [one.detach().bfloat16().requires_grad_() for one in (h, m)]
    want = torch.autograd.grad(loss(*half, y, dtype=torch.float32), half)
    torch.testing.assert_close(got, tuple(one.float() for one in want), rtol=0, atol=0)


def test_an_embedding_table_of_torch_that_is_the_output_too(torch):
    """Its gradient is the sum of both uses, where a module shares the parameter."""

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(6, 4, dtype=torch.float64)
            self.between = torch.nn.Linear(4, 4, dtype=torch.float64)

        def forward(self, of, tokens, targets):
            hidden = self.between(self.table(tokens)).tanh()
            return of(hidden, self.table.weight, targets)

    torch.manual_seed(0)
    model, y = Tied(), torch.from_numpy(Y)
    found = []
    for of in (loss, plain):
        model.zero_grad()
        value = model(of, y.roll(1, 1).clamp(min=0)[0], y[0])
        value.backward()
        found.append([value, *(one.grad.clone() for one in model.parameters())])
    torch.testing.assert_close(*found)


# --- TensorFlow -----------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("xla", [False, True])
def test_a_batch_of_unknown_size_of_tensorflow(tf, reduction, xla):
    specs = [
        tf.TensorSpec((None, 4), tf.float64),
        tf.TensorSpec((6, 4), tf.float64),
        tf.TensorSpec((None,), tf.int64),
    ]

    @tf.function(input_signature=specs, jit_compile=xla)
    def both(hidden, weight_matrix, targets):
        with tf.GradientTape() as tape:
            tape.watch((hidden, weight_matrix))
            value = linear_cross_entropy(
                hidden, weight_matrix, targets, chunk_size=4, reduction=reduction
            )
        return value, tape.gradient(value, (hidden, weight_matrix))

    for rows in (10, 4, 3, 0):
        hidden, targets = H[0, :rows], Y[0, :rows]
        value, found = both(*(tf.constant(one) for one in (hidden, M, targets)))
        options = {"reduction": reduction}
        near(value, reference_linear.linear_cross_entropy(hidden, M, targets, **options))
        options["reduction"] = "mean" if reduction == "mean" else "sum"
        want, _ = reference_linear.linear_gradients(hidden, M, targets, **options)
        for got, other in zip(found, want[:2], strict=True):
            near(got, other)
