"""The model card: a pure function of config and results. Nothing is looked up, guessed or invented.

`card_template.md` is the layout of the body; here are the facts it shows, the escapes that keep foreign
values from breaking it, and the YAML front matter. What a person wrote in an existing card is the business
of `card_merge`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import yaml
from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

from rws_hub.card_merge import PIPELINE_TAG, YAML_WIDTH, seal
from rws_hub.config import check_config, is_repo_id
from rws_hub.errors import CardError
from rws_hub.results import OWN_CLEAN_MODEL, Evaluation, Results
from rws_hub.spec import CONFIG_FILE, PAYLOAD_FILE, SignatureConfig

TEMPLATE = "card_template.md"

_FIGURE = re.compile(r"[\w-]+(/[\w-]+)*\.png", re.ASCII)
_BAR = 20
# A backbone of more layers than this gets its profile folded away.
_LONG_PROFILE = 24


def render_card(
    config: SignatureConfig,
    results: Results | None = None,
    repo_id: str | None = None,
    figures: tuple[str, ...] = (),
) -> str:
    """The whole README.md: front matter and, between markers, the generated block. Same input, same bytes.

    Args:
        config: of the artifact.
        results: what was measured with it; without them the card says that nothing was.
        repo_id: where it will be published; without it the card shows a path to fill in.
        figures: paths of pictures inside the artifact, such as "figures/alpha.png".

    Raises:
        CorruptArtifactError: the config does not hold, or the results are unsound or of another signature.
        CardError: `repo_id` or a figure's path cannot be one, or a value contains a marker of the block.
    """
    check_config(config)
    if results is not None:
        results.require_for(config)
    if repo_id is not None and not is_repo_id(repo_id):
        raise CardError(f"{repo_id!r} is not a Hub id (namespace/name)")
    if bad := [f for f in figures if not _FIGURE.fullmatch(f)]:
        raise CardError(f"a figure must be a picture inside the artifact, such as figures/alpha.png; found {bad[0]!r}")
    evaluations = results.evaluations if results else ()
    backbone, profile = config.backbone, config.extraction.profile
    facts = {
        "config": config,
        "results": results,
        "figures": figures,
        "files": {"config": CONFIG_FILE, "payload": PAYLOAD_FILE},
        "title": title(config),
        "snippet": _snippet(config, repo_id),
        "remarks": _remarks(evaluations),
        "own_clean_model": OWN_CLEAN_MODEL,
        "has_own_clean_model": any(e.target == OWN_CLEAN_MODEL for e in evaluations),
        "has_robust": any(a.robust is not None for e in evaluations for a in (e.clean, e.corrupted)),
        "config_bytes": len(config.to_text().encode()),
        "worst": max(config.tensors.items(), key=lambda item: item[1].relative_error),
        "longest": max((u.relative_difference for u in profile), default=0.0),
        "touched_units": sum(u.touched for u in profile),
        "in_order": backbone.family != "identity" or config.extraction.layers != "names",
        "has_batchnorm": backbone.has_batchnorm,
        "long_profile": len(profile) > _LONG_PROFILE,
    }
    return "---\n" + front_matter(config, results) + "---\n\n" + seal(_template().render(facts)) + "\n"


def title(config: SignatureConfig) -> str:
    """The card's title, unescaped; also the name of our entry in the model index."""
    return f"{config.corruption.name} robustness for {_line(config.backbone.architecture)}"


def front_matter(config: SignatureConfig, results: Results | None) -> str:
    """The YAML between the dashes, ending in a line break."""
    backbone, evaluations = config.backbone, results.evaluations if results else ()
    ids = [config.corruption.dataset, *(e.dataset_id for e in evaluations)]
    datasets = list(dict.fromkeys(i for i in ids if i is not None and is_repo_id(i)))
    tags = ["rws", "robust-weight-signature", "robustness", config.corruption.name]
    if backbone.library in ("timm", "transformers"):
        tags.append(backbone.library)
    data: dict[str, Any] = {"library_name": "rws-hub", "license": config.license}
    if backbone.repo_id is not None:
        data |= {"base_model": backbone.repo_id, "base_model_relation": "adapter"}
        tags.append(f"base_model:adapter:{backbone.repo_id}")
    data |= {"pipeline_tag": PIPELINE_TAG, "tags": list(dict.fromkeys(tags))}
    if datasets:
        data["datasets"] = datasets
    if evaluations:
        data |= {"metrics": ["accuracy"], "model-index": _model_index(title(config), evaluations)}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=YAML_WIDTH)


def _text(value: object) -> str:
    """A value as plain text inside a line or a table cell, whatever it contains."""
    return re.sub(r"[\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w)", lambda m: "\\" + m[0], _line(value))


