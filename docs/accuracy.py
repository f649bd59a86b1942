"""Draw the largest errors that the conformance suite finds, in float32 and eagerly.

python docs/accuracy.py        # needs every library that is to be in it, and matplotlib
"""

from pathlib import Path

from matplotlib.figure import Figure

from softmaxkit import _palette, conformance

PICTURE = Path(__file__).resolve().parent / "pictures" / "accuracy.png"
LIBRARIES = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}
LOOKS = [
    (_palette.BLUE, "o"), (_palette.VERMILLION, "s"), (_palette.GREEN, "^"), (_palette.PURPLE, "D"),
]  # fmt: skip


def largest(adapter, operation):
    """Return the largest error of value and gradient, in ordinary and in saturated rows."""
    results = [
        result
        for case in conformance.cases()
        if case.operation == operation and not adapter.transforms["eager"].lacks(case)
        for result in conformance.run_case(adapter, case, "float32", "eager")
    ]
    return {
        (what, saturated): max(
            (r.ulp for r in results if r.what == what and r.case.saturated is saturated),
            default=None,
        )
        for what in ("value", "gradient")
        for saturated in (False, True)
    }


def main():
    """Run the suite, and draw a column for the value and one for the gradient."""
    figure = Figure(figsize=(9.8, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    places = {name: i for i, name in enumerate(reversed(conformance.OPERATIONS))}
    adapters = {name: conformance.load(name) for name in LIBRARIES}
    for i, (name, (colour, marker)) in enumerate(zip(LIBRARIES, LOOKS, strict=True)):
        print(name, flush=True)
        for operation, place in places.items():
            for (what, saturated), error in largest(adapters[name], operation).items():
                if error is not None:
                    panels[int(what == "gradient")].plot(
                        max(error, 0.1), place + 0.27 - 0.18 * i, marker, color=colour,
                        fillstyle="none" if saturated else "full", markersize=6,
                    )  # fmt: skip
    for panel, title in zip(panels, ("value", "gradient"), strict=True):
        panel.set_title(title)
        panel.set(xscale="log", xlabel="largest error, ULP of float32 (0.1: or less)")
        panel.set_yticks(list(places.values()), list(places))
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for name, (colour, marker) in zip(LIBRARIES.values(), LOOKS, strict=True):
        panels[1].plot([], [], marker, color=colour, label=name)
    panels[1].plot([], [], "o", color=_palette.GREY, fillstyle="none", label="one class dominates")
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    main()
