"""Models from a reference: their checkpoint, live, with random weights, or patched with a signature."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rws_hub.checkpoints import Access, Located, locate, locate_config
from rws_hub.errors import ArtifactError, CheckpointError
from rws_hub.libraries import Saved, build, build_timm, load
from rws_hub.patching import patch
from rws_hub.plan import MAX_RELATIVE_NORM, Verify
from rws_hub.references import parse, timm_name
from rws_hub.signature import RobustWeightSignature
from rws_hub.sources import checkpoint_files

_PROCESSOR_FILE = "preprocessor_config.json"


def checkpoint(
    reference: str | Path,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The (sharded) safetensors behind a model reference: a local path as it is, or the cache folder of one commit.

    A reference is a local path, `timm/<name>`, `namespace/name` or `hf-hub:namespace/name`, the last three with
    an optional `@revision`; `timm/resnet18` without a tag means timm's default weights.

    Args:
        reference: see above; a local path that exists wins.
        token: Hub token; None takes the stored login.
        cache_dir: of the Hub client; None is its default.
        local_files_only: no network; what is not in the cache is an error.

    Returns:
        What `plan_patch` and `rws apply` take. From the Hub only `config.json` and safetensors are fetched. If
        the cache holds other weights of the same commit, the file or index itself.

    Raises:
        CheckpointError: not a reference, a signature, or no (single) safetensors checkpoint.
        huggingface_hub.errors: whatever the Hub client raises, untouched.
    """
    return locate(parse(reference), Access(token, cache_dir, local_files_only)).path


