"""softmaxkit.torch in torch's programs: modules, compilers, export, derivatives, vmap."""

import copy
import pickle
from importlib import import_module

import pytest

EXACT = {"rtol": 0, "atol": 0, "equal_nan": True}


@pytest.fixture
def ours(torch):
    return import_module("softmaxkit.torch")


# --- modules --------------------------------------------------------------------------------------
def modules(torch, package):
    w = torch.tensor([1.0, 2.0, 5.0])
    own = [] if package is torch.nn else [package.FocalLoss, package.SigmoidFocalLoss]
    return [
        (package.Softmax(dim=1), None),
        (package.LogSoftmax(dim=-1), None),
        (package.CrossEntropyLoss(), "labels"),
        (package.CrossEntropyLoss(w, ignore_index=2, label_smoothing=0.1), "labels"),
        (package.CrossEntropyLoss(reduction="none"), "probabilities"),
        (package.BCEWithLogitsLoss(), "probabilities"),
        (package.BCEWithLogitsLoss(w, pos_weight=2 * w, reduction="sum"), "probabilities"),
        *((kind(), "labels") for kind in own[:1]),
        *((kind(w, gamma=1.0, reduction="none"), "labels") for kind in own[:1]),
        *((kind(alpha=0.5, ignore_index=1), "labels") for kind in own[:1]),
        *((kind(alpha=-1, reduction="mean"), "probabilities") for kind in own[1:]),
    ]


def module_arguments(torch, kind, dtype=None):
    dtype = dtype or torch.float32
    x = torch.linspace(-2, 3, 12, dtype=dtype).view(4, 3)
    if kind is None:
        return (x,)
    return x, (torch.tensor([0, 2, 1, 1]) if kind == "labels" else x.detach().sigmoid())


def test_modules_do_what_torchs_do(torch, ours, same):
    pairs = zip(modules(torch, ours), modules(torch, torch.nn), strict=False)
    for (mine, kind), (other, _) in pairs:
        arguments = module_arguments(torch, kind)
        leaf = arguments[0].requires_grad_()
        same(mine(*arguments), other(*arguments), [leaf])
        assert repr(mine) == repr(other)
        assert isinstance(mine, type(other))
        assert mine.state_dict().keys() == other.state_dict().keys()
        mine.load_state_dict(other.state_dict(), strict=True)


def test_modules_are_copied_pickled_and_moved(torch, ours, same):
    for module, kind in modules(torch, ours):
        arguments = module_arguments(torch, kind)
        expected = module(*arguments)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert repr(twin) == repr(module)
            same(twin(*arguments), expected, **EXACT)
        blank = copy.deepcopy(module)
        for buffer in blank.buffers():
            buffer.zero_()
        blank.load_state_dict(module.state_dict())
        same(blank(*arguments), expected, **EXACT)
        wide = copy.deepcopy(module).to(torch.float64)
        assert wide(*module_arguments(torch, kind, torch.float64)).dtype is torch.float64
        on_meta = copy.deepcopy(module).to("meta")(*(each.to("meta") for each in arguments))
        assert (on_meta.device.type, on_meta.shape) == ("meta", expected.shape)


def test_modules_in_sequential(torch, ours, same):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), ours.LogSoftmax(dim=1))
    assert repr(model[1]) == "LogSoftmax(dim=1)"
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    loss = ours.nll_loss(model(x), y)
    same(loss, ours.CrossEntropyLoss()(model[0](x), y), [model[0].weight])


def test_repr_of_focal_losses(torch, ours):
    assert (
        repr(ours.FocalLoss(alpha=0.5))
        == "FocalLoss(alpha=0.5, gamma=2.0, ignore_index=-100, reduction='mean', "
        "label_smoothing=0.0)"
    )
    assert "alpha" not in repr(ours.FocalLoss(torch.ones(3)))
    assert list(ours.FocalLoss(torch.ones(3)).state_dict()) == ["alpha"]
    assert list(ours.FocalLoss(0.5).state_dict()) == []


