"""Cross-entropy and its gradient, on Dask, of logits that are never in memory all at once.

    python examples/dask_out_of_core.py 20     # GiB of logits in float32; by default 0.125

Chunks are some of the rows and some of the classes. Here they are drawn from a seed; `da.from_zarr`
or `da.from_array` of a memory map would read them. A gradient as large as the logits is reduced
while it is made: to its norm, and to the gradient of a bias.
"""

import resource
import sys
from math import log
from time import perf_counter

import dask
import dask.array as da
from dask.diagnostics import ProgressBar

import softmaxkit

CLASSES = 1 << 17
CHUNKS = (128, 1 << 15)  # 16 MiB
size = float(sys.argv[1]) if len(sys.argv) > 1 else 0.125
rows = int(size * 2**30) // (4 * CLASSES)

rng = da.random.default_rng(0)
logits = rng.standard_normal((rows, CLASSES), chunks=CHUNKS, dtype="float32")
labels = rng.integers(0, CLASSES, size=rows, chunks=CHUNKS[0])

start = perf_counter()
loss, gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)(logits, labels)
norm, of_bias = da.sqrt((gradient**2).sum()), gradient.sum(0)
built = perf_counter() - start
with ProgressBar(out=sys.stderr):
    loss, norm, of_bias = dask.compute(loss, norm, of_bias)
seconds = perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
    1 if sys.platform == "darwin" else 1024
)

print(f"{rows} rows of {CLASSES} classes: {size:g} GiB in {logits.npartitions} chunks")
print(f"graph in {built:.2f} s, results in {seconds:.1f} s, peak memory {peak / 2**20:.0f} MiB\n")
print("                              computed  expected")
print(f"loss                          {loss:8.4f}  {log(CLASSES) + 0.5:8.4f}")  # of normal logits
print(f"norm of the gradient          {norm:8.5f}  {rows**-0.5:8.5f}")  # one class in each row
print(f"sum of the bias's gradient    {abs(of_bias.sum()):8.5f}  {0:8.5f}")
