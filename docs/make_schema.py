"""Write `docs/config.schema.json` from the types in `rws_hub.spec` and the patterns in `rws_hub.config`.

    python docs/make_schema.py

What a schema cannot say (digests, one key depending on another object's keys, how names are folded, 4.0 for 4) is
in docs/SPEC.md and checked by the code.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from rws_hub import compact, config, spec

FILE = Path(__file__).with_name("config.schema.json")

_PLAIN = {str: {"type": "string"}, int: {"type": "integer"}, float: {"type": "number"}, bool: {"type": "boolean"}}


def _whole(pattern: re.Pattern[str], ahead: str = "") -> dict[str, Any]:
    """The whole string must match; in some languages `$` alone also stands before a last line break."""
    return {"pattern": f"^{ahead}(?:{pattern.pattern.replace(chr(92) + 'w', 'A-Za-z0-9_')})$(?!\\n)"}


_HEX40, _HEX64, _WORD = (_whole(p) for p in (config._HEX40, config._HEX64, config._WORD))
_REPO_ID = _whole(config._REPO_ID, ahead=r"(?!.*(?:\.\.|--))")
_TENSOR_NAME = _whole(config._TENSOR_NAME) | {"maxLength": 256}
# Names that share a shape, since format 3.
_PART = compact._PART.pattern.replace(r"\w", "[A-Za-z0-9_]")
_PATTERN = _whole(re.compile(rf"(?:{_PART})(?:\.(?:{_PART}))*"))
_DIMENSION = {"minimum": 1, "maximum": compact.MAX_DIMENSION}

_NAMED_SHAPES = {"additionalProperties": {"type": "array", "items": {"type": "integer"} | _DIMENSION}}

# Limits by class and field, merged into what the types say.
_LIMITS: dict[tuple[type, str], dict[str, Any]] = {
    (spec.SignatureConfig, "format"): {"const": spec.FORMAT},
    (spec.SignatureConfig, "format_version"): {"enum": list(range(1, spec.FORMAT_VERSION + 1))},
    (spec.SignatureConfig, "license"): _WORD,
    (spec.SignatureConfig, "digest"): _HEX64,
    (spec.SignatureConfig, "sources"): {
        "minItems": 2,
        "maxItems": 3,
        "oneOf": [
            {"prefixItems": [{"properties": {"role": {"const": r}}} for r in roles], "maxItems": len(roles)}
            for roles in (["standard", "robust"], ["pretrained", "standard", "robust"])
        ],
    },
    (spec.Corruption, "name"): _WORD,
    (spec.Corruption, "severity"): {"minimum": 1, "maximum": 5},
    (spec.Corruption, "dataset"): {"anyOf": [_WORD, _REPO_ID]},
    (spec.Backbone, "repo_id"): _REPO_ID,
    (spec.Backbone, "revision"): _HEX40,
    (spec.Backbone, "layout"): _NAMED_SHAPES,
    (spec.Backbone, "head"): _NAMED_SHAPES,
    (spec.Codec, "frame"): {"minimum": 1},
    (spec.Codec, "escapes"): {"minimum": 0},
    (spec.Codec, "factors"): {"minimum": 1},
    (spec.TensorFacts, "rank"): {"minimum": 1},
    (spec.Source, "sha256"): _HEX64,
    (spec.Payload, "sha256"): _HEX64,
    # 256 bytes in base64.
    (spec.Sketch, "values"): _whole(re.compile("[A-Za-z0-9+/]{342}==")),
}

_COUNTS = "countsketch-256-v1"
_PRESENT = {"anyOf": [{"required": ["frame"]}, {"required": ["escapes"]}, {"required": ["factors"]}]}

# Rules between the fields of one class.
_RULES: dict[type, dict[str, Any]] = {
    spec.Codec: {
        "oneOf": [
            {
                "properties": {"scheme": {"const": "entropy"}, "bits": {"enum": list(spec.WIDTHS)}},
                "required": ["frame", "escapes"],
            },
            {"properties": {"scheme": {"const": "uniform"}, "bits": {"minimum": 2, "maximum": 8}}, "not": _PRESENT},
            {"properties": {"scheme": {"const": "float32"}, "bits": {"const": 32}}, "not": _PRESENT},
        ]
    },
    spec.TensorFacts: {
        "if": {"properties": {"encoding": {"const": "codes"}}},
        "then": {"properties": {"granularity": {"type": "string"}}},
        "else": {"properties": {"granularity": {"type": "null"}}},
    },
}


def schema() -> dict[str, Any]:
    """The JSON Schema of `config.json`, draft 2020-12."""
    definitions: dict[str, Any] = {}
    root = _object(spec.SignatureConfig, definitions)
    root["properties"]["tensors"] = {}  # another form in every format
    facts = definitions["TensorFacts"]
    definitions["TensorGroup"] = _group(facts)
    del facts["properties"]["rank"]
    facts["properties"]["encoding"] = _without(facts["properties"]["encoding"], "symbols", "factors")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"config.json of a robust weight signature, formats 1 to {spec.FORMAT_VERSION}",
        **root,
        "oneOf": [_spelled_out(), _short()],
        "$defs": dict(sorted(definitions.items())),
    }


def _spelled_out() -> dict[str, Any]:
    """What formats 1 and 2 have of their own."""
    table = {"required": ["table"]}
    return {
        "properties": {
            "format_version": {"maximum": compact.SINCE - 1},
            "backbone": {"properties": _named(_TENSOR_NAME, {})},
            "codec": {"properties": {"scheme": {"enum": ["uniform", "float32"]}}},
            "sketch": _sketch(_COUNTS),
            "tensors": {
                "type": "object",
                "additionalProperties": {"$ref": "#/$defs/TensorFacts"},
                "minProperties": 1,
                "propertyNames": _TENSOR_NAME,
                "allOf": [
                    {"patternProperties": {"running_var$": {"properties": {"op": {"const": "multiply"}}}}},
                    {"patternProperties": {"^(?!.*running_var$)": {"properties": {"op": {"const": "add"}}}}},
                ],
            },
        },
        "if": {"properties": {"format_version": {"const": 2}}},
        "then": {"properties": {"backbone": table}},
        "else": {"properties": {"backbone": {"not": table}}},
    }


def _short() -> dict[str, Any]:
    """What the formats since 3 have of their own."""
    factors = {"contains": {"properties": {"encoding": {"const": "factors"}}}}
    plain = {"properties": {"codec": {"not": {"required": ["factors"]}}, "tensors": {"not": factors}}}
    return {
        "properties": {
            "format_version": {"minimum": compact.SINCE},
            "backbone": {"properties": _named(_PATTERN, {"maxItems": compact.MAX_AXES})},
            "codec": {"properties": {"scheme": {"enum": ["entropy", "float32"]}}},
            "tensors": {"type": "array", "items": {"$ref": "#/$defs/TensorGroup"}, "minItems": 1},
        },
        "oneOf": [
            {
                "properties": {
                    "format_version": {"const": compact.SINCE},
                    "codec": {"properties": {"scheme": {"const": "entropy"}}},
                    "sketch": _sketch(_COUNTS),
                },
                "allOf": [plain],
            },
            {
                "properties": {"format_version": {"const": 4}, "sketch": _sketch("signs-2048-v1")},
                "allOf": [plain],
            },
            {"properties": {"format_version": {"const": 5}, "codec": {"required": ["factors"]}, "tensors": factors}},
        ],
    }


def _sketch(method: str) -> dict[str, Any]:
    return {"properties": {"method": {"const": method}}}


def _named(names: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    return {k: {"propertyNames": names, "additionalProperties": shape} for k in compact._FOLDED}


def _group(facts: dict[str, Any]) -> dict[str, Any]:
    """Tensors that have the first four facts in common."""
    kind = {k: facts["properties"][k] for k in compact._KIND}
    number, rank = {"type": "number"}, facts["properties"]["rank"]
    pair = {"prefixItems": [number, number], "minItems": 2, "maxItems": 2}
    three = {"prefixItems": [number, number, rank], "minItems": 3}
    variance = {"pattern": "running_var$"}
    return {
        "description": "Stored deltas of one kind: name -> relative_error and relative_norm (and rank, of factors).",
        "type": "object",
        "properties": kind
        | {"encoding": _without(kind["encoding"], "codes"), "granularity": {"type": "null"}}
        | {
            "tensors": {
                "type": "object",
                "additionalProperties": {"type": "array", "maxItems": 3},
                "minProperties": 1,
                "propertyNames": _TENSOR_NAME,
            }
        },
        "required": [*kind, "tensors"],
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"op": {"const": "multiply"}}},
                "then": {"properties": {"tensors": {"propertyNames": variance}}},
                "else": {"properties": {"tensors": {"propertyNames": {"not": variance}}}},
            },
            {
                "if": {"properties": {"encoding": {"const": "factors"}}},
                "then": {"properties": {"tensors": {"additionalProperties": three}}},
                "else": {"properties": {"tensors": {"additionalProperties": pair}}},
            },
        ],
    }


def _without(choice: dict[str, Any], *values: str) -> dict[str, Any]:
    return choice | {"enum": [v for v in choice["enum"] if v not in values]}


def text() -> str:
    """What belongs into `docs/config.schema.json`."""
    return json.dumps(schema(), indent=2) + "\n"


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = [f.name for f in dataclasses.fields(kind)]
    properties = {n: _limited(_form(hints[n], definitions), _LIMITS.get((kind, n), {})) for n in fields}
    for field in dataclasses.fields(kind):
        if field.default is None:  # left out where there is none
            properties[field.name] = properties[field.name]["anyOf"][0]
    return {
        "description": " ".join((kind.__doc__ or "").split("\n\n")[0].split()),
        "type": "object",
        "properties": properties,
        "required": [f.name for f in dataclasses.fields(kind) if f.default is not None],
        "additionalProperties": False,
        **_RULES.get(kind, {}),
    }


def _limited(form: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    """Limits of a value that may be null hold for the value, not for null."""
    if limits and "anyOf" in form:
        return {"anyOf": [f if f == {"type": "null"} else f | limits for f in form["anyOf"]]}
    return form | limits


def _form(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        name = typing.cast("type", kind).__name__
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _object(kind, definitions)
        return {"$ref": f"#/$defs/{name}"}
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_form(a, definitions) for a in args if a is not type(None)] + [{"type": "null"}]}
    if origin is Literal:
        return {"type": "string", "enum": list(args)}
    if origin is tuple:
        return {"type": "array", "items": _form(args[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _form(args[1], definitions)}
    return dict(_PLAIN[kind])


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
