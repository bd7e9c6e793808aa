"""A comparison in the terminal, at any width; colours show the pattern, and the numbers say the same without them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rws_hub.show import printable

if TYPE_CHECKING:
    from rws_hub.comparison import Comparison, Identification, LayerComparison

# Longer names of signatures and layers go on in the next line.
_WIDEST_NAME = 20
# Widths of a cosine ("-0.12") and of a percentage ("12.3"), without the blank behind, and of a bar.
_COSINE, _PERCENT = 5, 4
_WIDEST_BAR = 17
_EIGHTHS = " ▏▎▍▌▋▊▉█"
# From which cosine on it is set in, and then stands on, blue (alike) or vermilion (opposed).
_SHADES = {
    0.25: ("#2B87C3", "#D55E00"),
    0.5: ("#000000 on #6DB4E0", "#000000 on #F0955C"),
    0.75: ("bold #FFFFFF on #0072B2", "bold #FFFFFF on #B84D00"),
}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the matrix of cosines and the profile of the layers, in as many blocks as the width asks for."""
    overall, labels = comparison.overall, [printable(label) for label in comparison.labels]
    everybody = "both signatures" if len(labels) == 2 else f"all {len(labels)} signatures"
    console.print(Text(f"Cosines over what {everybody} change: {_shared(overall.tensors, overall.parameters)}\n"))
    _print_matrix(overall.cosine, labels, console)
    means = "their cosine" if len(labels) == 2 else "mean cosine of all pairs"
    console.print(Text(f"How far each layer moved, % of its size; {means} there\n"))
    _print_profile(comparison.layers, labels, console)


def print_identification(found: Identification, source: str, console: Console) -> None:
    """Print whose twin the signature `source` is, in words, and the whole ranking."""
    nearest, rival = found.ranking[0], found.rival
    if nearest.cosine is None:
        said = "every reference is zero in what all of them touch, so none is nearer than another."
    elif rival is None or rival.cosine is None or found.margin is None:
        said = f"nearest to {nearest.label} (cosine {nearest.cosine:.2f}); there is no reference of another corruption."
    else:
        said = (
            f"nearest to {nearest.label} (cosine {nearest.cosine:.2f}), {found.margin:.2f} ahead of {rival.label} "
            f"({rival.cosine:.2f}), the next of another corruption."
        )
    console.print(Text(f"{source}: {said} Compared over {_shared(found.tensors, found.parameters)}."))
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for place, match in enumerate(found.ranking, 1):
        table.add_row(f"{place:>3}.", Text(printable(match.label)), _shaded(match.cosine))
    console.print(table)


def _print_matrix(cosines: Sequence[Sequence[float | None]], labels: Sequence[str], console: Console) -> None:
    number = len(str(len(labels)))
    room = console.width - number - 1 - _width("signature", labels)
    for columns in _blocks(len(labels), room // (1 + _COSINE)):
        table = _table(["", "signature"], _heads(labels, columns, _COSINE, _COSINE))
        for i, (label, row) in enumerate(zip(labels, cosines, strict=True)):
            table.add_row(str(i + 1).rjust(number), Text(label), *(_shaded(row[j]) for j in columns))
        console.print(table)
        console.print()


def _print_profile(layers: Sequence[LayerComparison], labels: Sequence[str], console: Console) -> None:
    names = [printable(layer.label) for layer in layers]
    room = console.width - _width("layer", names) - 1 - len("cosine")
    least = 0 if console.options.ascii_only else 1  # an old code page has no bars
    blocks = _blocks(len(labels), room // (1 + _PERCENT + least))
    bar = least and max(1, min(_WIDEST_BAR, room // max(map(len, blocks)) - 1 - _PERCENT))
    longest = max((d for layer in layers for d in layer.relative_difference if d is not None), default=0.0)
    for columns in blocks:
        table = _table(["layer", "cosine"], _heads(labels, columns, _PERCENT, _PERCENT + bar))
        for name, layer in zip(names, layers, strict=True):
            mean = _shaded(layer.similarity.mean if layer.similarity else None)
            table.add_row(Text(name), mean, *(_percent(layer.relative_difference[j], longest, bar) for j in columns))
        console.print(table)
        console.print()


def _table(names: Sequence[str], heads: Sequence[str]) -> Table:
    """A table without a frame; the columns below `heads` are as wide as those are."""
    # The box puts one blank between the columns, which is all that there is room for.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for name in names:
        table.add_column(name, overflow="fold", max_width=_WIDEST_NAME)
    for head in heads:
        table.add_column(Text(head), min_width=len(head), no_wrap=True)
    return table


def _heads(labels: Sequence[str], columns: range, number: int, width: int) -> list[str]:
    """What stands above columns of this width, flush with the numbers below: labels, or else places."""
    fits = max(map(len, labels)) <= width
    return [(labels[j] if fits else str(j + 1)).rjust(number).ljust(width) for j in columns]


def _blocks(count: int, fit: int) -> list[range]:
    """Runs of columns, as few as there can be with at most `fit` in each, and about equally long."""
    blocks = -(-count // max(1, fit))
    ends = [count * i // blocks for i in range(blocks + 1)]
    return [range(start, end) for start, end in itertools.pairwise(ends)]


def _width(head: str, names: Sequence[str]) -> int:
    return min(_WIDEST_NAME, max(map(len, [head, *names])))


def _shaded(cosine: float | None) -> Text:
    """Two decimals in their colours; "-" for a cosine that does not exist."""
    if cosine is None:
        return Text("-".rjust(_COSINE))
    text = Text(f"{cosine:.2f}".replace("-0.00", "0.00").rjust(_COSINE))
    for least, (alike, opposed) in _SHADES.items():
        if abs(cosine) >= least:
            text.style = alike if cosine > 0 else opposed
    return text


def _percent(value: float | None, longest: float, bar: int) -> Text:
    """A relative difference in percent, then, in `bar` characters, as a share of the longest."""
    if value is None:
        return Text("-".rjust(_PERCENT))
    percent = 100 * value
    digits = 2 if percent < 9.995 else 1 if percent < 99.95 else 0
    gap, width = (" ", bar - 1) if bar > 1 else ("", bar)
    eighths = round(8 * width * value / longest) if longest else 0
    drawn = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return Text(f"{percent:.{digits}f}".rjust(_PERCENT) + gap + drawn)


def _shared(tensors: int, parameters: int) -> str:
    return f"{_count(tensors, 'tensor')}, {_count(parameters, 'parameter')}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
