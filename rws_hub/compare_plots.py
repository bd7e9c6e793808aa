"""A comparison as two pictures: the matrix of cosines, and the profile of every signature."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rws_hub.show import printable

if TYPE_CHECKING:
    from rws_hub.comparison import Comparison

# Blue and vermilion: far apart for colour-blind eyes, and in grey too.
_ALIKE, _OPPOSED, _NONE, _INK = "#0072B2", "#D55E00", "#E4E4E4", "#222222"
_PALE = "#B3D4E8"
_COLOURS = LinearSegmentedColormap.from_list("cosine", [_OPPOSED, "#FFFFFF", _ALIKE])
_DPI = 150
_MOST_PANELS_IN_A_ROW = 5


def cosine_png(comparison: Comparison) -> bytes:
    """The matrix of overall cosines as a PNG; a grey field is a cosine that does not exist."""
    labels, overall = [printable(label) for label in comparison.labels], comparison.overall
    count = len(labels)
    cell = 0.9 if count < 6 else 0.5
    names = 0.085 * max(map(len, labels)) + 0.3
    figure = _figure(max(names + cell * count + 0.9, 4.8), cell * count + 0.65 * names + 0.9)
    axes = figure.add_subplot()
    values = [[math.nan if c is None else c for c in row] for row in overall.cosine]
    axes.set_facecolor(_NONE)
    image = axes.imshow(values, cmap=_COLOURS, vmin=-1, vmax=1)
    for i, row in enumerate(overall.cosine):
        for j, cosine in enumerate(row):
            text = "-" if cosine is None else f"{cosine:.2f}".replace("-0.00", "0.00")
            colour = "white" if abs(cosine or 0) > 0.7 else _INK
            axes.text(j, i, text, ha="center", va="center", fontsize=11 if count < 6 else 8, color=colour)
    axes.set_xticks(range(count), labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=9, parse_math=False)
    axes.set_yticks(range(count), labels, fontsize=9, parse_math=False)
    axes.set_xticks([i - 0.5 for i in range(1, count)], minor=True)
    axes.set_yticks([i - 0.5 for i in range(1, count)], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    shared = f"{overall.tensors:,} tensors, {overall.parameters:,} parameters that all of them change"
    _title(figure, "Cosine similarity of the signatures", shared)
    return _png(figure)


def profile_png(comparison: Comparison) -> bytes:
    """The relative difference of every layer as a PNG, one panel a signature, all on one scale."""
    count, layers = len(comparison.labels), comparison.layers
    columns = min(count, _MOST_PANELS_IN_A_ROW)
    rows = -(-count // columns)
    names = 0.075 * max(len(layer.label) for layer in layers)
    width = 2.6 if count <= 3 else 1.9
    height = max(0.17 * len(layers), 1.0) + 0.35
    figure = _figure(max(names + width * columns + 0.4, 5.0), height * rows + 1.2)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for j, axes in enumerate(panels):
        if j < count:
            _profile(axes, comparison, j)
        else:
            axes.set_visible(False)
        if columns * (rows - 1) > j >= count - columns:  # nothing below it
            axes.tick_params(axis="x", labelbottom=True)
    patches = [Patch(color=_ALIKE, label="in the signature"), Patch(color=_PALE, label="left out")]
    figure.legend(handles=patches, loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    _title(
        figure,
        "How much each layer changed",
        "Norm of robust minus clean weights, in % of the norm of the clean ones; layers in execution order",
    )
    return _png(figure)


def _profile(axes: Axes, comparison: Comparison, j: int) -> None:
    """One panel: a bar a layer, the first one on top."""
    layers = comparison.layers
    lengths = [100 * (layer.relative_difference[j] or 0.0) for layer in layers]
    colours = [_ALIKE if layer.touched[j] else _PALE for layer in layers]
    axes.barh(range(len(layers)), lengths, height=0.75, color=colours)
    axes.set_yticks(range(len(layers)), [printable(layer.label) for layer in layers], fontsize=7, parse_math=False)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_title(printable(comparison.labels[j]), fontsize=9, loc="left", pad=3, parse_math=False)
    axes.tick_params(length=0, labelsize=7)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color("#999999")


def _figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, title: str, subtitle: str) -> None:
    # The line below the title is kept free for what stands there in a type of its own.
    figure.suptitle(f"{title}\n", fontsize=12, x=0.02, ha="left")
    figure.text(0.02, 1 - 0.42 / figure.get_figheight(), subtitle, fontsize=8.5, color="#555555", va="center")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
