"""Twin models: pairs of small models that compute one function under the names of two libraries.

Every entry of `TWINS` builds a model of timm and its twin elsewhere, with seeded random weights and from
configuration alone. The configurations agree wherever the function hangs on them: norm epsilons, activations,
padding, strides, pooling. Once the weights of `a` stand in `b` under their other names, both give equal outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torchvision.models as zoo
import transformers
from timm.layers import GroupNorm1, StdConv2d
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

Builder = Callable[[], nn.Module]
CLASSES = 10
VGG = [8, "M", 16, "M", 32, 32, "M", 32, "M", 48, "M"]


@dataclass(frozen=True, slots=True)
class Twin:
    """One function in two spellings."""

    name: str  # unique
    table: str | None  # the section of the name tables that covers the pair; None: no section does
    a: Builder  # the timm model (canonical side), in eval mode
    b: Builder  # its twin, in eval mode
    size: int = 32  # side of the square RGB input in pixels
    tolerance: float = 1e-12  # the largest difference of two outputs in float64 that is rounding
    alone: tuple[str, ...] = ()  # fragments of the names in `b` of floating tensors that have no partner in `a`
    note: str = ""  # what a user of the entry has to know


def images(twin: Twin, seed: int, count: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random input for both sides of a twin."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, twin.size, twin.size, generator=generator, dtype=torch.float64).to(dtype)


@torch.no_grad()
def output(model: nn.Module, images: Tensor) -> Tensor:
    """The tensor that both sides of a twin share: logits, else projected, else pooled, else plain features."""
    model.train().eval()  # LeViT keeps the attention biases of its last run until the mode changes
    result = getattr(model, "get_image_features", model)(images)
    if isinstance(result, Tensor):
        return result
    keys = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
    return next(result[key] for key in keys if result.get(key) is not None)


@torch.no_grad()
def refill(model: nn.Module, seed: int) -> None:
    """New seeded values for every floating parameter and persistent buffer, tame enough for deep models."""
    generator = torch.Generator().manual_seed(seed)
    convolutions = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d)}
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    for name, tensor in model.state_dict(keep_vars=True).items():
        leaf = name.rpartition(".")[2]
        if not tensor.is_floating_point() or leaf == "relative_coords_table":  # a constant of torchvision's Swin V2
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if id(tensor) in convolutions:
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)  # 2 makes up for the activations
        elif id(tensor) in linear:
            tensor.copy_(noise * (1 / tensor[0].numel()) ** 0.5)
        elif leaf.startswith(("running_var", "gamma", "lambda", "scale", "layer_scale", "logit_scale")):
            tensor.copy_((noise / 5).exp())
        elif leaf == "weight" and tensor.ndim == 1:  # of a norm
            tensor.copy_((noise / 5).exp())
        else:  # biases, tokens, tables
            tensor.copy_(noise / 5)


def seeded(seed: int, build: Callable[..., nn.Module], *args: Any, **options: Any) -> Builder:
    """A builder that leaves the global generator as it was."""

    def run() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(*args, **options).eval()

    return run


def in_timm(name: str, **options: Any) -> Builder:
    """A model of timm's registry."""
    return seeded(0, timm.create_model, name, **{"num_classes": CLASSES} | options)


def part(name: str, **options: Any) -> Builder:
    """Any model class of transformers, built from its own configuration class."""

    def build() -> nn.Module:
        kind = getattr(transformers, name)
        return kind(kind.config_class(**{"num_labels": CLASSES} | options))

    return seeded(1, build)


def in_hf(name: str, **options: Any) -> Builder:
    """The image classifier of a family of transformers."""
    return part(f"{name}ForImageClassification", **options)


def in_tv(build: Callable[..., nn.Module], *args: Any, **options: Any) -> Builder:
    """A model class or function of torchvision."""
    return seeded(1, build, *args, **{"num_classes": CLASSES} | options)


def _clip(**options: Any) -> nn.Module:
    """CLIP with a projection, which has no bias elsewhere."""
    model = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=CLASSES, **options)
    model.head.bias = None
    return model


