"""Compile every Triton kernel for three kinds of GPUs, and write what ptxas says of them to a page.

python docs/make_triton_table.py [--check]

Needs no GPU: torch and Triton are enough, and Triton brings ptxas and cuobjdump. The kernels are
compiled as the calls of a user would launch them. ``--check`` writes nothing; the exit code is 1 if
a kernel uses local memory, reads or writes contiguous logits in less than 128 bits at once, or if
the page says something else.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget

import softmaxkit
from softmaxkit.backends.torch import eager, rows

PAGE = Path(__file__).with_name("gpus.md")
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"
TARGETS = {80: "A100", 90: "H100, H200", 100: "B200"}
SHAPE = 64, 128256
DTYPES = torch.bfloat16, torch.float32


class Device:
    """A GPU that is not there, as Triton's driver."""

    def __init__(self, capability):
        self._capability, self._target = capability, GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        """Return what the kernels are compiled for."""
        return self._target

    def get_current_device(self):
        """Return the number by which Triton keeps compiled kernels."""
        return self._capability

    def get_current_stream(self, device):
        """Return a stream on which nothing runs."""
        return 0


def calls(dtype):
    """Yield what a user calls, and how: together, the calls launch every kernel in every form."""
    n, classes = SHAPE
    x = torch.zeros(SHAPE, dtype=dtype, requires_grad=True)
    labels = torch.zeros(n, dtype=torch.int64)
    mask, weight = torch.ones(classes, dtype=torch.bool), torch.ones(classes)
    every = {"weight": weight, "label_smoothing": 0.1, "ignore_index": -1, "z_loss": 0.1}
    every |= {"where": mask, "temperature": 2.0}
    yield "cross_entropy", lambda: softmaxkit.cross_entropy(x, labels)
    yield "cross_entropy, every option", lambda: softmaxkit.cross_entropy(x, labels, **every)
    hidden = torch.zeros((n, 16), dtype=dtype, requires_grad=True)
    matrix = torch.zeros((classes, 16), dtype=dtype)
    yield (
        "linear_cross_entropy, softcap",
        lambda: softmaxkit.linear_cross_entropy(hidden, matrix, labels, softcap=30.0),
    )
    yield "softmax", lambda: softmaxkit.softmax(x)
    yield "log_softmax", lambda: softmaxkit.log_softmax(x)


def compiled(capability):
    """Yield a call, a dtype, the name of a kernel, its constants, and the kernel for a GPU."""
    launched = []
    launch = triton.runtime.jit.JITFunction.run

    def only_compile(kernel, *arguments, grid, warmup, **options):
        found = launch(kernel, *arguments, grid=grid, warmup=True, **options)
        launched.append((kernel.fn.__name__, options, found))

    triton.runtime.driver.set_active(Device(capability))
    triton.runtime.jit.JITFunction.run = only_compile
    few, rows.FEW_ELEMENTS = rows.FEW_ELEMENTS, 0
    try:
        with eager.on_device("cpu"):
            for dtype in DTYPES:
                for name, call in calls(dtype):
                    launched.clear()
                    value = call()
                    torch.autograd.backward(value, torch.ones_like(value))
                    for kernel, options, found in launched:
                        yield name, dtype, kernel, options, found
    finally:
        triton.runtime.jit.JITFunction.run = launch
        rows.FEW_ELEMENTS = few


def resources(kernel):
    """Return registers, bytes of local and of shared memory, and the widths of loads and stores."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [cuobjdump, "-res-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {name: int(number) for name, number in re.findall(r"(\w+):(\d+)", printed)}
    local = used["STACK"] + used["LOCAL"]
    return used["REG"], local, kernel.metadata.shared, widths(kernel.asm["ptx"])


def widths(ptx):
    """Return in how many bits the kernel reads and writes what is as long as the logits.

    A number for each row is read 32 or 64 bits at once, the label's logit by itself.
    """
    found = re.findall(r"(ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)", ptx)
    widest = {
        way: max((int(many or 1) * int(bits) for one, many, bits in found if one == way), default=0)
        for way in ("ld", "st")
    }
    return widest["ld"], widest["st"]


def table():
    """Return the lines of the table, and what is wrong."""
    found = {}
    for capability in TARGETS:
        for name, dtype, kernel, options, one in compiled(capability):
            found.setdefault((name, dtype, kernel), []).append((options, *resources(one)))
    gpus = [f"sm_{capability} ({names})" for capability, names in TARGETS.items()]
    head = "call", "dtype", "kernel", "threads", *gpus
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    problems = []
    for (name, dtype, kernel), on_gpus in found.items():
        cells = [name, str(dtype).removeprefix("torch."), f"`{kernel}`"]
        cells.append(32 * on_gpus[0][0]["num_warps"])
        for _, registers, local, shared, (load, store) in on_gpus:
            width = f"{load} / {store}" if kernel != "statistics" else load
            cells.append(f"{registers}, {local} B, {shared} B, {width}")
            if local or load < 128 or (kernel != "statistics" and store < 128):
                problems.append(f"{name}, {dtype}, {kernel}: {cells[-1]}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines, problems


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    lines, problems = table()
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    made = before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after
    for one in problems:
        print(f"local memory, or less than 128 bits at once: {one}", file=sys.stderr)
    if options.check and made != page:
        print(f"{PAGE.name} is not what this script writes; run it.", file=sys.stderr)
        problems.append(PAGE.name)
    if not options.check:
        PAGE.write_text(made, encoding="utf-8")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
