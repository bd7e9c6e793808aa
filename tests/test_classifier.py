"""How a backbone wants its pictures, what it answers, and a head for other classes: timm, transformers and others."""

from typing import Any

import pytest
import torch
import transformers
from bits import bits
from builders import seeded, tiny_resnet, tiny_vit
from torch import nn

from rws_hub import DataError
from rws_hub.classifier import (
    Preprocessing,
    logits,
    preprocessing_of,
    require_classes,
    require_order,
    stated_classes,
    with_head,
)
from rws_hub.pictures import View

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CPU = torch.device("cpu")


def hf_vit(classes: int = 3, **options: Any) -> Any:
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=classes, **options)
    return seeded(lambda: transformers.ViTForImageClassification(config), 0).eval()


def hf_resnet(classes: int = 3) -> Any:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=classes
    )
    return seeded(lambda: transformers.ResNetForImageClassification(config), 0).eval()


# --- pictures


def test_timm_states_everything() -> None:
    model = tiny_resnet()
    model.pretrained_cfg = {"input_size": (3, 64, 64), "crop_pct": 0.95, "mean": (0.1, 0.2, 0.3), "std": (1, 2, 3)}
    found = preprocessing_of(model)
    assert (found.view, found.mean, found.std) == (View(64, 67), (0.1, 0.2, 0.3), (1, 2, 3))
    assert preprocessing_of(model, size=64) == found
    assert preprocessing_of(model, size=100) == Preprocessing(View(100, 100), found.mean, found.std)
    assert preprocessing_of(tiny_resnet()).view == View(224, 235)  # timm's ResNet-18 a1


@pytest.mark.parametrize(
    ("processor", "view"),
    [
        ({"size": {"height": 48, "width": 48}}, View(48, 48)),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, View(224, 256)),
        ({"size": {"shortest_edge": 232}, "crop_size": 224, "do_center_crop": True}, View(224, 232)),
        ({"size": {"shortest_edge": 64}, "crop_size": 48, "do_center_crop": False}, View(64, 64)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.95}, View(224, 235)),
        ({"size": 224, "crop_pct": None}, View(224, 256)),
        ({}, View(32, 36)),
        (None, View(32, 36)),
    ],
)
def test_transformers_states_it_beside_the_model(processor: dict[str, Any] | None, view: View) -> None:
    assert preprocessing_of(hf_vit(), processor).view == view
    assert preprocessing_of(hf_vit(), processor, view.size).view == view
    assert preprocessing_of(hf_vit(), processor, 40).view == View(40, 40)  # nothing is said about another size


def test_mean_and_deviation() -> None:
    stated = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    found = preprocessing_of(hf_vit(), stated)
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    found = preprocessing_of(hf_vit(), stated | {"do_normalize": False})
    assert (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))
    found = preprocessing_of(hf_vit())
    assert (found.mean, found.std) == IMAGENET


def test_a_model_that_says_nothing() -> None:
    assert preprocessing_of(nn.Conv2d(3, 3, 1)) == Preprocessing(View(224, 256), *IMAGENET)


def test_what_was_written_down_is_read_back() -> None:
    for side in (32, 48, 224):
        for resize in range(side, 2 * side):
            assert preprocessing_of(nn.Identity(), {"crop_pct": side / resize, "size": side}).view == View(side, resize)


def test_normalising() -> None:
    pixels = torch.randint(0, 256, (5, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = Preprocessing(View(8, 8), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)).tensor(pixels, CPU)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    scaled = pixels.double().permute(0, 3, 1, 2) / 255
    expected = (scaled - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(found, expected.float())


# --- answers


def test_logits_of_either_library() -> None:
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        timm_model, hf_model = tiny_resnet(), hf_vit()
        assert torch.equal(logits(timm_model, images), timm_model(images))
        assert torch.equal(logits(hf_model, images), hf_model(images).logits)


def test_what_is_no_classifier() -> None:
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(DataError, match=r"ViTModel answers with BaseModelOutputWithPooling.*it is no classifier"):
        logits(hf_vit().vit, images)
    with pytest.raises(DataError, match=r"Conv2d answers with Tensor of shape \[2, 4, 32, 32\]"):
        logits(nn.Conv2d(3, 4, 1), images)


@pytest.mark.parametrize("model", [tiny_resnet(num_classes=3), hf_vit(3)], ids=["timm", "transformers"])
def test_classes_are_counted(model: nn.Module) -> None:
    before = bits(model.train())
    require_classes(model, View(32, 32), ("a", "b", "c"), "it")
    with pytest.raises(DataError, match=r"^it tells 3 classes apart, the data set has 4 \(a, b, c, \.\.\.\)"):
        require_classes(model, View(32, 32), "abcd", "it")
    assert bits(model) == before and all(m.training for m in model.modules())


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"label_names": ["cat", "ant"]}, ("cat", "ant")),
        ({"num_classes": 2, "pretrained_cfg": {"label_names": ["cat", "ant"]}}, ("cat", "ant")),
        ({"id2label": {"10": "c", "9": "b", "0": "a"}}, ("a", "b", "c")),
        ({"id2label": {0: 7, 1: 5}}, ("7", "5")),
        ({"label_names": "cats", "pretrained_cfg": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_classes_that_a_config_states(config: dict[str, Any] | None, names: tuple[str, ...] | None) -> None:
    assert stated_classes(config) == names


def test_the_order_of_classes() -> None:
    message = r"^it has the data set's classes in another order \(number 1 is 'dog' there and 'bee' here\)"
    with pytest.raises(DataError, match=message):
        require_order(["ant", "dog", "bee"], ("ant", "bee", "dog"), "it")
    for other in (None, ("ant", "bee", "dog"), ("dog", "bee"), ("dog", "bee", "cat"), ("LABEL_1", "LABEL_0", "x")):
        require_order(other, ("ant", "bee", "dog"), "it")


# --- heads


@pytest.mark.parametrize("build", [hf_vit, hf_resnet, lambda: tiny_resnet(num_classes=3), tiny_vit])
def test_a_fresh_head(build: Any) -> None:
    model, images = build(), torch.randn(2, 3, 32, 32)
    before, state = bits(model), torch.get_rng_state()
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    first, again, other = (with_head(model, 5, seed).eval() for seed in (0, 0, 1))
    assert bits(model) == before and torch.equal(torch.get_rng_state(), state)
    assert labels is None or (model.config.num_labels, first.config.num_labels) == (labels, 5)
    assert bits(first) == bits(again) != bits(other)
    with torch.inference_mode():
        assert logits(first, images).shape == (2, 5)
    changed = {n for n, b in bits(first).items() if b != before[n]}
    assert changed and all(n.startswith(("fc.", "head.", "classifier.")) for n in changed)


@pytest.mark.parametrize("build", [lambda: hf_vit(3), lambda: tiny_resnet(num_classes=3)])
def test_the_right_head_is_kept(build: Any) -> None:
    model = build()
    kept = with_head(model, 3, 7)
    assert kept is not model and bits(kept) == bits(model)


def test_no_head_to_exchange() -> None:
    with pytest.raises(DataError, match="ViTModel has no head that could be exchanged for one of 5 classes"):
        with_head(hf_vit().vit, 5, 0)
