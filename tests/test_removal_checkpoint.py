"""The way back through a checkpoint: refused if it is another one, or another by now."""

import pytest
import torch
from bits import bits, changed
from builders import tiny_resnet
from safetensors.torch import load_file, save_file
from test_removal import _nothing_is_small, fog, ready

from rws_hub import CheckpointError, IncompatibleModelError, PatchStateError, patch

__all__ = ["_nothing_is_small", "fog"]  # fixtures


def test_another_checkpoint_is_refused(fog, tmp_path):
    model, how = ready("reload", torch.float32, tmp_path)
    clean = bits(model)
    with torch.no_grad():
        model.layer1[0].conv2.weight[0, 0, 0, 0] += 1
    before = bits(model)
    with pytest.raises(PatchStateError, match=r"layer1.0.conv2.weight: the model does not hold what model.safetensors"):
        patch(model, fog, **how)
    assert changed(before, model) == set()
    with torch.no_grad():
        model.layer1[0].conv2.weight.copy_(load_file(how["checkpoint"])["layer1.0.conv2.weight"])
    patch(model, fog, **how).unpatch()
    assert changed(clean, model) == set()


def test_a_checkpoint_that_changes_or_goes_meanwhile_is_refused(fog, tmp_path):
    model, how = ready("reload", torch.float32, tmp_path)
    clean, content = bits(model), how["checkpoint"].read_bytes()
    p = patch(model, fog, **how)
    patched = bits(model)
    save_file(tiny_resnet(seed=7).state_dict(), how["checkpoint"])
    for force in (False, True):
        with pytest.raises(PatchStateError, match=r"model.safetensors is not what it was .* Put the file back"):
            p.unpatch(force=force)
        assert changed(patched, model) == set()
    how["checkpoint"].unlink()
    with pytest.raises(PatchStateError, match="cannot be read from"):
        p.unpatch()
    assert changed(patched, model) == set() and p.active
    how["checkpoint"].write_bytes(content)
    p.unpatch()
    assert changed(clean, model) == set()


def test_a_checkpoint_in_another_precision(fog, tmp_path):
    """Loading rounded its values; so does reloading."""
    save_file(tiny_resnet().state_dict(), tmp_path / "model.safetensors")
    model = tiny_resnet().bfloat16()
    clean = bits(model)
    p = patch(model, fog, checkpoint=tmp_path / "model.safetensors")
    assert changed(clean, model) and p.kept_bytes < 2000
    p.unpatch()
    assert changed(clean, model) == set()


def test_a_checkpoint_must_be_one_and_fit(fog, tmp_path):
    model = tiny_resnet()
    with pytest.raises(CheckpointError, match="no such file"):
        patch(model, fog, checkpoint=tmp_path / "nothing.safetensors")
    save_file({"w": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        IncompatibleModelError, match=r"checkpoint=.*other.safetensors' is not of the backbone that 'fog'"
    ):
        patch(model, fog, checkpoint=tmp_path / "other.safetensors")
