"""The pictures of docs/EVIDENCE.md, from the same results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's: far apart for colour-blind eyes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DPI = 130


def _figure(count: int, width: float = 4.6, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def _tidy(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def curves(file: Path, panels: dict[str, dict[str, Any]], x: str, *, log: bool = False) -> None:
    """Corrupted and clean accuracy against something, a panel for each backbone, 95 % intervals shaded.

    Args:
        file: PNG to write.
        panels: title -> {"x": numbers, "rows": summaries in that order, "lines": label -> a summary to draw as a line}.
        x: label of the axis.
        log: logarithmic axis.
    """
    figure, all_axes = _figure(len(panels))
    for axes, (title, panel) in zip(all_axes, panels.items(), strict=True):
        for kind, colour in zip(("corrupted", "clean"), _COLOURS, strict=False):
            rows = [row[kind] for row in panel["rows"]]
            axes.plot(panel["x"], [100 * r["mean"] for r in rows], color=colour, marker="o", markersize=3.5, label=kind)
            low, high = ([100 * r[side] for r in rows] for side in ("low", "high"))
            axes.fill_between(panel["x"], low, high, color=colour, alpha=0.15, linewidth=0)
        for (label, row), style in zip(panel["lines"].items(), ("--", ":"), strict=False):
            axes.axhline(100 * row["corrupted"]["mean"], color=_COLOURS[0], linestyle=style, linewidth=1, label=label)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
        _tidy(axes, title, x, "top-1, %")
        axes.legend(fontsize=7.5, framealpha=0.9)
    figure.savefig(file, format="png")


def clouds(file: Path, panels: dict[str, dict[str, list[tuple[float, float]]]], columns: int, x: str) -> None:
    """Accuracy against size, a panel for each backbone and choice of layers.

    Args:
        file: PNG to write.
        panels: title -> family -> (size, percent), by size; "fp32" is drawn as a line, the others in the same colours
            everywhere.
        columns: panels in a row.
        x: label of the axis, logarithmic.
    """
    families = [f for f in dict.fromkeys(f for panel in panels.values() for f in panel) if f != "fp32"]
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, panel) in zip(figure.subplots(rows, columns, squeeze=False).flat, panels.items(), strict=True):
        axes.axhline(panel["fp32"][0][1], color="grey", linestyle="--", linewidth=1, label="float32")
        for family, colour in zip(families, _COLOURS, strict=True):
            sizes, values = zip(*panel[family], strict=True)
            axes.plot(sizes, values, color=colour, marker="o", markersize=3.5, linewidth=1, label=family)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        _tidy(axes, title, x, "top-1 on corrupted images, %")
        axes.legend(fontsize=7, framealpha=0.9)
    figure.savefig(file, format="png")


def profiles(file: Path, panels: dict[str, dict[str, Any]]) -> None:
    """Relative difference by layer, each curve scaled to its first layer, so that the shape is what is compared."""
    figure, all_axes = _figure(len(panels), 5.2)
    labels = dict.fromkeys(label for answer in panels.values() for label in answer["relative"])
    colours = dict(zip(labels, _COLOURS, strict=False))
    for axes, (title, answer) in zip(all_axes, panels.items(), strict=True):
        for label, values in answer["relative"].items():
            axes.plot(
                range(len(values)),
                [v / max(values) for v in values],
                color=colours[label],
                marker="o",
                markersize=3.5,
                label=label,
            )
        axes.set_xticks(range(len(answer["layers"])), answer["layers"], rotation=60, ha="right")
        axes.set_ylim(bottom=0)
        _tidy(axes, title, "", "relative difference, largest = 1")
        axes.legend(fontsize=7.5)
    figure.savefig(file, format="png")


# A row's name -> a column's name -> a number.
Matrix = Mapping[str, Mapping[str, float]]


def matrices(file: Path, panels: Mapping[str, Matrix], unit: str) -> None:
    """Numbers as coloured tables, blue below zero and red above."""
    figure, all_axes = _figure(len(panels), 6.2, 5.2)
    limit = max(abs(v) for m in panels.values() for row in m.values() for v in row.values()) or 1
    for axes, (title, matrix) in zip(all_axes, panels.items(), strict=True):
        columns = list(next(iter(matrix.values())))
        axes.imshow(
            [list(row.values()) for row in matrix.values()], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto"
        )
        for i, row in enumerate(matrix.values()):
            for j, value in enumerate(row.values()):
                colour = "white" if abs(value) > 0.6 * limit else "black"
                axes.text(
                    j,
                    i,
                    f"{value:.2f}" if limit <= 1 else f"{round(value):+d}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=colour,
                )
        axes.set_xticks(
            range(len(columns)), [c.replace("_", " ") for c in columns], rotation=45, ha="right", fontsize=8
        )
        axes.set_yticks(range(len(matrix)), [r.replace("_", " ") for r in matrix], fontsize=8)
        axes.set_title(f"{title}\n{unit}", fontsize=10)
    figure.savefig(file, format="png")
