"""timm and transformers: the one room, beside `demo`, that knows them, and only when it is asked for a model.

It is given files that lie on this machine. No library is left to fetch, to choose between files, to read a
pickle or to run code that came with a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rws_hub.errors import CheckpointError
from rws_hub.sources import INDEX_SUFFIX, checkpoint_files

_THEIRS = ("model.safetensors", "model" + INDEX_SUFFIX)  # what transformers looks for, in this order


@dataclass(frozen=True, slots=True)
class Saved:
    """A model on disk.

    Attributes:
        folder: where its config.json is.
        config: the contents of that.
        label: what to call it in messages.
    """

    folder: Path
    config: Mapping[str, Any]
    label: str


def load(saved: Saved, files: list[Path]) -> nn.Module:
    """The model with its weights, which are in `files` and in nothing else.

    Raises:
        CheckpointError: its library is missing, does not know it, or would read other files.
    """
    if "model_type" in saved.config:
        return _load_transformers(saved, files)
    source = _timm_source(saved)
    if len(files) > 1:
        raise CheckpointError(f"{saved.label} has {len(files)} shards; timm reads one file")
    # The very file, instead of what timm would take from a folder: that may be a pickle.
    exact = {"source": None, "state_dict": None, "file": str(files[0]), "custom_load": False}
    model: nn.Module = _timm().create_model(source, pretrained=True, pretrained_cfg_overlay=exact)
    return model


def build(saved: Saved) -> nn.Module:
    """The model with random weights, from its config alone.

    Raises:
        CheckpointError: its library is missing or does not know it.
    """
    model: nn.Module
    if "model_type" in saved.config:
        loader = _auto_class(saved)
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(saved.folder, local_files_only=True, trust_remote_code=False)
        model = loader.from_config(config, trust_remote_code=False)
    else:
        model = _timm().create_model(_timm_source(saved), pretrained=False)
    return model


def build_timm(name: str) -> nn.Module | None:
    """The model that timm knows by this name, with random weights; None if timm does not know it.

    Raises:
        CheckpointError: timm is not installed.
    """
    timm = _timm()
    try:
        known = timm.is_model(name) and timm.get_pretrained_cfg(name) is not None
    except RuntimeError:  # an architecture of this timm with a tag that is not
        return None
    return timm.create_model(name, pretrained=False) if known else None


def default_weights(name: str) -> str:
    """The repository from which timm.create_model(name, pretrained=True) would load.

    Raises:
        CheckpointError: timm is not installed, or names none.
    """
    try:
        timm = _timm()
    except CheckpointError as error:
        raise CheckpointError(
            f"which weights timm/{name} stands for only timm knows, and it is not installed: pip install "
            "'rws-hub[timm]', or name them with their tag, as in timm/resnet18.a1_in1k"
        ) from error
    known = timm.get_pretrained_cfg(name)
    if known is None:
        return f"timm/{name}"  # no architecture, but perhaps a repository of that very name
    if not known.hf_hub_id or known.hf_hub_filename:
        raise CheckpointError(f"timm {timm.__version__} has no default weights of {name} in a repository of their own")
    return str(known.hf_hub_id)


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise  # it is installed, and lacks something itself
        raise CheckpointError("this is a model of timm, which is not installed: pip install 'rws-hub[timm]'") from error
    return timm


def _timm_source(saved: Saved) -> str:
    """What timm.create_model takes for a folder with a config."""
    architecture = saved.config.get("architecture")
    if not isinstance(architecture, str):
        raise CheckpointError(
            f"{saved.label}: config.json names neither an architecture of timm nor a model_type of transformers. "
            "Build the model yourself and patch it: patch(model, signature)"
        )
    timm = _timm()
    if not timm.is_model(architecture):
        raise CheckpointError(
            f"{saved.label}: timm {timm.__version__} knows no {architecture!r}; a newer one may: pip install -U timm"
        )
    return f"local-dir:{saved.folder}"


def _load_transformers(saved: Saved, files: list[Path]) -> nn.Module:
    loader = _auto_class(saved)
    theirs = next((name for name in _THEIRS if (saved.folder / name).is_file()), None)
    if theirs is None or checkpoint_files(saved.folder / theirs) != files:
        raise CheckpointError(f"{saved.label}: transformers reads {' or '.join(_THEIRS)}, and no file of another name")
    model: nn.Module
    # Pickles are not read, and False keeps transformers from asking the terminal whether code may run.
    model, report = loader.from_pretrained(
        saved.folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if _is_classifier(saved) and (missing := sorted(report["missing_keys"])):
        raise CheckpointError(f"{saved.label}: the weights lack {missing[0]} ({len(missing)} tensors in all)")
    return model


def _auto_class(saved: Saved) -> Any:
    """The class of transformers that makes models of this config, without code from elsewhere."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise CheckpointError(
            f"{saved.label} is a model of transformers, which is not installed: pip install 'rws-hub[transformers]'"
        ) from error
    loader: Any = transformers.AutoModel
    known: Any = transformers.MODEL_MAPPING
    if _is_classifier(saved):
        loader = transformers.AutoModelForImageClassification
        known = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    name = saved.config["model_type"]
    configs = transformers.CONFIG_MAPPING
    if not isinstance(name, str) or name not in configs or configs[name] not in known:
        raise CheckpointError(
            f"{saved.label}: the {loader.__name__} of transformers {transformers.__version__} knows no model_type "
            f"{name!r}; a newer one may: pip install -U transformers. Code that comes with a model is not run"
        )
    return loader


def _is_classifier(saved: Saved) -> bool:
    architectures = saved.config.get("architectures")
    return isinstance(architectures, list) and any("ForImageClassification" in str(a) for a in architectures)
