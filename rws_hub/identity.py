"""What a model says about itself, recorded in the config. Asks the object or its files; imports no model library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from rws_hub.names import families
from rws_hub.recognise import Recognition
from rws_hub.sources import WeightsLike
from rws_hub.spec import Backbone

_WRAPPED = ("module", "_orig_mod")


def describe_backbone(
    source: WeightsLike, recognition: Recognition, repo_id: str | None, revision: str | None
) -> Backbone:
    """The config's backbone. `repo_id` and `revision` are only what the caller stated: nothing is guessed.

    Which published weights a model came from cannot be read off it: timm names a checkpoint in a model's
    config even when its weights are random.
    """
    table = recognition.table
    model = _unwrapped(source) if isinstance(source, nn.Module) else None
    library, architecture = ("unknown", "unknown")
    if model is not None:
        library, architecture = _of_module(model)
    elif isinstance(source, (str, Path)):
        library, architecture = _of_files(Path(source))
    return Backbone(
        library=library,
        architecture=architecture,
        repo_id=repo_id,
        revision=revision,
        family=recognition.family,
        table=None if table is None or table is families().get(table.name) else table.text,
        dialect=recognition.dialect,
        layout=dict(recognition.body),
        head=dict(recognition.head),
        function=_function(model),
    )


def _unwrapped(model: nn.Module) -> nn.Module:
    for name in _WRAPPED:
        inner = model._modules.get(name)
        if inner is not None and len(model._modules) == 1:
            return _unwrapped(inner)
    return model


def _of_module(model: nn.Module) -> tuple[str, str]:
    """Library and architecture of a live model."""
    package = type(model).__module__.partition(".")[0]
    library = package if package in ("timm", "transformers", "torchvision") else "torch"
    pretrained: Any = getattr(model, "pretrained_cfg", None)
    if library == "timm" and isinstance(pretrained, dict) and isinstance(pretrained.get("architecture"), str):
        return library, pretrained["architecture"]
    return library, type(model).__name__


def _of_files(path: Path) -> tuple[str, str]:
    """Library and architecture by the config.json that timm and transformers write beside their weights."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return "unknown", "unknown"
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return "unknown", "unknown"  # advisory facts only: weights without a config are fine
    if isinstance(config, dict) and isinstance(config.get("architecture"), str):
        return "timm", config["architecture"]
    if isinstance(config, dict) and isinstance(config.get("architectures"), list) and config["architectures"]:
        return "transformers", str(config["architectures"][0])
    return "unknown", "unknown"


def _function(model: nn.Module | None) -> dict[str, str]:
    """Facts that names and shapes cannot show but that change what the same weights compute."""
    if model is None:
        return {}
    facts: dict[str, set[str]] = {"activation": set(), "norm": set()}
    for module in model.modules():
        kind = type(module).__name__
        if type(module).__module__.startswith("torch.nn.modules.activation"):
            facts["activation"].add(kind)
        if isinstance(eps := getattr(module, "eps", None), float):
            facts["norm"].add(f"{kind} eps={eps:g}")
    return {key: ", ".join(sorted(values)) for key, values in facts.items() if values}