def load_model(
    reference: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> nn.Module:
    """A live model with its weights, in eval mode, by timm or transformers as its `config.json` says.

    Args:
        reference: as in `checkpoint`.
        revision: branch, tag or commit, in place of `@revision`.
        token: as in `checkpoint`.
        cache_dir: as in `checkpoint`.
        local_files_only: as in `checkpoint`.

    Raises:
        CheckpointError: as in `checkpoint`; no config, or its library is missing or does not know the model.
        huggingface_hub.errors: whatever the Hub client raises, untouched.

    Example:
        >>> model = load_model("timm/resnet18.a1_in1k")
        >>> with patch(model, fog):
        ...     logits = model(images)
    """
    return _load(locate(parse(reference, revision), Access(token, cache_dir, local_files_only)))


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A live model and what lay beside it.

    Attributes:
        model: in eval mode.
        config: the `config.json` of timm or transformers, from which it can be built again.
        processor: the contents of `preprocessor_config.json`, if there is one.
        label: what to call it: for a repository a reference to its commit.
    """

    model: nn.Module
    config: dict[str, Any]
    processor: dict[str, Any] | None
    label: str


def open_model(reference: str | Path, *, seed: int | None = None) -> Opened:
    """A model with what says how to build it again, and how it wants its pictures.

    Args:
        reference: as in `checkpoint`.
        seed: build it with seeded random weights, as `build_model` does; None loads its weights.

    Raises:
        CheckpointError: as in `load_model`.
        huggingface_hub.errors: whatever the Hub client raises, untouched.
    """
    if seed is not None and (name := timm_name(reference)) and (model := _build_timm(name, seed)):
        stated: Any = getattr(model, "pretrained_cfg", {})
        config = {"architecture": stated.get("architecture", name), "pretrained_cfg": dict(stated)}
        return Opened(model.eval(), config, None, f"timm/{name} with random weights of seed {seed}")
    access = Access()
    found = (locate if seed is None else locate_config)(parse(reference), access)
    model = _load(found) if seed is None else build_model(reference, seed=seed)
    file: Path | None = found.folder / _PROCESSOR_FILE
    if found.commit is not None:
        file = access.download(parse(reference).repo_id, _PROCESSOR_FILE, found.commit)
    processor = json.loads(file.read_bytes()) if file is not None and file.is_file() else None
    label = found.label if seed is None else f"{found.label} with random weights of seed {seed}"
    return Opened(model, found.config(), processor, label)


def build_model(reference: str | Path, *, seed: int = 0) -> nn.Module:
    """The same architecture with seeded random weights, in eval mode; weights are not fetched.

    `timm/<name>` is built by timm alone, without network; anything else needs its `config.json`. The global
    random state stays as it is.

    Raises:
        CheckpointError: as in `load_model`.
        huggingface_hub.errors: whatever the Hub client raises, untouched.
    """
    name = timm_name(reference)
    model = None if name is None else _build_timm(name, seed)
    if model is None:
        saved = _saved(locate_config(parse(reference), Access()))
        with _seeded(seed), torch.device("cpu"):
            model = build(saved)
    return model.eval()


def example_input(model: nn.Module, size: int | None = None) -> torch.Tensor:
    """One seeded random picture [1, 3, size, size], float32; by default of the size that the model states, or 224.

    Raises:
        ValueError: a size below 1.
    """
    if size is not None and size < 1:
        raise ValueError(f"a picture has a side of at least 1 pixel, not {size}")
    timm_says: object = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    config: object = getattr(model, "config", None)
    config = getattr(config, "vision_config", config)
    stated = size or (timm_says or getattr(config, "image_size", None) or 224)
    side = stated if isinstance(stated, int) else tuple(stated)[-1]  # type: ignore[arg-type]
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def load_patched(
    signature: str | Path | RobustWeightSignature,
    *,
    alpha: float | None = None,
    base: str | None = None,
    verify: Verify = "kin",
    max_relative_norm: float = MAX_RELATIVE_NORM,
    table: str | Path | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    revision: str | None = None,
    subfolder: str | None = None,
    public_key: str | Path | None = None,
    lock: str | Path | None = None,
) -> nn.Module:
    """Load the model that a signature was made for, with the signature on it, in eval mode.

    Args:
        signature: a Hub id, a local folder, or a loaded signature.
        alpha: patch strength; None is the recommended one.
        base: a model reference (see `checkpoint`) in place of the recorded base.
        verify: which models are refused, as in `patch`.
        max_relative_norm: which changes are refused, as in `patch`.
        table: a name table of your own (docs/NAMES.md), used instead of those of the package.
        token: Hub token; None takes the stored login.
        cache_dir: of the Hub client; None is its default.
        local_files_only: no network; what is not in the cache is an error.
        revision: of the signature: branch, tag or commit.
        subfolder: where in its repository or folder the signature is.
        public_key: PEM file of the key that has to have signed the signature; it states the base and its commit.
        lock: an `rws.lock` that has to pin the signature.

    Returns:
        The patched model. Its handle is `active_patches(model)[0]`, which also takes the patch off.

    Raises:
        ArtifactError: the signature cannot be read.
        CheckpointError: no base is recorded, or it cannot be loaded.
        IncompatibleModelError: the signature does not fit the base, or is refused on these terms.
        NameTableError: a table that cannot be read, or that does not explain the signature's names.
        huggingface_hub.errors: whatever the Hub client raises, untouched.

    Example:
        model = load_patched("user/resnet18-fog", alpha=0.8)
        active_patches(model)[0].unpatch()  # now it is the bare base model
    """
    if not isinstance(signature, RobustWeightSignature):
        signature = RobustWeightSignature.from_pretrained(
            signature,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            subfolder=subfolder,
            public_key=public_key,
            lock=lock,
        )
    elif (revision, subfolder, public_key, lock) != (None, None, None, None):
        raise ArtifactError(
            "revision, subfolder, public_key and lock are for loading a signature; this one is loaded already"
        )
    recorded = signature.config.backbone
    if base is None and recorded.repo_id is None:
        raise CheckpointError(
            f"the signature does not say which published model it was made from ({recorded.library} "
            f"{recorded.architecture}): pass base=..., or load the model yourself and call patch(model, signature)"
        )
    model = load_model(
        f"hf-hub:{recorded.repo_id}" if base is None else base,  # what is recorded is never a local path
        revision=recorded.revision if base is None else None,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    patch(model, signature, alpha=alpha, verify=verify, max_relative_norm=max_relative_norm, table=table)
    return model


def _load(found: Located) -> nn.Module:
    with _seeded(0):  # weights that the file may lack, such as a pooler's, are the same every time
        return load(_saved(found), checkpoint_files(found.path)).eval()


def _build_timm(name: str, seed: int) -> nn.Module | None:
    with _seeded(seed), torch.device("cpu"):
        return build_timm(name)


def _saved(found: Located) -> Saved:
    return Saved(found.folder, found.config(), found.label)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The CPU's generator at a seed, and back. torch.manual_seed would move those of GPUs, too."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
