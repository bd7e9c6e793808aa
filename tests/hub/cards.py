"""Model cards: the metadata in a README's front matter, the tags it yields, and what is wrong with it."""

import json
import re
from typing import Any

import yaml

from .store import Files, Store

LICENSES = (
    *(
        "apache-2.0",
        "mit",
        "openrail",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc0-1.0",
    ),
    *("gpl-3.0", "llama3.1", "gemma", "unknown", "other"),
)
_FRONT_MATTER = re.compile(r"\s*---[ \t]*\r?\n(.*?)\r?\n---", re.DOTALL)


def metadata(store: Store, files: Files) -> dict[str, Any]:
    """The card's metadata as JSON values; empty if there is none or it does not parse."""
    if "README.md" not in files:
        return {}
    found = _FRONT_MATTER.match(store.content(files["README.md"]).decode("utf-8", "replace"))
    try:
        decoded = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    if not isinstance(decoded, dict):
        return {}
    as_json: dict[str, Any] = json.loads(json.dumps(decoded, default=str))
    return as_json


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def tags(card: dict[str, Any], files: Files) -> list[str]:
    """The tags by which the Hub lists a model, without repetitions."""
    found = _as_list(card.get("library_name"))
    if any(path.endswith(".safetensors") for path in files):
        found.append("safetensors")
    for key in ("pipeline_tag", "tags", "language"):
        found += _as_list(card.get(key))
    for key, prefix in (("datasets", "dataset"), ("base_model", "base_model"), ("license", "license")):
        found += [f"{prefix}:{value}" for value in _as_list(card.get(key))]
    return list(dict.fromkeys([*map(str, found), "region:us"]))


def problems(readme: str) -> tuple[list[str], list[str]]:
    """Errors and warnings that the Hub finds in a card."""
    found = _FRONT_MATTER.match(readme)
    if not found:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        card = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [f"Error while parsing YAML: {error}"], []
    if card is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(card, dict):
        return ["YAML metadata must be a mapping"], []
    errors = []
    for value in _as_list(card.get("license")):
        if value not in LICENSES:
            errors.append(f'"license" must be one of [{", ".join(LICENSES)}]')
    if "model-index" in card and not isinstance(card["model-index"], list):
        errors.append('"model-index" must be an array')
    return errors, []
