"""Copying weights between twins through the name tables."""

import torch
from torch import nn

from rws_hub.cells import WORDS, Cell, Slice
from rws_hub.names import Layout
from rws_hub.recognise import recognise
from rws_hub.resolve import match
from rws_hub.sources import canonical_weights, live_tensors, open_weights


def layout(model: nn.Module) -> Layout:
    """Names and shapes of everything that a table speaks of."""
    tensors = live_tensors(model)
    return {n: tuple(t.shape) for n, t in tensors.items() if t.is_floating_point() and t.numel()}


def cut(tensor: torch.Tensor, part: Slice | None) -> torch.Tensor:
    """The part of a tensor that a piece means."""
    return tensor if part is None else tensor.narrow(part.axis, part.start, part.stop - part.start)


@torch.no_grad()
def copy_body(source: nn.Module, target: nn.Module) -> set[str]:
    """Write every body weight of one model into its twin; returns the target's names that were not written whole."""
    weights = canonical_weights(open_weights(source, "source"))
    found = weights.recognition
    places = [m for m in match(found.table, found.body, found.body, layout(target)) if m.fits]
    assert len(places) == 1, (
        f"{type(target).__name__}: {len(places)} places for {found.family}; has a release renamed it?"
    )
    (place,) = places
    tensors = live_tensors(target)
    written = dict.fromkeys(layout(target), 0)
    for name in place.body:
        tensors[name].zero_()  # what holds nothing of the source must add nothing
    for piece in place.pieces:
        shape = found.body[piece.canonical]
        home = cut(tensors[piece.model], piece.model_part)
        home.copy_(cut(weights.rows(piece.canonical, 0, shape[0] if shape else 1), piece.part).reshape(home.shape))
        written[piece.model] += home.numel()
    assert {p.canonical for p in place.pieces} == set(found.body), "a tensor of the source went nowhere"
    assert all(count <= tensors[n].numel() for n, count in written.items()), "an element was written twice"
    return {n for n, count in written.items() if count < tensors[n].numel()}


@torch.no_grad()
def copy_head(source: nn.Module, target: nn.Module) -> set[str]:
    """The same for the classification heads, by the table's head rows; returns the names that were written."""
    ours, theirs = (recognise(layout(m))[0] for m in (source, target))
    written = set()
    for row in (r for r in ours.table.rows if not r.is_body):
        for word in WORDS["wb"]:
            names = [_spelled(row.cells[r.dialect], r.prefix, word) for r in (ours, theirs)]
            if names[0] in layout(source) and names[1] in layout(target):
                live_tensors(target)[names[1]].copy_(live_tensors(source)[names[0]])
                written.add(names[1])
    return written


def _spelled(cell: Cell | None, prefix: str, word: str) -> str | None:
    parent = prefix[: prefix[:-1].rfind(".") + 1]
    return None if cell is None else (parent if cell.in_parent else prefix) + cell.format({"wb": word})