# --- compilers and transforms ---------------------------------------------------------------------
def programs(torch, ours):
    y, q = torch.tensor([0, 2, -100, 1]), torch.full((4, 3), 0.25)
    w = torch.tensor([1.0, 2.0, 5.0])
    return {
        "softmax": lambda x: ours.softmax(x, 1),
        "log_softmax": lambda x: ours.log_softmax(x, dim=0),
        "softmin": lambda x: ours.softmin(x, -1, dtype=torch.float64),
        "cross_entropy": lambda x: ours.cross_entropy(x, y),
        "weights": lambda x: ours.cross_entropy(x, y, w.to(x.dtype), label_smoothing=0.1),
        "one row": lambda x: ours.cross_entropy(x[0], y[0], w.to(x.dtype)),
        "rows": lambda x: ours.cross_entropy(x, y, reduction="none"),
        "probabilities": lambda x: ours.cross_entropy(x, q),
        "binary": lambda x: ours.binary_cross_entropy_with_logits(
            x, q.to(x.dtype), w, pos_weight=w
        ),
        "focal": lambda x: ours.focal_loss(x, y, w.to(x.dtype), 0.5),
        "sigmoid focal": lambda x: ours.sigmoid_focal_loss(x, q, reduction="mean"),
        "linear": lambda x: ours.linear_cross_entropy(
            x, w.to(x.dtype).outer(x.new_tensor([1.0, -1.0, 0.5])), y, chunk_size=2
        ),
        "positions": lambda x: ours.linear_cross_entropy(
            x, x.new_ones(3, 2, 3).cumsum(0), y[:, None].expand(4, 2), label_smoothing=0.1
        ),
        "module": ours.LogSoftmax(dim=1),
        "modules": torch.nn.Sequential(ours.Softmax(dim=1), ours.Softmax(dim=0)),
    }


PROGRAMS = (
    "softmax", "log_softmax", "softmin", "cross_entropy", "weights", "one row", "rows",
    "probabilities", "binary", "focal", "sigmoid focal", "linear", "positions", "module",
    "modules",
)  # fmt: skip


@pytest.fixture(params=PROGRAMS)
def program(request, torch, ours):
    return programs(torch, ours)[request.param]


@pytest.fixture
def logits(torch):
    return torch.linspace(-3, 2, 12, dtype=torch.float64).view(4, 3).cos().requires_grad_()


def test_compile(torch, program, logits, same):
    torch.compiler.reset()
    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    same(compiled(logits), program(logits), [logits])


def test_export(torch, program):
    class Model(torch.nn.Module):
        def forward(self, x):
            return program(x)

    x = torch.linspace(-3, 2, 12).view(4, 3)
    exported = torch.export.export(Model(), (x,)).module()
    torch.testing.assert_close(exported(x.cos()), program(x.cos()))


def test_export_with_any_number_of_rows(torch, ours):
    x, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    rows = torch.export.Dim("rows", min=2)
    shapes = {"input": {0: rows}, "target": {0: rows}}
    loss = ours.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]), label_smoothing=0.1)
    exported = torch.export.export(loss, (x, y), dynamic_shapes=shapes).module()
    x, y = torch.randn(9, 3), torch.randint(3, (9,))
    torch.testing.assert_close(exported(x, y), loss(x, y))


def test_derivatives_of_every_kind(torch, program, logits):
    assert torch.autograd.gradcheck(program, logits, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(program, logits)


def test_func_transforms(torch, program, logits):
    func, x = torch.func, logits.detach()
    torch.testing.assert_close(func.jacfwd(program)(x), func.jacrev(program)(x))
    batch = torch.stack([x, 2 * x, -x])
    torch.testing.assert_close(func.vmap(program)(batch), torch.stack([*map(program, batch)]))

    def total(x):
        return program(x).sum()

    gradients = torch.stack([func.grad(total)(each) for each in batch])
    torch.testing.assert_close(func.vmap(func.grad(total))(batch), gradients)


def test_vmap_over_targets(torch, ours):
    x, y = torch.randn(5, 4, 3), torch.randint(3, (5, 4))
    w = torch.tensor([1.0, 2.0, 5.0])

    def loss(x, y):
        return ours.cross_entropy(x, y, w)

    rows = torch.stack([loss(*each) for each in zip(x, y, strict=True)])
    torch.testing.assert_close(torch.func.vmap(loss)(x, y), rows)


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_that_cannot_be_seen(torch, ours, weighted):
    """Out of range, they make the loss NaN."""
    torch.compiler.reset()
    x, y = torch.randn(4, 3), torch.tensor([0, 5, 1, -1])
    weight = torch.tensor([1.0, 2.0, 5.0]) if weighted else None
    compiled = torch.compile(ours.cross_entropy, fullgraph=True, backend="aot_eager")
    assert compiled(x, y, weight).isnan()
    rows = compiled(x, y, weight, reduction="none")
    assert rows.isnan().tolist() == [False, True, False, True]
