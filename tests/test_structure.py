"""The house, held to its plan: who may import whom, what is public, what a backend must offer."""

import ast
import doctest
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import softmaxkit
from softmaxkit import backends

PACKAGE = Path(softmaxkit.__file__).parent
BACKENDS = Path(backends.__file__).parent
OPERATIONS = ("activations", "gradients", "labels", "losses")
FRONTENDS = (*OPERATIONS, "threads")
FACADES = ("torch", "jax", "tensorflow", "keras")
# `from one of these import name` names a module.
PACKAGES = ("", ".backends", ".conformance", *(f".{facade}" for facade in FACADES))
FRAMEWORKS = {
    "array_api_compat", "array_api_strict", "cupy", "dask", "jax", "keras", "tensorflow", "torch",
}  # fmt: skip


# Modules of backends/ that are no backend: they belong to the one they are named after.
BLOCKS = (
    "numpy_blocks",
    "numpy_plain",
    "numpy_sums",
    "torch_blocks",
    "torch_plain",
    "torch_rows",
    "torch_state",
    "tensorflow_classes",
    "tensorflow_host",
    "tensorflow_rows",
    "jax_rows",
)


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def modules():
    """Return the path of every module by its name after "softmaxkit."."""
    found = {f"backends.{path.stem}": path for path in BACKENDS.glob("*.py")}
    for path in PACKAGE.rglob("*.py"):  # follows no links
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found.setdefault(name, path)
    return found


MODULES = modules()


def imports(tree, everywhere=True):
    """Yield what is imported when the module is, or with `everywhere` in its functions too."""
    for node in tree if isinstance(tree, list) else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module in {f"softmaxkit{package}" for package in PACKAGES}:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif everywhere or not isinstance(node, ast.FunctionDef):
            for block in ("body", "orelse", "handlers", "finalbody"):
                yield from imports(getattr(node, block, []), everywhere)


def packages(names):
    """Reduce names to softmaxkit's own modules and the packages that are not Python's."""
    own = {name.removeprefix("softmaxkit.") for name in names if name.startswith("softmaxkit")}
    outside = {name.partition(".")[0] for name in names if not name.startswith("softmaxkit")}
    return own | (outside - set(sys.stdlib_module_names))


# --- who may import whom --------------------------------------------------------------------------
MAY_IMPORT = {
    "__init__": set(FRONTENDS),
    "activations": {"_arguments", "_dispatch"},
    "losses": {"_arguments", "_dispatch", "_targets", "numpy"},
    "labels": {"_arguments", "_dispatch", "_targets"},
    "gradients": {"_arguments", "_dispatch", "activations", "losses"},
    "threads": {"_arguments", "_threads"},
    "_threads": set(),
    "_arguments": {"_dispatch", "numpy"},
    "_targets": {"_arguments", "_dispatch", "numpy"},
    "_dispatch": {"backends", "numpy", "array_api_compat"},
    "_rows": {"_softmax"},
    "_softmax": set(),
    "backends.__init__": {"numpy"},
    "backends.numpy": {
        *("_rows", "_softmax", "numpy"),
        *("backends.numpy_blocks", "backends.numpy_plain", "backends.numpy_sums"),
    },
    "backends.numpy_blocks": {"_threads", "backends.numpy_sums", "numpy"},
    "backends.numpy_plain": {"_rows", "backends.numpy_blocks", "numpy"},
    "backends.numpy_sums": {"numpy"},
    # Small losses on the CPU are left to NumPy.
    "backends.torch": {
        *("_rows", "_softmax", "backends.torch_rows", "backends.torch_blocks"),
        *("backends.torch_plain", "backends.torch_state", "backends.numpy", "numpy", "torch"),
    },
    "backends.torch_plain": {"backends.torch_blocks", "backends.torch_rows", "torch"},
    "backends.torch_rows": {
        *("backends.torch_blocks", "backends.torch_state", "backends.numpy", "torch"),
    },
    "backends.torch_state": {"backends.torch_blocks", "numpy", "torch"},
    "backends.torch_blocks": {"numpy", "torch"},
    "backends.jax": {"_rows", "_softmax", "backends.jax_rows", "numpy", "jax"},
    "backends.jax_rows": {"_softmax", "jax"},
    # Eager calls on the CPU are.
    "backends.tensorflow": {
        *("_rows", "_softmax", "backends.tensorflow_classes", "backends.tensorflow_host"),
        *("backends.tensorflow_rows", "tensorflow"),
    },
    "backends.tensorflow_rows": {"_softmax", "backends.tensorflow_classes", "tensorflow"},
    "backends.tensorflow_classes": {"_softmax", "tensorflow"},
    "backends.tensorflow_host": {
        *("backends.tensorflow_rows", "backends.numpy", "numpy", "tensorflow"),
    },
    "backends.array_api": {"_rows", "_softmax", "_arguments", "numpy", "array_api_compat"},
    "conformance.reference": {"numpy", "conformance.reference_activations"},
    "conformance.reference_activations": {"numpy"},
    # The benchmark: what is measured, and how, needs no terminal.
    "bench.operations": {"softmaxkit"},
    "bench.measuring": set(),
    "bench.results": {"bench.libraries", "bench.operations"},
    # Façades: the public frontends, and their framework.
    "torch.__init__": {"torch.functional", "torch.nn"},
    "torch.functional": {"torch._activations", "torch._losses"},
    "torch._activations": {"softmaxkit", "torch", "torch._conventions"},
    "torch._losses": {"softmaxkit", "torch", "torch._conventions"},
    "torch._conventions": {"torch"},
    "torch.nn": {"torch", "torch.functional"},
    "jax.__init__": {"jax._nn", "jax._optax"},
    "jax._axes": {"jax", "numpy"},
    "jax._nn": {"softmaxkit", "jax", "jax._axes"},
    "jax._optax": {"softmaxkit", "jax", "jax._axes"},
    "tensorflow": {"softmaxkit", "tensorflow"},
    "keras.__init__": {"losses", "numpy", "keras", "keras._base"},
    "keras._base": {"numpy", "keras"},
}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_who_imports_whom(name):
    assert packages(imports(parsed(MODULES[name]))) <= MAY_IMPORT[name]


