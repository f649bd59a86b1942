"""The house, held to its plan: who may import whom, what is public, what a backend must offer."""

import ast
import doctest
import inspect
import re
import sys
import typing
from importlib import import_module
from pathlib import Path

import pytest

import softmaxkit
from softmaxkit import _operations, _typing, backends, calibration

PACKAGE = Path(softmaxkit.__file__).parent
BACKENDS = Path(backends.__file__).parent
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
OPERATIONS = ("activations", "gradients", "labels", "linear", "losses")
FRONTENDS = (*OPERATIONS, "threads")
FACADES = ("torch", "jax", "tensorflow", "keras")
# `from one of these import name` names a module.
PACKAGES = (
    *("", ".backends", ".calibration", ".conformance"),
    *(f".backends.{name}" for name in ("numpy", "array_api", "dask", "torch", "jax", "tensorflow")),
    *(f".{facade}" for facade in FACADES),
)
FRAMEWORKS = {
    "array_api_compat", "array_api_strict", "cupy", "dask", "jax", "keras", "mlx", "tensorflow",
    "torch",
}  # fmt: skip


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def modules():
    """Return the path of every module by its name after "softmaxkit."."""
    found = {
        ".".join(("backends", *path.relative_to(BACKENDS).with_suffix("").parts)): path
        for path in BACKENDS.rglob("*.py")
    }
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
                for alias in node.names:  # a module, or a class
                    is_class = alias.name[0].isupper()
                    yield node.module if is_class else f"{node.module}.{alias.name}"
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
def may_import():
    """Read the table of CONTRIBUTING.md: module -> what it may import."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    table = text.partition("| module | may import |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = (re.findall(r"`([\w.]+)`", row) for row in table.splitlines())
    return {module: set(allowed) for module, *allowed in rows}


MAY_IMPORT = may_import()


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_who_imports_whom(name):
    assert packages(imports(parsed(MODULES[name]))) <= MAY_IMPORT[name]


@pytest.mark.parametrize("name", MODULES)
def test_only_its_backend_imports_a_framework_at_top_level(name):
    package, _, module = name.rpartition(".")
    # A backend, or the façade of that name.
    facade = {package or module} & set(FACADES)
    library = name.split(".")[1] if name.startswith("backends.") else ""
    own = {"array_api": "array_api_compat"}.get(library, library.partition("_")[0])
    allowed = {own} if library else facade
    at_top_level = packages(imports(parsed(MODULES[name]), everywhere=False))
    assert at_top_level & FRAMEWORKS <= allowed


@pytest.mark.parametrize("name", MODULES)
def test_nothing_imports_a_facade(name):
    imported = {f"{each}." for each in imports(parsed(MODULES[name]))}
    own = name.partition(".")[0]
    for facade in set(FACADES) - {own}:
        assert not any(each.startswith(f"softmaxkit.{facade}.") for each in imported)


def test_backends_stand_beside_the_package_or_inside_it():
    """In a checkout softmaxkit/backends is a link to backends/; installed, they are one folder.

    Where git makes no links (Windows), an editable install finds backends/ by `package-dir`.
    """
    beside = CONTRIBUTING.parent / "backends"
    assert BACKENDS.resolve() in ((PACKAGE / "backends").resolve(), beside.resolve())


def test_a_checkout_without_the_link_says_what_to_do(run_python):
    script = """
import sys
sys.modules["softmaxkit.backends"] = None  # cannot be imported
try:
    import softmaxkit
except ImportError as error:
    print(error)
