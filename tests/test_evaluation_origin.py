"""Whether a model is the very one that a signature was computed from: by the bits of the tensors it touches."""

import copy
from pathlib import Path

import pytest
import torch
import transformers
from bits import bits
from builders import perturbed, seeded, tiny_resnet, tiny_signature, tiny_vit
from test_own_table import extract, mine, table, theirs
from torch import nn
from twin_weights import copy_body

from rws_hub import patch
from rws_hub.evaluation.origin import is_source

__all__ = ["table"]  # a fixture


def test_both_sources_and_no_other() -> None:
    standard, fog = tiny_resnet(), tiny_signature(layers=["*"])
    robust, before = perturbed(standard, 0.01, 1), bits(standard)
    assert is_source(standard, fog, "standard") and not is_source(standard, fog, "robust")
    assert is_source(robust, fog, "robust") and not is_source(robust, fog, "standard")
    assert not is_source(perturbed(standard, 0.01, 2), fog, "robust") and bits(standard) == before
    with patch(standard, fog):
        assert not is_source(standard, fog, "standard")


def test_sources_of_a_projection() -> None:
    pretrained, standard = perturbed(tiny_resnet(), 0.02, 8), tiny_resnet()
    fog = tiny_signature(pretrained=pretrained)
    assert is_source(standard, fog, "standard") and is_source(perturbed(standard, 0.01, 1), fog, "robust")
    assert not is_source(pretrained, fog, "standard")


def test_every_touched_bit_counts_and_no_other() -> None:
    fog, model = tiny_signature(), tiny_resnet()  # of the first two layers
    model.get_parameter("fc.weight").data += 1
    model.get_parameter("layer4.0.conv2.weight").data += 1
    assert is_source(model.to(memory_format=torch.channels_last), fog, "standard")
    for name in fog.names:
        other = copy.deepcopy(model)
        tensor = other.state_dict()[name]
        last = (-1,) * tensor.ndim
        tensor[last] = torch.nextafter(tensor[last], tensor[last] + 1)
        assert not is_source(other, fog, "standard"), name


def test_the_same_weights_in_another_library() -> None:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=32, patch_size=8
    )
    twin, fog = seeded(lambda: transformers.ViTForImageClassification(config), 7).eval(), tiny_signature("vit")
    assert not is_source(twin, fog, "standard")
    copy_body(tiny_vit(), twin)
    assert is_source(twin, fog, "standard")


def test_the_table_of_a_signature_is_followed(table: Path) -> None:
    snow = extract(mine(), table=table)
    assert is_source(mine(), snow, "standard") and is_source(theirs(mine()), snow, "standard")
    assert not is_source(theirs(perturbed(mine(), 0.1, 6)), snow, "standard")


@pytest.mark.parametrize(
    "model",
    [
        tiny_resnet(9),
        tiny_resnet().double(),
        tiny_resnet(channels=[8, 16, 32, 48]),
        tiny_resnet(channels=[4, 8, 16, 32]),
        tiny_vit(),
        nn.ReLU(),
        tiny_resnet().to("meta"),
    ],
    ids=["another start", "another dtype", "another last stage", "other sizes", "a ViT", "nothing", "no values"],
)
def test_what_is_no_source(model: nn.Module) -> None:
    assert not is_source(model, tiny_signature(layers=["*"]), "standard")
