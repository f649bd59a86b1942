"""CuPy without a GPU: NumPy's functions on arrays that the host cannot read.

It has what array_api_compat.cupy needs to be imported, and refuses, as CuPy does, to mix its arrays
with NumPy's. Beyond that it refuses what would make CuPy wait for the device: bool(), float() and
the like, iteration, and boolean indices. `ndarray.get` is CuPy's copy to the host; it is counted.
"""

import operator
import sys
from types import ModuleType

import numpy as np

OPERATORS = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
)  # fmt: skip
UNARY = ("neg", "pos", "abs", "invert")
COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")
REFUSED = (
    "__array__", "__bool__", "__int__", "__float__", "__complex__", "__index__", "__iter__",
    "__dlpack__", "item", "tolist",
)  # fmt: skip


class HostReadError(TypeError):
    """What is on the device was to be read by the host."""


class Device:
    """A device, and the context in which CuPy makes arrays on it."""

    id = 0

    def __init__(self, device=None):
        assert device is None or int(device) == 0

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device)

    __hash__ = None

    def __repr__(self):
        return "<CUDA Device 0>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class ndarray:  # noqa: N801  # the name of the class in CuPy
    """An array on the device."""

    __module__ = "cupy"
    __array_ufunc__ = None  # NumPy's scalars leave operations to it
    copies = 0  # to the host

    def __init__(self, host):
        self._host = np.asarray(host)

    def get(self):
        ndarray.copies += 1
        return self._host.copy()

    def astype(self, dtype, copy=True):
        return ndarray(self._host.astype(dtype, copy=copy))

    def __getitem__(self, key):
        return ndarray(self._host[_index(key)])

    def __repr__(self):
        return f"<{self.dtype} of shape {self.shape} on {self.device}>"

    dtype = property(lambda self: self._host.dtype)
    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    T = property(lambda self: ndarray(self._host.T))
    device = property(lambda self: Device())


def _index(key):
    for one in key if isinstance(key, tuple) else (key,):
        if isinstance(one, ndarray) and one.dtype == bool:
            raise HostReadError("a boolean index: the host would wait for the number of entries")
    return _bare(key)


def _bare(value):
    if isinstance(value, np.ndarray):
        raise TypeError("CuPy takes no arrays of NumPy")
    if isinstance(value, list | tuple):
        return type(value)(map(_bare, value))
    return value._host if isinstance(value, ndarray) else value


def _dressed(value):
    if isinstance(value, list | tuple):
        return type(value)(map(_dressed, value))
    return ndarray(value) if isinstance(value, np.ndarray | np.generic) else value


def _on_device(function):
    def call(*arguments, **named):
        named = {name: _bare(value) for name, value in named.items()}
        return _dressed(function(*map(_bare, arguments), **named))

    call.__name__ = getattr(function, "__name__", "")
    return call


def _refusal(name):
    def refuse(self, *_, **__):
        raise HostReadError(f"{name} of {self!r}")

    return refuse


for _name in OPERATORS:
    _function = getattr(operator, f"__{_name}__")
    setattr(ndarray, f"__{_name}__", _on_device(_function))
    setattr(ndarray, f"__r{_name}__", _on_device(lambda a, b, f=_function: f(b, a)))
for _name in UNARY + COMPARED:
    setattr(ndarray, f"__{_name}__", _on_device(getattr(operator, f"__{_name}__")))
for _name in REFUSED:
    setattr(ndarray, _name, _refusal(_name))


def asarray(value, dtype=None):
    """Make an array of what is on the device or, by a copy, of what is on the host."""
    if isinstance(value, ndarray):
        return value if dtype in (None, value.dtype) else value.astype(dtype)
    with np.errstate(over="ignore"):  # beyond the range of float16 is inf
        return ndarray(np.array(value, dtype))


def modules():
    """Return the modules by their names, for sys.modules."""
    made = {name: ModuleType(name) for name in ("cupy", "cupy.linalg", "cupy.fft", "cupy.cuda")}
    made["cupy.cuda.device"] = made["cupy.cuda"]
    for name, source in (("cupy", np), ("cupy.linalg", np.linalg), ("cupy.fft", np.fft)):
        for one in dir(source):
            value = getattr(source, one, None)
            if not one.startswith("_") and not isinstance(value, ModuleType):
                is_function = callable(value) and not isinstance(value, type)
                setattr(made[name], one, _on_device(value) if is_function else value)
    made["cupy.cuda"].Device = Device
    for name in ("linalg", "fft", "cuda"):
        setattr(made["cupy"], name, made[f"cupy.{name}"])
    made["cupy"].ndarray, made["cupy"].asarray = ndarray, asarray
    return made


def install(monkeypatch):
    """Let `import cupy` find it for as long as `monkeypatch` lasts."""
    for name in [*sys.modules]:
        if name == "array_api_compat.cupy" or name.startswith("array_api_compat.cupy."):
            monkeypatch.delitem(sys.modules, name)
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
