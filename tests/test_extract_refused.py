"""What no signature can be extracted from, told by name."""

import copy

import pytest
import timm
import torch
from builders import perturbed, seeded, tiny_resnet, tiny_vit
from test_extract import extract
from torch import nn

from rws_hub import ExtractionError


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["pretrained", "standard", "robust"])
@pytest.mark.parametrize("name", ["layer1.0.conv2.weight", "bn1.bias", "bn1.running_mean"])
def test_a_value_that_is_not_finite_is_refused_by_name(value, which, name):
    models = {"pretrained": tiny_resnet(seed=1), "standard": tiny_resnet(), "robust": tiny_resnet(seed=2)}
    with torch.no_grad():
        models[which].state_dict()[name].view(-1)[-1] = value
    if which == "pretrained" and name.endswith("running_mean"):
        extract(**models)  # the pretrained statistics play no part
        return
    with pytest.raises(ExtractionError, match=f"{name}: a value is not finite"):
        extract(**models)


def test_a_negative_variance_is_refused():
    standard, robust = tiny_resnet(), tiny_resnet(seed=1)
    robust.bn1.running_var[0] = -0.1
    with pytest.raises(ExtractionError, match=r"bn1\.running_var: a running variance is negative or not finite"):
        extract(standard, robust)


def other_depth():
    return seeded(lambda: timm.create_model("resnet18", layers=[1, 1, 1, 2], channels=[8, 16, 32, 64]), 0)


class NotAResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (other_depth, r"standard has no tensor layer4\.1\.\S+; the checkpoints must be of one architecture"),
        (lambda: tiny_resnet(channels=[8, 16, 32, 48]), r"layer4\.\S+: standard has shape \[64.*\], robust \[48"),
        (tiny_vit, "standard is of family 'resnet', robust of 'vit'"),
        (NotAResNet, "robust has no tensor bn1.bias; the"),
    ],
)
def test_another_architecture_is_refused(other, message):
    with pytest.raises(ExtractionError, match=message):
        extract(tiny_resnet(), other())


def test_identical_models_hold_nothing_to_extract():
    standard = tiny_resnet()
    for layers in (["*"], "shallow", 1):
        with pytest.raises(ExtractionError, match="equal in the chosen layers: nothing to extract"):
            extract(standard, copy.deepcopy(standard), layers=layers)
    deep = copy.deepcopy(standard)
    with torch.no_grad():
        deep.layer4[0].conv1.weight.add_(1)
    with pytest.raises(ExtractionError, match="nothing to extract"):
        extract(standard, deep, layers=2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"bits": 0.05}, "bits=0.05: expected a number from 0.1 to 8, or 32 for plain float32"),
        ({"bits": 16}, "bits=16: expected a number from 0.1 to 8, or 32 for plain float32"),
        ({"batchnorm": "keep"}, "batchnorm='keep': expected 'delta' or 'none'"),
        ({"alpha": float("nan")}, "alpha of 'fog' must be a finite number, found nan"),
        ({"alpha": float("inf")}, "alpha of 'fog' must be a finite number, found inf"),
        ({"severity": 6}, "severity must be 1 to 5, found 6"),
        ({"severity": 2.5}, "severity"),
        ({"severity": "5"}, "severity"),
        ({"bits": "4"}, "bits='4'"),
        ({"bits": True}, "bits=True"),
        ({"license": 3}, "license must be one plain word"),
        ({"dataset": 3}, "dataset must be text"),
        ({"alpha": "1"}, "alpha of 'fog' must be a plain number"),
        ({"layers": [1]}, "1 is no name pattern"),
        ({"corruption": "fog and rain"}, "corruption.name must be one plain word"),
        ({"license": ""}, "license must be one plain word"),
        ({"dataset": "../x"}, "dataset must be one word or a Hub id"),
        ({"base_model": "../../x"}, "not a Hub id"),
        ({"base_revision": "main"}, "not a 40-hex commit"),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_what_could_not_be_loaded_again_is_not_made(option, message):
    standard = tiny_resnet()
    with pytest.raises(ExtractionError, match=message):
        extract(standard, perturbed(standard, 0.1, 1), **{"layers": 1, **option})


def test_one_tensor_too_many_is_named():
    standard = tiny_resnet()
    robust = perturbed(standard, 0.1, 1).state_dict() | {"layer1.0.extra.weight": torch.zeros(3, 3)}
    with pytest.raises(ExtractionError, match=r"standard has no tensor layer1\.0\.extra\.weight; the"):
        extract(standard, robust)
