"""The sizes of arrays that backends treat differently, reached with small arrays.

Library -> size class -> the limits that put every array in it, as "module.CONSTANT" of
softmaxkit.backends; `...` stands for the size of a block.
"""

BLOCKS = {
    "numpy.blocks.BLOCK_ELEMENTS": ...,
    "numpy.blocks.SMALL_ELEMENTS": 0,
    "numpy.blocks.PART_CLASSES": 2,
}
SHARED = BLOCKS | {"numpy.blocks.SHARED_ELEMENTS": 0, "numpy.blocks.BUFFER_ELEMENTS": 16}
TORCH = {
    "torch.memory.BLOCK_ELEMENTS": ...,
    "torch.blocks.SHORT_ELEMENTS": 0,
    "torch.memory.FRESH_BYTES": 0,
    "torch.rows.FEW_ELEMENTS": 0,
}
NUMPY = {
    "one thread": BLOCKS,
    "few classes": SHARED,
    # Blocks of many classes and few columns, turned to rows.
    "turned over": SHARED | {"numpy.blocks.FEW": 3},
    # Blocks of many classes, each of many columns.
    "columns": SHARED | {"numpy.blocks.FEW": 1},
}
SIZE_CLASSES = {
    "numpy": NUMPY,
    "torch": {
        "blocks": TORCH,
        # Few classes too by torch's own softmax.
        "blocks of many classes": TORCH | {"torch.blocks.SHORT_ROW": 1},
    },
    # Eager calls are NumPy's, up to a size.
    "tensorflow": NUMPY
    | {
        "fused": {
            "tensorflow.rows.FUSED_ELEMENTS": 0,
            "tensorflow.rows.FUSED_EAGER_ELEMENTS": 0,
            "tensorflow.rows.FUSED_FROM_CLASSES": 1,
        },
    },
}


def put_in(size_class, library, block, monkeypatch):
    """Put arrays in a size class, in blocks of so many numbers; None is the class of small ones."""
    for constant, value in SIZE_CLASSES.get(library, {}).get(size_class, {}).items():
        value = block if value is ... else value
        monkeypatch.setattr(f"softmaxkit.backends.{constant}", value)
    monkeypatch.setattr("softmaxkit.backends.numpy.pool._count", 2)