def _code(value: object) -> str:
    """A value as a code span inside a table cell."""
    line = _line(value)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def _paragraph(value: object) -> str:
    """A value as a paragraph of its own: no heading, list, quote or rule, however it begins."""
    return re.sub(r"^(\d*)([-+=#.)])", r"\1\\\2", _text(value))


def _line(value: object) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _percent(fraction: float | None) -> str:
    return "not measured" if fraction is None else f"{100 * fraction:.1f}"


def _bar(value: float, longest: float) -> str:
    return "█" * round(_BAR * (value / longest)) if longest > 0 else ""


def _condition(corruption: str, severity: int | None) -> str:
    return corruption if severity is None else f"{corruption} at severity {severity}"


def _snippet(config: SignatureConfig, repo_id: str | None) -> str:
    backbone = config.backbone
    imports = ""
    model = f"...  # a {_line(backbone.architecture)} ({_line(backbone.library)}), in evaluation mode"
    if backbone.repo_id is not None and backbone.library == "timm":
        imports = "import timm\n"
        model = f'timm.create_model("hf-hub:{backbone.repo_id}", pretrained=True).eval()'
    elif backbone.repo_id is not None and backbone.library == "transformers":
        imports = "from transformers import AutoModelForImageClassification\n"
        model = f'AutoModelForImageClassification.from_pretrained("{backbone.repo_id}").eval()'
    return (
        f"{imports}from rws_hub import RobustWeightSignature, patch\n\n"
        f"model = {model}\n"
        f'signature = RobustWeightSignature.from_pretrained("{repo_id or "path/to/this/folder"}")\n'
        f"with patch(model, signature, alpha={config.recommended_alpha!r}):\n"
        f"    outputs = model(images)"
    )


def _remarks(evaluations: tuple[Evaluation, ...]) -> tuple[str, ...]:
    """What a reader must not miss in the numbers: where patching does not help, and what it costs."""
    found = []
    for e in evaluations:
        who, images = f"{_text(e.target)}, alpha {e.alpha:g}", f"{_text(e.dataset)} {_text(e.split)}"
        if e.corrupted.patched <= e.corrupted.unpatched:
            where = _condition(e.corruption, e.severity)
            change = f"{_percent(e.corrupted.unpatched)} % → {_percent(e.corrupted.patched)} %"
            found.append(f"{who}: patching does not help on {where} ({change}; {images}).")
        if (loss := e.clean.unpatched - e.clean.patched) > 0:
            points = f"{100 * loss:.1f}" if round(100 * loss, 1) else "less than 0.1"
            found.append(f"{who}: patching costs {points} points of accuracy on clean images ({images}).")
    return tuple(dict.fromkeys(found))


def _model_index(name: str, evaluations: tuple[Evaluation, ...]) -> list[dict[str, Any]]:
    """Patched accuracies only. The Hub's grouping drops all but type, config and split, so these tell all."""
    results: list[Any] = []
    for dataset, dataset_id in dict.fromkeys((e.dataset, e.dataset_id) for e in evaluations):
        rows: dict[tuple[object, ...], EvalResult] = {}
        for e in evaluations:
            if (e.dataset, e.dataset_id) != (dataset, dataset_id):
                continue
            corrupted = e.corruption if e.severity is None else f"{e.corruption}/{e.severity}"
            for condition, value in (("clean", e.clean.patched), (corrupted, e.corrupted.patched)):
                key = (condition, e.split, round(value, 6), e.target, f"{e.alpha!r}", e.images, e.seed)
                rows[key] = EvalResult(
                    task_type="image-classification",
                    dataset_type=dataset_id or "unknown",
                    dataset_name=dataset,
                    dataset_config=condition,
                    dataset_split=e.split,
                    metric_type=e.metric,
                    metric_value=round(value, 6),
                    metric_name=f"top-1 accuracy of the patched model ({e.target}, alpha {e.alpha:g})",
                    metric_args={"alpha": e.alpha, "images": e.images, "seed": e.seed},
                )
        results += eval_results_to_model_index(name, list(rows.values()))[0]["results"]
    return [{"name": name, "results": results}]


@cache
def _template() -> jinja2.Template:
    source = resources.files("rws_hub").joinpath(TEMPLATE).read_text(encoding="utf-8")
    # A fact that is missing is an error here, never an empty place in a card. No autoescape: it is not HTML.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "text": _text,
        "code": _code,
        "paragraph": _paragraph,
        "caption": lambda path: re.split(r"[/.]", path)[-2].replace("_", " ").replace("-", " "),
        "condition": _condition,
        "percent": _percent,
        "number": "{:,}".format,
        "ratio": "{:,.1f}".format,
        "significant": "{:#.3g}".format,
        "plain": "{:g}".format,
        "bar": _bar,
    }
    return environment.from_string(source)
