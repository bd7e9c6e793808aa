"""Every table against both libraries: equal weights give equal outputs, and so does one signature patched on both.

Small seeded models in float64, so that a difference means a wrong row and not a rounding.
"""

import re

import pytest
import torch
from builders import perturbed
from torch import nn
from twin_weights import copy_body, copy_head, layout
from twins import TWINS, Twin, images, output, refill

from rws_hub import RobustWeightSignature, patch, plan_patch
from rws_hub.apply import apply_to_checkpoint
from rws_hub.names import Layout
from rws_hub.recognise import recognise
from rws_hub.resolve import match

COVERED = [t for t in TWINS if t.table]
BOTH_WAYS = pytest.mark.parametrize("back", [False, True], ids=["a-to-b", "b-to-a"])
each = pytest.mark.parametrize("twin", COVERED, ids=lambda t: t.name)


def pair(twin: Twin, back: bool) -> tuple[nn.Module, nn.Module]:
    """The twin's two sides in double precision with unrelated weights, source first."""
    models = [twin.a().double(), twin.b().double()]
    for seed, model in enumerate(models):
        refill(model, seed)
    return (models[1], models[0]) if back else (models[0], models[1])


def is_outside(name: str) -> bool:
    """What no signature speaks of: a text tower, a random pooler, the token of masked pretraining."""
    return name.startswith("text_") or "mask_token" in name or name in {"logit_scale", "visual_projection.weight"}


@each
@BOTH_WAYS
def test_equal_weights_give_equal_outputs(twin, back):
    source, target = pair(twin, back)
    picture = images(twin, 0)
    assert (output(source, picture) - output(target, picture)).abs().max() > 1e-3, "the test could not fail"
    left = copy_body(source, target)
    left -= copy_head(source, target)
    difference = float((output(source, picture) - output(target, picture)).abs().max())
    print(f"{twin.name}: {difference:.1e}")
    assert difference <= twin.tolerance
    if twin.name.startswith("dinov2-reg") and not back:
        left.remove("embeddings.position_embeddings")  # its entry for the class token is in timm's class token
    assert {n for n in left if not is_outside(n)} == set()


def signature_of(model: nn.Module) -> RobustWeightSignature:
    """A signature that touches every tensor of the body."""
    twin = perturbed(model, 0.02, 7)
    return RobustWeightSignature.extract(
        standard=model, robust=twin, corruption="fog", license="mit", layers=["*"], bits=4
    )


@each
@BOTH_WAYS
def test_one_signature_patches_both_twins(twin, back):
    source, target = pair(twin, back)
    copy_body(source, target)
    copy_head(source, target)
    signature = signature_of(source)
    assert signature.config.backbone.family == twin.table
    picture = images(twin, 1)
    clean = output(target, picture)
    assert plan_patch(target, signature).ok
    with patch(source, signature, alpha=0.8), patch(target, signature, alpha=0.8):
        patched = output(target, picture)
        assert float((output(source, picture) - patched).abs().max()) <= twin.tolerance
    assert (patched - clean).abs().max() > 1e-4, "the patch did nothing"
    assert torch.equal(output(target, picture), clean)


@each
def test_both_twins_give_the_same_signature(twin):
    """Extracted from either library: the same canonical names, shapes and deltas."""
    source, target = pair(twin, back=False)
    copy_body(source, target)
    robust = perturbed(source, 0.02, 7)
    sources = RobustWeightSignature.extract(
        standard=source, robust=robust, corruption="fog", license="mit", layers=["*"], bits=32
    )
    other = twin.b().double()
    refill(other, 1)
    copy_body(robust, other)
    targets = RobustWeightSignature.extract(
        standard=target, robust=other, corruption="fog", license="mit", layers=["*"], bits=32
    )
    assert set(sources.names) == set(targets.names)
    for name in sources.names:
        assert torch.equal(sources.delta(name).flatten(), targets.delta(name).flatten()), name


HEAD = re.compile(r"(head|head_dist|fc|classifier)\.(fc\.)?(weight|bias)")


def architecture(layout: Layout) -> Layout:
    """A timm model without its head and without axes of length 1: what is equal here, one signature fits."""
    return {n: tuple(d for d in shape if d > 1) for n, shape in layout.items() if not HEAD.fullmatch(n)}


@pytest.fixture(scope="module")
def layouts():
    """Every model of the catalogue, by its name and side."""
    return {(t.name, side): layout(build()) for t in TWINS for side, build in (("a", t.a), ("b", t.b))}


@each
def test_a_signature_fits_its_twins_and_nothing_else(twin, layouts):
    """Both spellings of every table against every model of the catalogue."""
    alike = [t for t in TWINS if architecture(layouts[t.name, "a"]) == architecture(layouts[twin.name, "a"])]
    # The spellings that no table knows are not found, whatever they hold.
    wanted = {(t.name, side) for t in alike for side in ("ab" if t.table else "a")}
    for side in "ab":
        (found,) = recognise(layouts[twin.name, side])
        assert found.family == twin.table
        fitting = {
            key
            for key, target in layouts.items()
            if any(m.fits for m in match(found.table, found.body, found.body, target))
        }
        assert fitting == wanted, side


def test_no_model_is_of_two_families(layouts):
    for key, target in layouts.items():
        assert len(recognise(target)) == 1, key


@pytest.mark.parametrize("name", ["vit", "dinov2", "beit", "swin", "convnext", "resnet-basic", "clip"])
def test_a_file_of_save_pretrained_is_patched_like_the_live_model(name, tmp_path):
    """What transformers writes has other names than what it holds in memory."""
    (twin,) = [t for t in COVERED if t.name == name]
    source, target = pair(twin, back=False)
    copy_body(source, target)
    signature = signature_of(source)
    target.float().save_pretrained(tmp_path / "clean")
    plan = apply_to_checkpoint(tmp_path / "clean", [signature], [0.8], tmp_path / "patched")
    assert plan.signatures[0].touched
    loaded = type(target).from_pretrained(tmp_path / "patched").eval()
    picture = images(twin, 1, dtype=torch.float32)
    clean = output(target, picture)
    with patch(target, signature, alpha=0.8):
        assert torch.equal(output(target, picture), output(loaded, picture))
        assert not torch.equal(output(target, picture), clean)