"""
    assert run_python(script).splitlines() == [
        "softmaxkit.backends cannot be imported. In a checkout or an unpacked sdist without the "
        "symbolic link softmaxkit/backends, run: python -m pip install -e ."
    ]


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
    "poly_loss_cross_entropy": "(logits, targets, *, epsilon=2.0, axis=-1, weight=None, "
    f"{CLASS_OPTIONS}, {REDUCTION})",
    "linear_cross_entropy": "(hidden, weight_matrix, targets, *, bias=None, softcap=None, "
    "chunk_size=None, outputs='loss', weight=None, sample_weight=None, where=None, "
    f"ignore_index=-100, label_smoothing=0.0, temperature=1.0, z_loss=0.0, {REDUCTION})",
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


OF_SCORES = "axis=-1, sample_weight=None, where=None, ignore_index=-100, temperature=1.0"
OF_LOGITS = "axis=-1, where=None, ignore_index=-100, temperature=1.0"
BINS = "from_logits=True, bins=15, binning='width'"
DRAWN = "resamples=1000, seed=0"
KIND = "kind='probability'"
SIGNATURES_OF_CALIBRATION = {
    "fit_temperature": "(logits, labels, *, axis=-1, sample_weight=None, where=None, "
    "ignore_index=-100)",
    "confidence": f"(logits, {KIND}, *, axis=-1, where=None, temperature=1.0)",
    "classify": f"(logits, *, threshold=None, reject=-1, {KIND}, axis=-1, where=None, "
    "temperature=1.0)",
    "calibration_error": f"(scores, labels, *, {BINS}, of='top', norm='l1', interval=None, "
    f"{DRAWN}, {OF_SCORES})",
    "reliability": f"(scores, labels, *, {BINS}, of='top', {OF_SCORES})",
    "brier_score": f"(scores, labels, *, from_logits=True, {OF_SCORES})",
    "risk_coverage": f"(logits, labels, *, {KIND}, {OF_LOGITS})",
    "aurc": f"(logits, labels, *, {KIND}, {OF_LOGITS})",
    "threshold_for": f"(logits, labels, *, max_risk=None, coverage=None, {KIND}, {OF_LOGITS})",
    "conformal_threshold": f"(logits, labels, *, error_rate, {OF_LOGITS})",
    "prediction_sets": "(logits, threshold, *, axis=-1, where=None, temperature=1.0)",
    "straight_through": "(x, axis=-1)",
    "plot_reliability": f"(scores, labels, *, ax=None, {BINS}, interval=0.95, {DRAWN}, "
    f"{OF_SCORES})",
    "plot_risk_coverage": f"(logits, labels, *, ax=None, label=None, {KIND}, {OF_LOGITS})",
}
EVERY_SIGNATURE = SIGNATURES | SIGNATURES_OF_CALIBRATION


def function(name):
    return getattr(calibration if name in SIGNATURES_OF_CALIBRATION else softmaxkit, name)


def test_every_signature_is_written_down():
    assert sorted(SIGNATURES) == softmaxkit.__all__
    tuples = {"Estimate", "Reliability", "RiskCoverage"}
    assert sorted(tuples | set(SIGNATURES_OF_CALIBRATION)) == calibration.__all__


@pytest.mark.parametrize("name", EVERY_SIGNATURE)
def test_signatures(name):
    signature = inspect.signature(function(name))
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == EVERY_SIGNATURE[name]


def given_by_name(signature):
    """Return what an option is by default, by its name, in the order of the signature."""
    return {name: one.default for name, one in signature.parameters.items()}


@pytest.mark.parametrize("name", EVERY_SIGNATURE)
def test_overloads_have_the_arguments_of_the_function(name):
    wanted = given_by_name(inspect.signature(function(name)))
    for one in typing.get_overloads(function(name)):
        found = given_by_name(inspect.signature(one))
        assert list(found) == list(wanted)
        # What decides which overload it is has no default where it is another one's.
        differ = {option for option in wanted if found[option] != wanted[option]}
        assert all(found[option] is inspect.Parameter.empty for option in differ)
        assert differ <= {"reduction", "outputs", "interval"}


@pytest.mark.parametrize("name", EVERY_SIGNATURE)
def test_annotations_can_be_looked_up(name):
    assert "return" in typing.get_type_hints(function(name))


def test_the_options_of_value_and_grad_are_those_of_the_losses():
    losses = (*import_module("softmaxkit.losses").__all__, "linear_cross_entropy")
    options = {
        option
        for loss in losses
        for option, one in inspect.signature(getattr(softmaxkit, loss)).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    }
    assert set(_typing.LossOptions.__annotations__) == options - {"reduction", "outputs"}


def test_the_operations_are_those_of_the_frontends():
    families = {one.family: _operations.names(one.family) for one in _operations.OPERATIONS}
    of_frontend = {
        name: import_module(f"softmaxkit.{name}").__all__
        for name in ("activations", "losses", "labels", "linear")
    }
    assert sorted(families["activation"]) == of_frontend["activations"]
    assert sorted(families["class loss"] + families["binary loss"]) == of_frontend["losses"]
    assert sorted(families["labels"]) == of_frontend["labels"]
    assert sorted(families["linear loss"]) == of_frontend["linear"]
    for one in _operations.OPERATIONS:
        by_class = {"weight", "alpha"} & set(re.findall(r"\w+", SIGNATURES[one.name]))
        assert (one.by_class is not None) == (one.family == "class loss")
        assert one.by_class is None or by_class == {one.by_class}


@pytest.mark.parametrize("facade", ["torch", "jax"])
@pytest.mark.parametrize("name", ["cross_entropy", "linear_cross_entropy"])
def test_shards_take_the_options_of_the_whole_rows(facade, name):
    def options(tree, name):
        (found,) = (
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list
        )
        defaults = zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
        return {one.arg: default and ast.unparse(default) for one, default in defaults}

    module = "linear" if name == "linear_cross_entropy" else "losses"
    whole = options(parsed(MODULES[module]), name)
    shards = options(parsed(MODULES[f"{facade}._shards"]), f"vocab_parallel_{name}")
    group = {"group": "None"} if facade == "torch" else {"axis_name": None}
    assert {one: whole[one] for one in whole if one != "outputs"} | group == shards


NO_OPERATIONS = ("functional", "nn", "use_triton")


def test_the_operations_name_what_the_facades_offer():
    offered = set()
    for facade in FACADES:
        module = MODULES.get(facade) or MODULES[f"{facade}.__init__"]
        (listed,) = (
            ast.literal_eval(node.value)
            for node in parsed(module).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        offered.update(f"{facade}.{name}" for name in listed if name not in NO_OPERATIONS)
    assert {name for one in _operations.OPERATIONS for name in one.facades} == offered


SECTIONS = ("Parameters", "Returns", "Raises", "References", "Examples")
# What no paper is needed for.
WITHOUT_REFERENCE = ("one_hot", "value_and_grad", "vjp", "get_num_threads", "set_num_threads")
WITHOUT_PARAMETERS = ("get_num_threads",)


def sections(function):
    """Split a docstring in NumPy's format: title -> text."""
    parts = re.split(r"^(\w+)\n-+\n", inspect.getdoc(function), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", EVERY_SIGNATURE)
def test_docstring_has_every_section(name):
    missing = set(SECTIONS) - set(sections(function(name)))
    unneeded = {"References"} if name in WITHOUT_REFERENCE else set()
    assert missing == unneeded | ({"Parameters"} if name in WITHOUT_PARAMETERS else set())


@pytest.mark.parametrize("name", EVERY_SIGNATURE)
def test_docstring_explains_every_parameter(name):
    text = sections(function(name)).get("Parameters", "")
    heads = re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", text, re.MULTILINE)
    documented = {each for head in heads for each in head.split(", ")}
    assert documented == set(inspect.signature(function(name)).parameters)


WITH_EXAMPLES = (*FRONTENDS, *(name for name in MODULES if re.match("calibration._[a-z]", name)))


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(name):
    module = import_module(f"softmaxkit.{name}")
    result = doctest.testmod(module)
    assert result.failed == 0
    functions = set(EVERY_SIGNATURE) & set(getattr(module, "__all__", ()))
    assert result.attempted >= 2 * len(functions)


# --- what a backend must offer --------------------------------------------------------------------
def functions(body):
    return {node.name: node.args for node in body if isinstance(node, ast.FunctionDef)}


def positional(arguments):
    return [one.arg for one in arguments.args if one.arg != "self"]


def protocol(name):
    (found,) = (
        node
        for node in parsed(MODULES["backends.__init__"]).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return functions(found.body)


def backend(name):
    return MODULES[f"backends.{name}.__init__"]


def imported_from_backends(tree):
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("softmaxkit.backends.")
        for alias in node.names
    }


def offered(name):
    """Return what a backend defines or imports by name, and the definitions it can be read from."""
    tree = parsed(backend(name))
    names = definitions(tree) | imported_from_backends(tree)
    defined = functions(tree.body)
    for module, path in MODULES.items():
        if module.startswith(f"backends.{name}."):
            defined = functions(parsed(path).body) | defined
    return names, defined


def test_every_module_of_backends_is_in_the_table():
    assert {name for name in MODULES if name.startswith("backends.")} <= set(MAY_IMPORT)


def test_there_is_a_module_for_each_backend():
    packages = {name.split(".")[1] for name in MODULES if name.startswith("backends.")}
    assert packages == {"__init__", *backends.MODULES}


@pytest.mark.parametrize("name", backends.MODULES)
def test_packages_have_the_same_files(name):
    assert {f"backends.{name}.{one}" for one in ("__init__", "arrays", "rows")} <= set(MODULES)


def test_the_protocol_has_every_operation():
    # Activations are an operation by its name, losses one by its options.
    names = {"activation", "loss"}
    names |= {
        one
        for name in ("gradients", "labels")
        for one in import_module(f"softmaxkit.{name}").__all__
    }
    assert names <= set(protocol("Backend"))


def assert_fulfils(contract, defined, called):
    for function in sorted(set(contract) & set(defined)):  # the others are the library's own
        want, have = contract[function], defined[function]
        assert positional(have) == positional(want), (called, function)
        assert bool(have.kwarg) == bool(want.kwarg), (called, function)
        # A name of its own is one of those that **options may bring.
        assert want.kwarg or not have.kwonlyargs, (called, function)


@pytest.mark.parametrize("name", backends.MODULES)
def test_backend_fulfils_the_protocol(name):
    # By its text: the library need not be installed.
    names, defined = offered(name)
    assert set(protocol("Backend")) | {"LIBRARY"} <= names
    assert_fulfils(protocol("Backend"), defined, name)


@pytest.mark.parametrize(
    ("name", "module", "contract"),
    [
        *((name, "arrays", "ArrayFunctions") for name in backends.MODULES),
        *((name, "rows", "Kernels") for name in backends.MODULES),
        *((name, "rows", "GradientKernels") for name in ("numpy", "array_api", "dask")),
        *(("torch", "blocks", contract) for contract in ("Kernels", "GradientKernels")),
    ],
)
def test_package_fulfils_the_protocols(name, module, contract):
    tree = parsed(MODULES[f"backends.{name}.{module}"])
    wanted = protocol(contract)
    assert set(wanted) <= definitions(tree) | imported_from_backends(tree)
    assert_fulfils(wanted, functions(tree.body), f"{name}.{module}")


@pytest.mark.parametrize(
    ("argument", "contracts"),
    [("ops", ["ArrayFunctions"]), ("kernels", ["Kernels", "GradientKernels"])],
)
def test_the_protocols_name_just_the_functions_that_are_used(argument, contracts):
    used = {
        node.attr
        for module in (
            *("_losses", "_linear", "_activations", "_statistics", "_axes"),
            *(name for name in MODULES if name.startswith("calibration._")),
            "backends.array_api.rows",
        )
        for node in ast.walk(parsed(MODULES[module]))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == argument
    }
    assert used == {name for contract in contracts for name in protocol(contract)}


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if name.startswith(("_", "backends.")))
)
def test_no_function_takes_more_than_six_arguments_by_place(name):
    found = {
        node.name: len(node.args.posonlyargs + node.args.args)
        for node in ast.walk(parsed(MODULES[name]))
        if isinstance(node, ast.FunctionDef)
        and not any(ast.unparse(one) == "triton.jit" for one in node.decorator_list)
    }
    assert not {name: count for name, count in found.items() if count > 6}


