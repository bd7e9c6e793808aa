"""The model card: a pure function of config and results. Nothing is looked up, guessed or invented.

`card_template.md` is the layout of the body; here are the facts it shows, the escapes that keep foreign
values from breaking it, and the YAML front matter. What a person wrote in an existing card is the business
of `card_merge`.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import yaml
from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

from rws_hub.errors import CardError
from rws_hub.results import OWN_CLEAN_MODEL, Evaluation, Results
from rws_hub.spec import CONFIG_FILE, PAYLOAD_FILE, Corruption, SignatureConfig, is_repo_id

TEMPLATE = "card_template.md"

BEGIN = re.compile(r"<!-- rws-hub:begin(?: sha256=(?P<sha256>[0-9a-f]{64}))? -->")
END = re.compile(r"<!-- rws-hub:end -->")
PIECES = re.compile(r"\n*<!-- rws-hub:pieces(?P<digests>(?: [0-9a-f]{8})*) -->")

_ITEM = re.compile(r"([-*+]|\d+[.)])\s")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_FIGURE = re.compile(r"(?!\.)[\w-]+(/[\w-]+)*\.(png|svg|jpg)", re.ASCII)
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
        CorruptArtifactError: the results are unsound or of another signature.
        CardError: `repo_id` or a figure's path cannot be one, or a value contains a marker of the block.
    """
    if results is not None:
        results.require_for(config)
    if repo_id is not None and not is_repo_id(repo_id):
        raise CardError(f"{repo_id!r} is not a Hub id (namespace/name)")
    if bad := [f for f in figures if not _FIGURE.fullmatch(f)]:
        raise CardError(f"a figure must be a picture inside the artifact, such as figures/alpha.png; found {bad[0]!r}")
    facts = {
        "config": config,
        "results": results,
        "figures": figures,
        "title": title(config),
        "snippet": _snippet(config, repo_id),
        "remarks": _remarks(results.evaluations) if results else (),
        "has_robust": results is not None
        and any(e.clean.robust is not None or e.corrupted.robust is not None for e in results.evaluations),
        "config_bytes": len(config.to_text().encode()),
        "worst": max(config.tensors.items(), key=lambda item: item[1].relative_error),
        "long_profile": len(config.extraction.profile) > _LONG_PROFILE,
        "files": {"config": CONFIG_FILE, "payload": PAYLOAD_FILE},
        "own_clean_model": OWN_CLEAN_MODEL,
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
    data |= {"pipeline_tag": "image-classification", "tags": list(dict.fromkeys(tags))}
    if datasets:
        data["datasets"] = datasets
    if evaluations:
        data |= {"metrics": ["accuracy"], "model-index": _model_index(title(config), evaluations)}
    return dump(data)


def dump(data: Any) -> str:
    """YAML as every part of a card writes it: keys in the given order, one line per value."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6)


def seal(block: str) -> str:
    """A generated block between its markers, with the digests by which a later edit is recognised.

    The begin marker holds the digest of everything between the markers: a block that still has it was not
    edited. Where it was, the digests of the single pieces tell the sentences and rows that were generated
    from those that a person wrote.

    Raises:
        CardError: the block itself contains a marker.
    """
    block = block.strip("\n")
    if any(m.search(block) for m in (BEGIN, END, PIECES)):
        raise CardError("a value contains one of the comments that mark the generated part of a card")
    digests = " ".join(dict.fromkeys(piece_digest(p) for p in pieces(block)))
    block += f"\n\n<!-- rws-hub:pieces {digests} -->"
    return f"<!-- rws-hub:begin sha256={digest(block)} -->\n{block}\n<!-- rws-hub:end -->"


def digest(block: str) -> str:
    """sha256 in hex of what stands between the markers, without the line breaks next to them."""
    return hashlib.sha256(block.strip("\n").encode()).hexdigest()


def piece_digest(piece: str) -> str:
    """Eight hex digits of a piece; blanks at the ends of lines do not count."""
    return hashlib.sha256("\n".join(line.rstrip() for line in piece.splitlines()).encode()).hexdigest()[:8]


def pieces(text: str) -> list[str]:
    """The smallest parts that a person would write or edit: paragraphs, list items, table rows, code blocks."""
    found: list[list[str]] = []
    fence, joins = "", False
    for line in text.split("\n"):
        opening = _FENCE.match(line)
        if fence:
            found[-1].append(line)
            if opening and opening[1].startswith(fence) and line.strip() == opening[1]:
                fence, joins = "", False
            continue
        if not line.strip():
            joins = False
            continue
        starts = not joins or opening is not None or line.startswith("|") or _ITEM.match(line) is not None
        if starts:
            found.append([])
        found[-1].append(line)
        fence = opening[1] if opening else ""
        joins = not line.startswith("|")
    return ["\n".join(lines) for lines in found]


def text(value: object) -> str:
    """A value as plain text inside a line or a table cell, whatever it contains."""
    return re.sub(r"[\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w)", lambda m: "\\" + m[0], _line(value))


def code(value: object) -> str:
    """A value as a code span inside a table cell."""
    line = _line(value)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def _paragraph(value: object) -> str:
    """A value as a paragraph of its own: no heading, list, quote or rule, however it begins."""
    return re.sub(r"^(\d*)([-+=#.):])", r"\1\\\2", text(value))


def _line(value: object) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _bar(value: float, longest: float) -> str:
    return "█" * round(_BAR * value / longest) if longest > 0 else ""


def _made_for(corruption: Corruption) -> str:
    return f"{corruption.name} at severity {corruption.severity}" if corruption.severity else corruption.name


def _snippet(config: SignatureConfig, repo_id: str | None) -> str:
    backbone = config.backbone
    imports, model = (
        "",
        f"...  # a {_line(backbone.architecture)} ({_line(backbone.library)}), in evaluation mode",
    )
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
        who = f"{text(e.target)} ({text(e.dataset)} {text(e.split)}, alpha {e.alpha:g})"
        if e.corrupted.patched <= e.corrupted.unpatched:
            where = _made_for(Corruption(e.corruption, e.severity, None))
            change = f"{_percent(e.corrupted.unpatched)} % → {_percent(e.corrupted.patched)} %"
            found.append(f"Patching does not help on {where}: {change}, {who}.")
        if (loss := e.clean.unpatched - e.clean.patched) > 0:
            points = f"{100 * loss:.1f}" if round(100 * loss, 1) else "less than 0.1"
            found.append(f"Patching costs {points} points of clean accuracy: {who}.")
    return tuple(dict.fromkeys(found))


def _model_index(name: str, evaluations: tuple[Evaluation, ...]) -> list[dict[str, Any]]:
    """Patched accuracies only. The Hub's grouping drops all but type, config and split, so these tell all."""
    results: list[Any] = []
    for dataset, dataset_id in dict.fromkeys((e.dataset, e.dataset_id) for e in evaluations):
        rows: list[EvalResult] = []
        for e in evaluations:
            if (e.dataset, e.dataset_id) != (dataset, dataset_id):
                continue
            corrupted = e.corruption if e.severity is None else f"{e.corruption}/{e.severity}"
            for condition, value in (("clean", e.clean.patched), (corrupted, e.corrupted.patched)):
                row = EvalResult(
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
                if row not in rows:
                    rows.append(row)
        results += eval_results_to_model_index(name, rows)[0]["results"]
    return [{"name": name, "results": results}]


@cache
def _template() -> jinja2.Template:
    source = resources.files("rws_hub").joinpath(TEMPLATE).read_text(encoding="utf-8")
    # A fact that is missing is an error here, never an empty place in a card. No autoescape: it is not HTML.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "text": text,
        "code": code,
        "paragraph": _paragraph,
        "percent": _percent,
        "bar": _bar,
        "made_for": _made_for,
    }
    return environment.from_string(source)
