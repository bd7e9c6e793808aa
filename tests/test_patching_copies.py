"""Wrappers, copies and saved states of a patched model, and models that are dropped."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from bits import bits, changed
from builders import tiny_resnet
from test_patching_state import fog, model, noise
from torch import nn

from rws_hub import PatchStateError, active_patches, patch
from rws_hub.anchors import _anchors
from rws_hub.handle import _handles

__all__ = ["fog", "model", "noise"]  # fixtures


class Wrapper(nn.Module):
    """Names every tensor `module.*`, as data-parallel wrappers do."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize("wrap", [Wrapper, nn.DataParallel, torch.compile])
def test_a_wrapper_and_the_bare_model_share_one_state(wrap, model, fog, noise):
    clean, wrapper = bits(model), wrap(model)
    outer, inner = patch(wrapper, fog), patch(model, noise)
    assert active_patches(wrapper) == active_patches(model) == (outer, inner)
    both = tiny_resnet()
    patch(both, noise, fog)
    assert bits(model) == bits(both)
    with pytest.raises(PatchStateError, match="carries this very signature"):
        patch(wrapper, noise)
    outer.unpatch()
    inner.unpatch()
    assert changed(clean, model) == set()


def test_a_wrapper_that_is_dropped_does_not_take_the_way_back_with_it(model, fog, noise):
    clean = bits(model)
    with patch(Wrapper(model), fog, alpha=0.5) as p:
        gc.collect()
        assert changed(clean, model) == set(fog.names)
        p.set_alpha(fog=1)
        with pytest.raises(PatchStateError, match="does not exist any more"):
            p.add(noise)
    assert changed(clean, model) == set()


def pickled(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_of_a_patched_model_is_a_plain_model_with_those_weights(duplicate, model, fog):
    p = patch(model, fog)
    twin = duplicate(model)
    patched = bits(model)
    assert bits(twin) == patched and active_patches(twin) == ()
    p.unpatch()
    assert bits(twin) == patched
    with patch(twin, fog):
        assert changed(patched, twin) == set(fog.names)
    assert bits(twin) == patched


def test_a_state_dict_saved_while_patched_holds_the_patched_values(model, fog):
    with patch(model, fog):
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        patched = bits(model)
    buffer.seek(0)
    other = tiny_resnet(seed=3)
    other.load_state_dict(torch.load(buffer))
    assert bits(other) == patched


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_handle_cannot_be_copied(duplicate, model, fog):
    with patch(model, fog) as p, pytest.raises(TypeError, match="belongs to one live model"):
        duplicate(p)


def test_a_dropped_model_is_freed_even_while_a_handle_exists(fog):
    gc.collect()
    anchors, handles = len(_anchors), len(_handles)
    model = tiny_resnet()
    gone, p = weakref.ref(model), patch(model, fog)
    assert len(_handles) > handles and len(_anchors) > anchors
    del model
    gc.collect()
    assert gone() is None and len(_handles) == handles and len(_anchors) == anchors
    for action in (p.unpatch, lambda: p.set_alpha(fog=1), lambda: p.remove("fog"), lambda: p.add(fog, name="x")):
        with pytest.raises(PatchStateError, match="does not exist any more"):
            action()


def test_a_model_without_a_patch_is_not_remembered(model, fog):
    gc.collect()
    anchors, handles = len(_anchors), len(_handles)
    patch(model, fog).unpatch()
    assert (len(_anchors), len(_handles)) == (anchors, handles)