# --- numbers that a size is compared with ---------------------------------------------------------
NO_SIZES = ("xp.finfo(logits.dtype).bits >= 32", "labels > 2 ** 62")  # a width, and a label


def whole_number(node):
    """Return the value of an expression of integers, such as 1 << 16, else None."""
    if any(isinstance(each, ast.Name | ast.Call | ast.Attribute) for each in ast.walk(node)):
        return None
    try:
        value = eval(compile(ast.Expression(node), "", "eval"))
    except Exception:
        return None
    return value if type(value) is int else None


def sizes_compared_with(tree):
    """Yield each number above 16 that has a name, or that something is compared with."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and (whole_number(node.value) or 0) > 16:
            yield from (ast.unparse(target) for target in node.targets)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("min", "max"):
            compared = node.args
        else:
            continue
        if ast.unparse(node) not in NO_SIZES:
            inner = [each for one in compared for each in ast.walk(one)]
            numbers = (whole_number(each) for each in inner if isinstance(each, ast.expr))
            yield from (f"{number} at {node.lineno}" for number in numbers if (number or 0) > 16)


def test_at_most_twenty_numbers_decide_by_size():
    found = {
        f"{name}: {number}"
        for name, path in MODULES.items()
        if name.startswith("backends.") or name == "_axes"
        for number in sizes_compared_with(parsed(path))
        if not number.startswith("_")  # an alignment, a version
    }
    assert len(found) <= 22, sorted(found)


def test_a_number_that_a_size_is_compared_with_is_found():
    """The test of the test."""
    tree = ast.parse("FEW = 1 << 5\nif x.size > 100 + 1 or y < 16: pass\nz = max(n, 64)")
    found = set(sizes_compared_with(tree))
    assert found == {"FEW", "101 at 2", "100 at 2", "64 at 3"}


def test_an_operation_that_a_backend_lacks_is_found():
    """The test of the test."""
    names, _ = offered("numpy")
    tree = parsed(backend("numpy"))
    tree.body = [node for node in tree.body if getattr(node, "name", "") != "vjp"]
    assert set(protocol("Backend")) - definitions(tree) - (names - {"vjp"}) == {"vjp"}
