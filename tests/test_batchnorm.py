"""Batch-norm statistics on images without labels: the numbers, the way back, and how it gets on with a patch."""

import copy
from collections.abc import Iterator

import pytest
import torch
from bits import bits, changed
from builders import tiny_resnet, tiny_signature, tiny_vit
from torch import Tensor, nn

from rws_hub import PatchStateError, patch, reestimate_batchnorm


def batches(seed: int = 0, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 3, 32, 32, generator=generator) * 2 + 1 for _ in range(count)]


def norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def independently(model: nn.Module, images: list[Tensor]) -> dict[str, Tensor]:
    """The mean over batches of the statistics of what enters each norm, every norm normalising by its own batch."""
    found: dict[str, list[Tensor]] = {}
    twin = copy.deepcopy(model).train()
    for name, norm in norms(twin).items():

        def note(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            flat = inputs[0].transpose(0, 1).flatten(1).double()
            found.setdefault(f"{name}.running_mean", []).append(flat.mean(1))
            found.setdefault(f"{name}.running_var", []).append(flat.var(1, unbiased=True))

        norm.register_forward_pre_hook(note)
    with torch.no_grad():
        for batch in images:
            twin(batch)
    return {name: torch.stack(rows).mean(0).float() for name, rows in found.items()}


def test_the_numbers() -> None:
    model, images = tiny_resnet(), batches()
    expected = independently(model, images)
    estimate = reestimate_batchnorm(model, iter(images))
    assert set(estimate.names) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(model.get_buffer(name), value, rtol=1e-4, atol=1e-5)


def test_bit_for_bit_back() -> None:
    model = tiny_resnet()
    model.get_buffer("bn1.running_mean")[:3] = torch.tensor([-0.0, 1e-42, 3.0])
    before = bits(model)
    estimate = reestimate_batchnorm(model, batches())
    touched = changed(before, model)
    assert touched == set(estimate.names) and len(touched) == 2 * len(norms(model))
    estimate.remove()
    assert bits(model) == before
    estimate.remove()  # once more does nothing
    assert bits(model) == before and estimate.names == ()


@pytest.mark.parametrize("training", [True, False])
def test_nothing_else_is_moved(training: bool) -> None:
    model = tiny_resnet().train(training)
    model.layer1.eval()  # type: ignore[operator]
    model.bn1.momentum, model.bn1.num_batches_tracked = 0.25, torch.tensor(7)  # type: ignore[assignment]
    count, modes = model.bn1.num_batches_tracked, [m.training for m in model.modules()]
    with reestimate_batchnorm(model, batches()):
        assert [m.training for m in model.modules()] == modes
        assert model.bn1.momentum == 0.25 and model.bn1.num_batches_tracked is count and int(count) == 7
        assert all(p.grad is None for p in model.parameters())
    assert [m.training for m in model.modules()] == modes


def test_dropout_does_not_drop() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3))
    images = batches(count=1)
    reestimate_batchnorm(model, images)
    torch.testing.assert_close(model[1].running_mean, images[0].mean((0, 2, 3)))


def test_an_error_on_the_way_leaves_no_trace() -> None:
    def failing() -> Iterator[Tensor]:
        yield from batches(count=2)
        raise RuntimeError("the disk is gone")

    model = tiny_resnet().train()
    before = bits(model)
    for images, message in [(failing(), "disk"), ([], "no image"), ([torch.zeros(2, 4, 32, 32)], "channels")]:
        with pytest.raises((RuntimeError, ValueError), match=message):
            reestimate_batchnorm(model, images)
        assert bits(model) == before and model.bn1.momentum == 0.1 and model.training


def test_an_error_inside_the_block_takes_it_off() -> None:
    model = tiny_resnet()
    before = bits(model)
    with pytest.raises(KeyError), reestimate_batchnorm(model, batches()):
        raise KeyError("of the caller")
    assert bits(model) == before


def test_statistics_that_were_changed_since_are_not_overwritten() -> None:
    model = tiny_resnet()
    estimate = reestimate_batchnorm(model, batches())
    model.train()(batches(1)[0])
    now = bits(model)
    with pytest.raises(PatchStateError, match=r"bn1\.running_mean has changed since it was re-estimated"):
        estimate.remove()
    assert bits(model) == now


def test_images_that_are_not_numbers() -> None:
    model = tiny_resnet()
    before = bits(model)
    one_of_them = torch.zeros(4, 3, 32, 32)
    one_of_them[2, 1, 5, 5] = torch.nan
    for images in ([torch.full((4, 3, 32, 32), torch.nan)], [*batches(), one_of_them]):
        with pytest.raises(ValueError, match=r"bn1\.running_mean is not finite on these images"):
            reestimate_batchnorm(model, images)
        assert bits(model) == before


def test_without_batch_norm() -> None:
    model = tiny_vit()
    before = bits(model)
    with reestimate_batchnorm(model, iter(())) as estimate:
        assert estimate.names == () and bits(model) == before
    untracked = nn.BatchNorm2d(3, track_running_stats=False)
    assert reestimate_batchnorm(untracked, batches()).names == ()


def test_on_top_of_a_patch() -> None:
    model, fog = tiny_resnet(), tiny_signature(layers=["*"])
    before = bits(model)
    handle = patch(model, fog)
    patched = bits(model)
    estimate = reestimate_batchnorm(model, batches())
    with pytest.raises(PatchStateError, match="changed while it was patched"):
        handle.unpatch()
    estimate.remove()
    assert bits(model) == patched
    handle.unpatch()
    assert bits(model) == before


def test_below_a_patch() -> None:
    model, fog = tiny_resnet(), tiny_signature(layers=["*"])
    before = bits(model)
    estimate = reestimate_batchnorm(model, batches())
    handle = patch(model, fog)
    with pytest.raises(PatchStateError, match="take off what was added later first"):
        estimate.remove()
    handle.unpatch()
    estimate.remove()
    assert bits(model) == before
