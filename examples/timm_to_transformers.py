"""One signature, two libraries: made from timm models, used on the transformers twin of the same weights.

Run: python examples/timm_to_transformers.py      (random weights, no download, a few seconds)
"""

import copy

import timm
import torch
import transformers

from rws_hub import RobustWeightSignature, patch, plan_patch
from rws_hub.cells import Slice
from rws_hub.names import families
from rws_hub.recognise import recognise
from rws_hub.resolve import match

torch.manual_seed(0)
clean = timm.create_model("vit_tiny_patch16_224", depth=4, num_classes=10).eval()
robust = copy.deepcopy(clean)  # stands for a twin that was fine-tuned on foggy images
with torch.no_grad():
    for weight in robust.parameters():
        weight.add_(0.01 * torch.randn_like(weight))

fog = RobustWeightSignature.extract(
    standard=clean, robust=robust, corruption="fog", license="apache-2.0", layers=["patch_embed.*", "blocks.[01].*"]
)

# The same weights as a transformers model, where the fused qkv is three matrices with other names.
config = transformers.ViTConfig(
    hidden_size=192, num_attention_heads=3, intermediate_size=768, num_hidden_layers=4, layer_norm_eps=1e-6
)
twin = transformers.ViTForImageClassification(config).eval()
weights, body = clean.state_dict(), recognise({n: tuple(w.shape) for n, w in clean.state_dict().items()})[0].body
layout = {n: tuple(w.shape) for n, w in twin.state_dict().items()}
with torch.no_grad():
    for piece in match(families()["vit"], body, body, layout)[0].pieces:
        part = piece.part or Slice(0, 0, len(weights[piece.canonical]))
        twin.get_parameter(piece.model).copy_(weights[piece.canonical][part.start : part.stop])

print(plan_patch(twin, fog).explain())

images = torch.randn(2, 3, 224, 224)
with torch.no_grad(), patch(clean, fog, alpha=0.8), patch(twin, fog, alpha=0.8):
    difference = (clean.forward_features(images) - twin.vit(images).last_hidden_state).abs().max()
print(f"largest difference of the patched twins' features: {difference:.1e}")
assert difference < 1e-4