@pytest.mark.parametrize("name", MODULES)
def test_only_its_backend_imports_a_framework_at_top_level(name):
    package, _, module = name.rpartition(".")
    # A backend, or the façade of that name.
    facade = {package or module} & set(FACADES)
    own = {"array_api": "array_api_compat"}.get(module, module.partition("_")[0])
    allowed = {own} if package == "backends" else facade
    at_top_level = packages(imports(parsed(MODULES[name]), everywhere=False))
    assert at_top_level & FRAMEWORKS <= allowed


@pytest.mark.parametrize("name", MODULES)
def test_nothing_imports_a_facade(name):
    imported = {f"{each}." for each in imports(parsed(MODULES[name]))}
    own = name.partition(".")[0]
    for facade in set(FACADES) - {own}:
        assert not any(each.startswith(f"softmaxkit.{facade}.") for each in imported)


def test_backends_stand_beside_the_package_or_inside_it():
    """In a checkout softmaxkit/backends is a link to backends/; installed, they are one folder."""
    assert (PACKAGE / "backends").resolve() == BACKENDS.resolve()


# --- what is public -------------------------------------------------------------------------------
def definitions(tree):
    """Return the public names a module defines itself."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", FRONTENDS)
def test_all_lists_the_definitions(name):
    assert import_module(f"softmaxkit.{name}").__all__ == sorted(definitions(parsed(MODULES[name])))


def test_the_package_exports_every_frontend_and_nothing_else():
    names = [one for name in FRONTENDS for one in import_module(f"softmaxkit.{name}").__all__]
    assert softmaxkit.__all__ == sorted(names)
    assert definitions(parsed(MODULES["__init__"])) == set()


CLASS_OPTIONS = (
    "sample_weight=None, where=None, ignore_index=-100, label_smoothing=0.0, temperature=1.0"
)
REDUCTION = "reduction='mean', normalizer=None, dtype=None"
SIGNATURES = {
    "softmax": "(x, axis=-1, *, where=None, temperature=1.0, dtype=None)",
    "log_softmax": "(x, axis=-1, *, where=None, temperature=1.0, dtype=None)",
    "logsumexp": "(x, axis=-1, *, where=None, keepdims=False, dtype=None)",
    "cross_entropy": f"(logits, targets, *, axis=-1, weight=None, {CLASS_OPTIONS}, z_loss=0.0, "
    f"{REDUCTION})",
    "focal_loss": f"(logits, targets, *, gamma=2.0, alpha=None, axis=-1, {CLASS_OPTIONS}, "
    f"{REDUCTION})",
    "binary_cross_entropy": "(logits, targets, *, pos_weight=None, sample_weight=None, "
    f"label_smoothing=0.0, {REDUCTION})",
    "sigmoid_focal_loss": "(logits, targets, *, gamma=2.0, alpha=None, sample_weight=None, "
    f"label_smoothing=0.0, {REDUCTION})",
    "one_hot": "(labels, num_classes, *, axis=-1, dtype=None)",
    "smooth_labels": "(targets, smoothing, *, num_classes=None, axis=-1, where=None)",
    "value_and_grad": "(loss)",
    "vjp": "(activation)",
    "get_num_threads": "()",
    "set_num_threads": "(number)",
}


def test_every_signature_is_written_down():
    assert sorted(SIGNATURES) == softmaxkit.__all__


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    signature = inspect.signature(getattr(softmaxkit, name))
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


SECTIONS = ("Parameters", "Returns", "Raises", "References", "Examples")
# What no paper is needed for.
WITHOUT_REFERENCE = ("one_hot", "value_and_grad", "vjp", "get_num_threads", "set_num_threads")
WITHOUT_PARAMETERS = ("get_num_threads",)


def sections(function):
    """Split a docstring in NumPy's format: title -> text."""
    parts = re.split(r"^(\w+)\n-+\n", inspect.getdoc(function), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", softmaxkit.__all__)
def test_docstring_has_every_section(name):
    missing = set(SECTIONS) - set(sections(getattr(softmaxkit, name)))
    unneeded = {"References"} if name in WITHOUT_REFERENCE else set()
    assert missing == unneeded | ({"Parameters"} if name in WITHOUT_PARAMETERS else set())


@pytest.mark.parametrize("name", softmaxkit.__all__)
def test_docstring_explains_every_parameter(name):
    function = getattr(softmaxkit, name)
    text = sections(function).get("Parameters", "")
    heads = re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", text, re.MULTILINE)
    documented = {each for head in heads for each in head.split(", ")}
    assert documented == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", FRONTENDS)
def test_examples_in_docstrings_run(name):
    module = import_module(f"softmaxkit.{name}")
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted >= 2 * len(module.__all__)


# --- what a backend must offer --------------------------------------------------------------------
# Only where the library has no autodiff.
BY_HAND = {"row_gradient"}
NO_AUTODIFF = {"numpy", "array_api"}


def functions(body):
    return {node.name: node.args for node in body if isinstance(node, ast.FunctionDef)}


def positional(arguments):
    return [one.arg for one in arguments.args if one.arg != "self"]


def protocol():
    (backend,) = (
        node
        for node in parsed(MODULES["backends.__init__"]).body
        if isinstance(node, ast.ClassDef) and node.name == "Backend"
    )
    return functions(backend.body)


def demanded(name):
    return {each for each in protocol() if name in NO_AUTODIFF or each not in BY_HAND}


def test_every_backend_is_in_the_tables():
    assert {f"backends.{name}" for name in backends.MODULES} <= set(MAY_IMPORT)


def test_there_is_a_module_for_each_backend():
    assert {f"backends.{name}" for name in (*backends.MODULES, "__init__", *BLOCKS)} == {
        name for name in MODULES if name.startswith("backends.")
    }


def test_the_protocol_has_every_operation():
    names = {one for name in OPERATIONS for one in import_module(f"softmaxkit.{name}").__all__}
    assert names <= set(protocol())


@pytest.mark.parametrize("name", backends.MODULES)
def test_backend_fulfils_the_protocol(name):
    # By its text: the library need not be installed.
    tree = parsed(MODULES[f"backends.{name}"])
    defined = functions(tree.body)
    for module in BLOCKS:
        if module.startswith(f"{name}_"):
            defined = functions(parsed(MODULES[f"backends.{module}"]).body) | defined
    assert demanded(name) | {"LIBRARY"} <= definitions(tree)
    contract = protocol()
    for function in sorted(demanded(name) & set(defined)):  # the others are the library's own
        want, have = contract[function], defined[function]
        assert positional(have) == positional(want), function
        assert bool(have.kwarg) == bool(want.kwarg), function
        # A name of its own is one of those that **options may bring.
        assert want.kwarg or not have.kwonlyargs, function


@pytest.mark.parametrize("name", backends.MODULES)
def test_backend_has_every_array_function_that_the_loss_family_uses(name):
    used = {
        node.attr
        for module in ("_rows", "_softmax")
        for node in ast.walk(parsed(MODULES[module]))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "ops"
    }
    used -= set() if name in NO_AUTODIFF else BY_HAND
    assert used <= definitions(parsed(MODULES[f"backends.{name}"]))


def test_an_operation_that_a_backend_lacks_is_found():
    """The test of the test."""
    tree = parsed(MODULES["backends.numpy"])
    tree.body = [node for node in tree.body if getattr(node, "name", "") != "vjp"]
    assert demanded("numpy") - definitions(tree) == {"vjp"}
