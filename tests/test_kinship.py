"""The sketch of a model's clean weights: what it reads, and how well it tells kin from strangers."""

import base64
import math

import numpy as np
import old
import pytest
import torch
from builders import perturbed, tiny_resnet, tiny_vit

from rws_hub.codec import is_wide
from rws_hub.kinship import MIN_COMPARED, RUN, RUNS, Agreement, agreement, count_similarity, runs, sketch

LAYOUT = {"b.weight": (64, 48), "a.weight": (40, 8, 3, 3), "c.bias": (4096,), "d.weight": (5, 6), "e.pos": (1, 50, 96)}


def rows_of(weights):
    return lambda name, start, stop: weights[name][start:stop]


def of(model):
    """Layout, and how to read it, of the wide tensors of a model's body."""
    state = model.state_dict()
    wide = {n: tuple(t.shape) for n, t in state.items() if is_wide(tuple(t.shape)) and not n.startswith(("fc", "head"))}
    return wide, rows_of(state)


def test_places_are_spread_evenly_over_the_wide_tensors_whatever_order_they_come_in():
    chosen = runs(LAYOUT)
    assert chosen == runs(dict(reversed(LAYOUT.items()))) and len(chosen) == RUNS == len(set(chosen))
    total = sum(math.prod(s) // RUN for n, s in LAYOUT.items() if n in ("a.weight", "b.weight", "e.pos"))
    for name in ("a.weight", "b.weight", "e.pos"):
        share = math.prod(LAYOUT[name]) // RUN / total
        assert abs(sum(r.name == name for r in chosen) - RUNS * share) <= 1
    assert {r.name for r in chosen} == {"a.weight", "b.weight", "e.pos"}  # no vector, nothing below 32 elements
    assert all(r.start % RUN == 0 and r.start + RUN <= math.prod(r.shape) for r in chosen)


def test_a_small_tensor_is_sketched_whole():
    assert [r.start for r in runs({"w": (10, 10)})] == [0, 32, 64]
    assert runs({"w": (5, 6), "v": (4096,)}) == ()


def test_the_places_stay_what_they_were_when_published():
    starts = [(r.name, r.start) for r in runs(LAYOUT)]
    assert (starts[0], starts[31], starts[63]) == (("a.weight", 96), ("b.weight", 2368), ("e.pos", 4704))


def test_a_bit_is_the_sign_of_a_weight():
    weights = {n: torch.linspace(-1, 1, math.prod(s)).reshape(s) for n, s in LAYOUT.items()}
    bits = np.unpackbits(
        np.frombuffer(base64.b64decode(sketch(LAYOUT, rows_of(weights)).values), np.uint8), bitorder="little"
    )
    expected = [float(weights[r.name].reshape(-1)[r.start + i]) > 0 for r in runs(LAYOUT) for i in range(RUN)]
    assert bits.tolist() == expected


@pytest.mark.parametrize("build", [tiny_resnet, tiny_vit])
def test_kin_are_similar_and_strangers_are_not(build):
    layout, rows = of(build())
    stated = sketch(layout, rows)
    assert agreement(stated, layout, rows) == Agreement(RUN * RUNS, RUN * RUNS)
    assert agreement(stated, layout, rows).similarity == 1.0
    for kin in (perturbed(build(), 0.003, 9), build().bfloat16(), build().half()):
        assert agreement(stated, layout, of(kin)[1]).similarity > 0.9
    for seed in range(1, 6):
        assert abs(agreement(stated, layout, of(build(seed=seed))[1]).similarity) < 0.2


def test_the_estimate_is_the_cosine_of_normal_weights():
    generator = torch.Generator().manual_seed(0)
    layout = {"w": (1000, 1000)}
    ours, noise = (torch.randn(1000, 1000, generator=generator) for _ in range(2))
    stated = sketch(layout, rows_of({"w": ours}))
    for wanted in (-0.7, 0.0, 0.5, 0.9):
        theirs = wanted * ours + math.sqrt(1 - wanted**2) * noise
        assert agreement(stated, layout, rows_of({"w": theirs})).similarity == pytest.approx(wanted, abs=0.1)


def test_what_is_pruned_or_not_known_is_not_compared():
    layout, rows = of(tiny_resnet())
    stated = sketch(layout, rows)
    for gone in (0.0, torch.nan):
        weights = {n: t.clone() for n, t in tiny_resnet().state_dict().items() if n in layout}
        for tensor in weights.values():
            tensor[tensor.abs() < tensor.abs().median()] = gone
        found = agreement(stated, layout, rows_of(weights))
        assert found.agreeing == found.compared and 0.4 < found.compared / (RUN * RUNS) < 0.6
        assert found.similarity == 1.0


def test_of_too_few_places_nothing_is_said():
    assert Agreement(MIN_COMPARED - 1, MIN_COMPARED - 1).similarity is None
    assert Agreement(MIN_COMPARED, MIN_COMPARED).similarity == 1.0
    assert Agreement(0, 0).similarity is None


def test_the_sketch_of_older_formats_can_still_be_compared():
    layout, rows = of(tiny_resnet())
    stated = old.sketch(layout, tiny_resnet().state_dict())
    assert count_similarity(stated, layout, rows) == pytest.approx(1.0, abs=1e-9)
    assert count_similarity(stated, layout, of(perturbed(tiny_resnet(), 0.003, 9))[1]) > 0.9
    assert abs(count_similarity(stated, layout, of(tiny_resnet(seed=1))[1])) < 0.25
    assert count_similarity(stated, {"bias": (8,)}, rows) is None