def _clip_dual(**options: Any) -> nn.Module:
    """CLIP with a text tower of the same width and depth as the vision tower."""
    text = {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    shared = {key: options[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    text |= shared | {"num_attention_heads": options["num_attention_heads"]}
    config = transformers.CLIPConfig(text_config=text, vision_config=options, projection_dim=CLASSES)
    return transformers.CLIPModel(config)


def _pvt_v2(**options: Any) -> nn.Module:
    """PVTv2 with the one epsilon of transformers, where timm has two."""
    model = timm.create_model("pvt_v2_b0", num_classes=CLASSES, **options)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return model


def _poolformer(**options: Any) -> nn.Module:
    """PoolFormer up to its last feature map; the heads differ."""
    scales = {"layer_scale_init_values": 1e-5, "res_scale_init_values": None}
    norms = {"downsample_norm": None, "norm_layers": GroupNorm1, "output_norm": nn.Identity}
    return timm.models.MetaFormer(mlp_act=nn.GELU, mlp_bias=True, use_mlp_head=False, **scales, **norms, **options)


def _sam2(**options: Any) -> nn.Module:
    """The trunk of SAM 2 without the norm that timm adds behind it."""
    model = timm.create_model("sam2_hiera_tiny", **options)
    model.head.norm = nn.Identity()
    return model


def _vgg(batch_norm: bool) -> nn.Module:
    """VGG of timm, whose head is 4096 wide in any case."""
    norm = nn.BatchNorm2d if batch_norm else None
    return timm.models.VGG(VGG, CLASSES, mlp_ratio=1 / 64, norm_layer=norm)


def _vgg_in_tv(batch_norm: bool) -> nn.Module:
    """VGG of torchvision; its head of 120 million weights is laid out without memory, and replaced."""
    with torch.device("meta"):
        model = zoo.VGG(nn.Identity(), CLASSES, init_weights=False)
    model.features = zoo.vgg.make_layers(VGG, batch_norm)
    for place, sizes in ((0, (48 * 7 * 7, 64)), (3, (64, 4096)), (6, (4096, CLASSES))):
        model.classifier[place] = nn.Linear(*sizes)
    return model


# Shared sizes: first in timm's words, then in those of transformers (HF) or torchvision (TV).
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
VIT_HF = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
VIT_HF |= {"intermediate_size": 192, "layer_norm_eps": 1e-6}
VIT_TV = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 3, "hidden_dim": 48, "mlp_dim": 192}
MOBILENET_HF = {"tf_padding": False, "layer_norm_eps": 1e-5}
MOBILENET2_HF = MOBILENET_HF | {"depth_multiplier": 0.35}
EFFICIENTNET_HF = {"image_size": 64, "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
FOCAL = {"depths": (1, 1, 2, 1), "embed_dim": 8, "num_classes": CLASSES}
FOCAL_HF = {"depths": [1, 1, 2, 1], "embed_dim": 8}
DINO_HF = {key: value for key, value in VIT_HF.items() if key != "intermediate_size"}
EPS5_HF = VIT_HF | {"layer_norm_eps": 1e-5}
DINO3_HF = EPS5_HF | {"num_register_tokens": 4}
AIM_HF = VIT_HF | {"intermediate_size": 132, "use_head": False}
SWIGLU_HF = DINO_HF | {"use_swiglu_ffn": True}
GATED_HF = EPS5_HF | {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"}
BEIT_HF = VIT_HF | {"use_relative_position_bias": True}
BEIT_CLS_HF = BEIT_HF | {"use_mean_pooling": False}
SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
SHARED_HF = VIT_HF | {"use_shared_relative_position_bias": True}
SIGLIP_HF = VIT_HF | {"hidden_act": "gelu"}
CLIP_HF = EPS5_HF | {"hidden_act": "quick_gelu", "projection_dim": CLASSES}
CLS = VIT | {"num_classes": 0, "global_pool": "token"}  # the normed class token instead of logits
BARE = {"num_classes": 0}  # pooled features instead of logits
MEAN = {"class_token": False, "global_pool": "avg", "fc_norm": False}
MAP = {"num_classes": 0, "global_pool": ""}  # the last feature map instead of logits

FOUR = (1, 1, 1, 1)
RESNET = {"layers": (1, 2, 1, 1), "channels": (8, 16, 24, 32)}
BASIC_HF = {"depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 24, 32], "layer_type": "basic"}
RESNET_HF = {"depths": [1, 2, 1, 1], "hidden_sizes": [32, 64, 96, 128]}
PYRAMID = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
PYRAMID_HF = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]}
NEXT_HF = PYRAMID_HF | {"layer_norm_eps": 1e-6}
NEXT_TV = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 1), CNBlockConfig(24, 32, 2), CNBlockConfig(32, None, 1)]
SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (2, 1), "num_heads": (2, 4)}
SWIN_HF = {"image_size": 32, "window_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4]}
SWIN_TV = {"patch_size": [4, 4], "window_size": [4, 4], "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4]}
SWIN2_TV = SWIN_TV | {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
REGNET = {"depth": 5, "w0": 16, "wa": 16.0, "wm": 1.8, "group_size": 8}
REGNET_HF = {"embedding_size": 32, "hidden_sizes": [16, 32, 48, 96], "depths": [1, 1, 2, 1], "groups_width": 8}
REGNET_TV = partial(BlockParams.from_init_params, depth=5, w_0=16, w_a=16.0, w_m=1.8, group_width=8)
PVT = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4)}
PVT_HF = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
MOBILEVIT_HF = {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320], "expand_ratio": 2.0}
BIT = {"layers": FOUR, "channels": (128, 128, 256, 256), "num_classes": CLASSES}
BIT |= {"stem_type": "fixed", "conv_layer": partial(StdConv2d, eps=1e-8)}
BIT_HF = {"depths": [1, 1, 1, 1], "hidden_sizes": [128, 128, 256, 256]}
LEVIT = {"img_size": 128, "embed_dim": (16, 24, 32), "num_heads": (1, 2, 3), "depth": (1, 1, 1)}
LEVIT_HF = {"image_size": 128, "hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 1]}
HIERA = {"img_size": (64, 64), "embed_dim": 8, "stages": (1, 1, 2, 1)}
HIERA_HF = {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 2, 1]}
DENSE = {"growth_rate": 8, "block_config": (2, 2, 2, 2)}
INCEPTION_TV = {"aux_logits": False, "init_weights": False}
SAM = {"window_size": 2, "global_attn_indexes": (1,), "neck_chans": 16}
SAM_HF = {"window_size": 2, "global_attn_indexes": [1], "output_channels": 16}
SAM2 = {"embed_dim": 8, "stages": (1, 1, 2, 1), "window_spec": (8, 4, 2, 1), "global_att_blocks": (3,)}
SAM2_HF = {"hidden_size": 8, "embed_dim_per_stage": [8, 16, 32, 64], "blocks_per_stage": [1, 1, 2, 1]}
SAM2_HF |= {"window_size_per_stage": [8, 4, 2, 1], "global_attention_blocks": [3]}
HGNET_PLAN = {
    "stem_type": "v2",
    "stem_chs": [8, 8],
    "stage1": [8, 8, 16, 1, False, False, 3, 2],
    "stage2": [16, 8, 24, 1, True, False, 3, 2],
    "stage3": [24, 16, 32, 2, True, True, 5, 2],
    "stage4": [32, 16, 48, 1, True, True, 5, 2],
}
HGNET = {"cfg": HGNET_PLAN, "num_classes": CLASSES, "head_hidden_size": None, "use_lab": True}
HGNET_HF = {"stem_channels": [3, 8, 8], "hidden_sizes": [16, 24, 32, 48], "use_learnable_affine_block": True}
HGNET_HF |= {"stage_in_channels": [8, 16, 24, 32], "stage_mid_channels": [8, 8, 16, 16]}
HGNET_HF |= {"stage_out_channels": [16, 24, 32, 48], "stage_num_blocks": [1, 1, 2, 1]}
HGNET_HF |= {"stage_numb_of_layers": [2, 2, 2, 2]}

