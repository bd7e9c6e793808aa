"""A trained model as a folder that its library, and every `rws` command, loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from rws_hub.artifact import write_files
from rws_hub.checkpoints import SINGLE_FILE
from rws_hub.classifier import Preprocessing
from rws_hub.disk import scratch_folder
from rws_hub.spec import CONFIG_FILE
from rws_hub.training.state import weights

_PREPROCESSOR_FILE = "preprocessor_config.json"


def export(
    model: nn.Module,
    out: Path,
    *,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    config: Mapping[str, Any] | None,
) -> None:
    """Write weights as safetensors, and the `config.json` of timm or transformers.

    Args:
        model: on any device.
        out: folder; files of these names are replaced, each as a whole.
        classes: names, in the order of the labels.
        preprocessing: of the pictures.
        config: the `config.json` that the model was built from, which says how to build it again; None leaves
            weights alone for a model that neither library has built.
    """
    files = {SINGLE_FILE: safetensors.torch.save(weights(model), {"format": "pt"})}
    size = preprocessing.view.size
    if callable(save := getattr(model, "save_pretrained", None)) and hasattr(model, "config"):
        named: Any = model.config
        named.id2label = dict(enumerate(classes))
        named.label2id = {name: i for i, name in enumerate(classes)}
        with scratch_folder(out, "export") as scratch:
            save(scratch)  # its checkpoint's names are not those in memory
            files = {p.name: p.read_bytes() for p in scratch.iterdir()}
        said = {
            "image_mean": list(preprocessing.mean),
            "image_std": list(preprocessing.std),
            "crop_pct": size / preprocessing.view.resize,
            "size": {"height": size, "width": size},
        }
        files[_PREPROCESSOR_FILE] = _json(said)
    elif config is not None:
        stated = {k: v for k, v in dict(config.get("pretrained_cfg") or {}).items() if k not in _OF_ITS_SOURCE}
        arguments = dict(config.get("model_args") or {})
        arguments |= {"num_classes": len(classes)} if "num_classes" in arguments else {}  # they would win
        files[CONFIG_FILE] = _json(
            {
                **config,
                **({"model_args": arguments} if arguments else {}),
                "num_classes": len(classes),
                "label_names": list(classes),
                "pretrained_cfg": {
                    **stated,
                    "num_classes": len(classes),
                    "input_size": [3, size, size],
                    "mean": list(preprocessing.mean),
                    "std": list(preprocessing.std),
                    "crop_pct": size / preprocessing.view.resize,
                },
            }
        )
    write_files(out, files)


# What timm's config says about where weights come from: those of another model by now.
_OF_ITS_SOURCE = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "tag", "label_names")


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
