"""Plots as SVG, the same bytes for the same results."""

import io
from collections.abc import Callable
from typing import Any


def svg(name: str, size: tuple[float, float], draw: Callable[[Any, Any], None]) -> bytes:
    """What draw(figure, axes) puts on axes of matplotlib; size in inches."""
    import matplotlib

    # Text stays text and identifiers come from the name: fonts and chance would change the bytes.
    options: dict[Any, Any] = {"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif",
                               "font.size": 8}
    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.style.context("default"), pyplot.rc_context(options):
        figure, axes = pyplot.subplots(figsize=size)
        draw(figure, axes)
        axes.spines[["top", "right"]].set_visible(False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return out.getvalue()