TEXT = ("text_model.", "text_projection.", "logit_scale")
COORDS = ("relative_coords_table",)
MASK = ("embeddings.mask_token",)
REGISTERS = "b adds the first position to its class token: it has to be zero where the weights come from a"
TOWER = "the output needs the vision tower only"
KEYS = "b sets the middle third of qkv.bias to zero when it runs; a has no such third"
RESHAPE = "the first layer of the head is [O, I, 7, 7] in a and [O, 49 * I] in b"
CACHE = "both sides keep attention biases between runs in eval mode; output() drops them"

TWINS = (
    # With a table.
    Twin("resnet-basic", "resnet", in_timm("resnet18", **RESNET), in_hf("ResNet", **BASIC_HF)),
    Twin("resnet-bottleneck", "resnet", in_timm("resnet50", **RESNET), in_hf("ResNet", **RESNET_HF)),
    Twin("resnet-basic-tv", "resnet", in_timm("resnet18", layers=FOUR), in_tv(zoo.ResNet, BasicBlock, FOUR)),
    Twin("resnet-bottleneck-tv", "resnet", in_timm("resnet50", layers=FOUR), in_tv(zoo.ResNet, Bottleneck, FOUR)),
    Twin(
        "resnext-tv",
        "resnet",
        in_timm("resnext50_32x4d", layers=FOUR),
        in_tv(zoo.ResNet, Bottleneck, FOUR, groups=32, width_per_group=4),
    ),
    Twin("vit", "vit", in_timm("vit_tiny_patch16_224", **VIT), in_hf("ViT", **VIT_HF)),
    Twin("vit-tv", "vit", in_timm("vit_tiny_patch16_224", **VIT), in_tv(zoo.VisionTransformer, **VIT_TV)),
    Twin("vit-msn", "vit", in_timm("vit_tiny_patch16_224", **VIT), in_hf("ViTMSN", **VIT_HF)),
    Twin("ijepa", "vit", in_timm("vit_tiny_patch16_224", **VIT | MEAN), in_hf("IJepa", **VIT_HF)),
    Twin("deit", "vit", in_timm("deit_tiny_patch16_224", **VIT), in_hf("ViT", **VIT_HF)),
    Twin(
        "deit-distilled",
        "vit",
        in_timm("deit_tiny_distilled_patch16_224", **VIT),
        part("DeiTForImageClassificationWithTeacher", **VIT_HF),
    ),
    Twin("dinov2", "dinov2", in_timm("vit_small_patch14_dinov2", **CLS), part("Dinov2Model", **DINO_HF), alone=MASK),
    Twin(
        "dinov2-swiglu",
        "dinov2",
        in_timm("vit_giant_patch14_dinov2", **CLS),
        part("Dinov2Model", **SWIGLU_HF),
        alone=MASK,
    ),
    Twin(
        "dinov2-reg",
        "dinov2",
        in_timm("vit_small_patch14_reg4_dinov2", **CLS),
        part("Dinov2WithRegistersModel", **DINO_HF),
        alone=MASK,
        note=REGISTERS,
    ),
    Twin(
        "dinov2-reg-swiglu",
        "dinov2",
        in_timm("vit_giant_patch14_reg4_dinov2", **CLS),
        part("Dinov2WithRegistersModel", **SWIGLU_HF),
        alone=MASK,
        note=REGISTERS,
    ),
    Twin("beit", "beit", in_timm("beit_base_patch16_224", **VIT), in_hf("Beit", **BEIT_HF)),
    Twin(
        "beit-cls", "beit", in_timm("beit_base_patch16_224", **VIT, global_pool="token"), in_hf("Beit", **BEIT_CLS_HF)
    ),
    Twin("beit-shared", "beit", in_timm("beit_base_patch16_224", **VIT | SHARED), in_hf("Beit", **SHARED_HF)),
    Twin("data2vec", "beit", in_timm("beit_base_patch16_224", **VIT), in_hf("Data2VecVision", **BEIT_HF)),
    Twin(
        "clip", "clip_vision", in_timm("vit_base_patch16_clip_quickgelu_224", **CLS), part("CLIPVisionModel", **CLIP_HF)
    ),
    Twin("clip-projection", "clip_vision", seeded(0, _clip, **VIT), part("CLIPVisionModelWithProjection", **CLIP_HF)),
    Twin("clip-dual", "clip_vision", seeded(0, _clip, **VIT), seeded(1, _clip_dual, **CLIP_HF), alone=TEXT, note=TOWER),
    Twin("swin", "swin", in_timm("swin_tiny_patch4_window7_224", **SWIN), in_hf("Swin", **SWIN_HF)),
    Twin("convnext", "convnext", in_timm("convnext_tiny", **PYRAMID), in_hf("ConvNext", **NEXT_HF), 64),
    Twin("convnext-v2", "convnext", in_timm("convnextv2_tiny", **PYRAMID), in_hf("ConvNextV2", **NEXT_HF), 64),
    Twin("convnext-atto", "convnext", in_timm("convnext_atto", **PYRAMID), in_hf("ConvNext", **NEXT_HF), 64),
    Twin("convnext-v2-atto", "convnext", in_timm("convnextv2_atto", **PYRAMID), in_hf("ConvNextV2", **NEXT_HF), 64),
    Twin("regnet-x", "regnet", in_timm("regnetx_002", **REGNET), in_hf("RegNet", **REGNET_HF, layer_type="x")),
    Twin("regnet-y", "regnet", in_timm("regnety_002", **REGNET), in_hf("RegNet", **REGNET_HF, layer_type="y")),
    Twin("mobilenet-v1", "mobilenet_v1", in_timm("mobilenetv1_100"), in_hf("MobileNetV1", **MOBILENET_HF), 64),
    Twin("mobilenet-v2", "mobilenet_v2", in_timm("mobilenetv2_035"), in_hf("MobileNetV2", **MOBILENET2_HF), 64),
    Twin("efficientnet", "efficientnet", in_timm("tf_efficientnet_b0"), in_hf("EfficientNet", **EFFICIENTNET_HF), 64),
    Twin("vgg", "vgg", seeded(0, _vgg, batch_norm=False), seeded(1, _vgg_in_tv, batch_norm=False), 64, note=RESHAPE),
    Twin("vgg-bn", "vgg", seeded(0, _vgg, batch_norm=True), seeded(1, _vgg_in_tv, batch_norm=True), 64, note=RESHAPE),
    # Without one.
    Twin(
        "siglip", "siglip", in_timm("vit_base_patch16_siglip_224", **VIT | BARE), part("SiglipVisionModel", **SIGLIP_HF)
    ),
    Twin("swin-v2", None, in_timm("swinv2_tiny_window8_256", **SWIN), in_hf("Swinv2", **SWIN_HF)),
    Twin("pvt-v2", None, seeded(0, _pvt_v2, **PVT), in_hf("PvtV2", **PVT_HF), 64),
    Twin("poolformer", None, seeded(0, _poolformer, **PYRAMID | MAP), part("PoolFormerModel", **PYRAMID_HF), 64),
    Twin("mobilevit", None, in_timm("mobilevit_xxs"), in_hf("MobileViT", **MOBILEVIT_HF), 128),
    Twin("mobilevit-v2", None, in_timm("mobilevitv2_050"), in_hf("MobileViTV2", width_multiplier=0.5), 128),
    Twin("focalnet", None, seeded(0, timm.models.FocalNet, **FOCAL), in_hf("FocalNet", **FOCAL_HF), 64),
    Twin("bit", None, seeded(0, timm.models.ResNetV2, **BIT), in_hf("Bit", **BIT_HF)),
    Twin("hiera", None, in_timm("hiera_tiny_224", **HIERA), in_hf("Hiera", **HIERA_HF), 64),
    # The rotary tables of DINOv3 and the norms of AIMv2 are computed in float32 on one side.
    Twin(
        "dinov3",
        None,
        in_timm("vit_small_patch16_dinov3_qkvb", **CLS),
        part("DINOv3ViTModel", **DINO3_HF),
        32,
        1e-6,
        MASK,
    ),
    Twin(
        "dinov3-gated",
        None,
        in_timm("vit_huge_plus_patch16_dinov3_qkvb", **CLS),
        part("DINOv3ViTModel", **GATED_HF),
        32,
        1e-6,
        MASK,
    ),
    Twin("aimv2", None, in_timm("aimv2_large_patch14_224", **VIT | MAP), part("Aimv2VisionModel", **AIM_HF), 32, 1e-5),
    Twin(
        "dinov3-convnext", None, in_timm("convnext_tiny", **PYRAMID | BARE), part("DINOv3ConvNextModel", **NEXT_HF), 64
    ),
    Twin(
        "levit",
        None,
        in_timm("levit_128s", **LEVIT),
        part("LevitForImageClassificationWithTeacher", **LEVIT_HF),
        128,
        note=CACHE,
    ),
    Twin("hgnet-v2", None, seeded(0, timm.models.HighPerfGpuNet, **HGNET), in_hf("HGNetV2", **HGNET_HF), 64),
    Twin("sam", None, in_timm("samvit_base_patch16", **VIT | MAP | SAM), part("SamVisionModel", **EPS5_HF | SAM_HF)),
    Twin("sam2", None, seeded(0, _sam2, **SAM2 | MAP), part("Sam2HieraDetModel", **SAM2_HF), 64),
    Twin(
        "internvl",
        None,
        in_timm("vit_intern300m_patch14_448", **VIT | MAP),
        part("InternVLVisionModel", **VIT_HF, attention_bias=True),
    ),
    Twin("swin-tv", None, in_timm("swin_tiny_patch4_window7_224", **SWIN), in_tv(zoo.SwinTransformer, **SWIN_TV)),
    Twin(
        "swin-v2-tv",
        None,
        in_timm("swinv2_tiny_window8_256", **SWIN),
        in_tv(zoo.SwinTransformer, **SWIN2_TV),
        alone=COORDS,
        note=KEYS,
    ),
    Twin("convnext-tv", None, in_timm("convnext_tiny", **PYRAMID), in_tv(zoo.ConvNeXt, NEXT_TV), 64),
    Twin("regnet-x-tv", None, in_timm("regnetx_002", **REGNET), in_tv(zoo.RegNet, REGNET_TV())),
    Twin("regnet-y-tv", None, in_timm("regnety_002", **REGNET), in_tv(zoo.RegNet, REGNET_TV(se_ratio=0.25))),
    Twin("mobilenet-v2-tv", None, in_timm("mobilenetv2_035"), in_tv(zoo.mobilenet_v2, width_mult=0.35), 64),
    Twin("mobilenet-v3-tv", None, in_timm("mobilenetv3_small_100", bn_eps=1e-3), in_tv(zoo.mobilenet_v3_small), 64),
    Twin("efficientnet-tv", None, in_timm("efficientnet_b0"), in_tv(zoo.efficientnet_b0), 64),
    # Its outputs are about a thousand.
    Twin("mnasnet-tv", None, in_timm("mnasnet_050"), in_tv(zoo.mnasnet0_5), 64, 1e-9),
    Twin("densenet-tv", None, in_timm("densenet121", **DENSE), in_tv(zoo.DenseNet, **DENSE, num_init_features=16)),
    Twin("inception-v3-tv", None, in_timm("inception_v3"), in_tv(zoo.inception_v3, **INCEPTION_TV), 96),
)
