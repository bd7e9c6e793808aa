"""Pairs of models that no map can be proven for, and what a proof leaves open: refused or told, never guessed."""

import pytest
import timm
import torch
from builders import tiny_resnet, tiny_vit
from test_infer import Swapped
from torch import nn
from twins import NEXT_HF, PYRAMID, RESNET, RESNET_HF, SWIN, SWIN_HF, VIT, VIT_HF, in_hf, in_timm

from rws_hub.errors import InferenceError
from rws_hub.infer import infer_table


def with_stride(place):
    """The same names and shapes, another function: the stride of a bottleneck in its first or second convolution."""
    model = tiny_resnet(block=timm.models.resnet.Bottleneck, layers=[1, 1, 1, 1])
    for stage in (model.layer2, model.layer3, model.layer4):
        first, second = stage[0].conv1, stage[0].conv2
        first.stride, second.stride = ((2, 2), (1, 1)) if place == 1 else ((1, 1), (2, 2))
    return model


REFUSED = {
    "another depth": (tiny_vit, lambda: tiny_vit(depth=3), "numbers in the first model and"),
    "one block less": (lambda: tiny_vit(depth=3), tiny_vit, "numbers in the first model and"),
    "another width": (tiny_vit, lambda: tiny_vit(embed_dim=96, num_heads=6), "numbers in the first model and"),
    "another activation": (tiny_vit, lambda: tiny_vit(act_layer=nn.ReLU), "run apart at blocks.0.mlp.fc2.weight"),
    "another stride": (lambda: with_stride(1), lambda: with_stride(2), "run apart at layer2.0.bn1"),
    "another number of heads": (tiny_vit, lambda: tiny_vit(num_heads=4), "run apart at blocks.0.attn.proj.weight"),
    "another function": (Swapped, lambda: Swapped(function=torch.tanh), "outputs differ by"),
    "another output": (tiny_vit, lambda: tiny_vit(num_classes=7), "no output of the two models has the same shape"),
    "another family": (tiny_vit, lambda: tiny_resnet(), "numbers in the first model and"),
    "no tensors": (tiny_vit, nn.Identity, "Identity has no floating tensors"),
    "no tensors at all": (nn.Identity, nn.Identity, "Identity has no floating tensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_proven_is_refused(case):
    a, b, message = REFUSED[case]
    with pytest.raises(InferenceError, match=message):
        infer_table(a(), b(), torch.zeros(1, 3, 32, 32))


def other_eps(eps):
    """A norm's epsilon of transformers' models."""
    return {"layer_norm_eps": eps}


def with_activation(function):
    """A small ResNet with another activation than ReLU."""
    model = tiny_resnet()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, function())
    return model


def with_first(convolution):
    """A small classifier that begins with this convolution."""
    return nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


CONVNEXT = in_timm("convnext_tiny", **PYRAMID)
SMALL_VIT = in_timm("vit_tiny_patch16_224", **VIT)
RESNET_50 = in_timm("resnet50", **RESNET)
RESNET_V1 = in_hf("ResNet", **RESNET_HF, downsample_in_bottleneck=True)

# Each pair has equal names and shapes, and outputs that agree to 1e-5 or altogether on one usual input.
NEARLY = {
    "epsilon 1e-5": (CONVNEXT, in_hf("ConvNext", **NEXT_HF | other_eps(1e-5)), 64, "the second 1e-06 and 1e-05; names"),
    "epsilon 1e-12": (CONVNEXT, in_hf("ConvNext", **NEXT_HF | other_eps(1e-12)), 64, "the first has 1e-06, the second"),
    "epsilon 1e-6": (
        in_timm("swin_tiny_patch4_window7_224", **SWIN),
        in_hf("Swin", **SWIN_HF | other_eps(1e-6)),
        32,
        "outputs differ by",
    ),
    "epsilon 1.1e-6": (
        SMALL_VIT,
        in_hf("ViT", **VIT_HF | other_eps(1.1e-6)),
        32,
        "first has 1e-06, the second 1.1e-06",
    ),
    "clipped GELU": (SMALL_VIT, in_hf("ViT", **VIT_HF, hidden_act="gelu_10"), 32, "with values 1000 times as large"),
    "clipped ReLU": (tiny_resnet, lambda: with_activation(lambda: nn.Hardtanh(0, 200)), 32, "1000 times as large"),
    "leaky ReLU": (tiny_resnet, lambda: with_activation(lambda: nn.LeakyReLU(1e-6)), 32, "outputs differ by"),
    "stride, 4 pixels": (RESNET_50, RESNET_V1, 4, "differ by .* at 64x64 pixels"),
    "stride, 1 pixel": (RESNET_50, RESNET_V1, 1, "differ by .* at 64x64 pixels"),
    "dilation, 1 pixel": (
        RESNET_50,
        in_timm("resnet50", **RESNET, output_stride=16),
        1,
        "differ by .* at 64x64 pixels",
    ),
    # TensorFlow's padding is another one where a side is even.
    "padding": (
        lambda: with_first(nn.Conv2d(3, 4, 3, stride=2, padding=1)),
        lambda: with_first(timm.layers.Conv2dSame(3, 4, 3, stride=2)),
        33,
        "differ by .* at 66x66 pixels",
    ),
}


@pytest.mark.parametrize("case", NEARLY)
def test_what_is_nearly_the_same_function_is_refused(case):
    a, b, size, message = NEARLY[case]
    with pytest.raises(InferenceError, match=message):
        infer_table(a(), b(), torch.zeros(1, 3, size, size))


def test_the_wrong_kind_of_argument_is_named():
    for arguments in ((tiny_vit(), tiny_vit(), None), (tiny_vit(), "vit", torch.zeros(1, 3, 32, 32))):
        with pytest.raises(TypeError, match="expected two modules and a tensor as an example of their input, got"):
            infer_table(*arguments)


class Broken(nn.Module):
    """Runs into an error of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        raise KeyError("pixel_values")


class Unlucky(nn.Module):
    """Gives what is no number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return torch.log(-x.abs())


@pytest.mark.parametrize(("model", "message"), [(Broken, "does not run on an input"), (Unlucky, "not finite")])
def test_a_model_that_does_not_run_is_named(model, message):
    for pair in ((model(), tiny_vit()), (tiny_vit(), model())):
        with pytest.raises(InferenceError, match=f"{model.__name__} .*{message}"):
            infer_table(*pair, torch.zeros(1, 3, 32, 32))


def test_the_signature_of_a_stranger_is_not_proof():
    """A model whose output hangs on nothing cannot prove anything."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x.mean((2, 3))) * 0

    with pytest.raises(InferenceError, match="outputs differ by"):
        infer_table(Constant(), Constant(), torch.zeros(1, 3, 8, 8))
