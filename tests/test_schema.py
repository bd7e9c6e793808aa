"""Code, JSON schema and written specification say the same."""

import dataclasses
import json
import re
import runpy
import typing
from pathlib import Path

import jsonschema
import pytest
from builders import tiny_signature
from forge import DELETE, config_data, put, sealed, small_signature
from test_config import RULES

from rws_hub import codec, extract, kinship, layers, names, recognise, resolve, spec
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError

DOCS = Path(__file__).parent.parent / "docs"
MAKE = runpy.run_path(str(DOCS / "make_schema.py"))
VALIDATOR = jsonschema.Draft202012Validator(MAKE["schema"]())
DATA = config_data(small_signature())

# What no schema can say: one part of the file against another, products, 4.0 for 4.
BEYOND = (
    "conv.weight is touched but is not in the backbone's layout",
    "conv.weight is in the backbone's layout and in its head",
    "has codes, but the codec is float32",
    "codec.bits: expected int, found 4.0",
)
BEYOND_VALUES = ([2**20, 2**21],)


def test_the_stored_schema_is_the_generated_one():
    jsonschema.Draft202012Validator.check_schema(MAKE["schema"]())
    assert (DOCS / "config.schema.json").read_text("utf-8") == MAKE["text"]()


@pytest.mark.parametrize(
    "make",
    [
        small_signature,
        lambda: small_signature(32),
        lambda: tiny_signature("resnet"),
        lambda: tiny_signature("vit", severity=None, dataset="org/data", base_model="timm/vit", base_revision="0" * 40),
    ],
    ids=["small", "float32", "resnet", "vit"],
)
def test_real_configs_are_valid(make):
    VALIDATOR.validate(config_data(make()))


@pytest.mark.parametrize(("path", "value", "message"), RULES)
def test_what_the_code_refuses_the_schema_refuses(path, value, message):
    data = json.loads(sealed(put(DATA, path, value)))
    assert VALIDATOR.is_valid(data) is (message in BEYOND or value in BEYOND_VALUES)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("surprise", 1),
        ("backbone.surprise", 1),
        ("tensors/conv.weight/surprise", 1),
        ("extraction.profile.0.surprise", 1),
        ("description", DELETE),
        ("codec.bits", DELETE),
        ("digest", DELETE),
        ("description", None),
        ("format", "peft"),
        ("format_version", 3),
        ("format_version", "1"),
        ("extraction.profile", {}),
        ("extraction.profile.0.touched", 1),
        ("extraction.patterns", ["a", 1]),
        ("extraction.recipe", "three-branch"),
        ("backbone.function", {"activation": 1}),
        ("relative_error", "small"),
        ("sources", []),
        ("payload.bytes", "1"),
    ],
)
def test_both_refuse(path, value):
    data = put(DATA, path, value)
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(ArtifactError):
        parse_config(sealed(data) if path != "digest" else json.dumps(data))


def keys_of(kind, prefix=""):
    """Every key of `config.json` as SPEC.md writes it: `backbone.layout`, `sources[].role`, `tensors{}.op`."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, path = hints[field.name], prefix + field.name
        yield path
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            yield from keys_of(hint, path + ".")
        elif origin is tuple and dataclasses.is_dataclass(args[0]):
            yield from keys_of(args[0], path + "[].")
        elif origin is dict and dataclasses.is_dataclass(args[1]):
            yield from keys_of(args[1], path + "{}.")


SPEC = (DOCS / "SPEC.md").read_text("utf-8")


def test_the_specification_lists_every_key_and_no_other():
    listed = re.findall(r"^\| `([^`]+)` \|", SPEC.partition("## 2.")[2].partition("## 3.")[0], re.MULTILINE)
    assert listed == list(keys_of(spec.SignatureConfig))


def test_the_specification_names_every_value_of_every_choice():
    for kind in (spec.Source, spec.Extraction, spec.Codec, spec.TensorFacts, spec.Sketch):
        for hint in typing.get_type_hints(kind).values():
            for choice in [hint, *typing.get_args(hint)]:
                if typing.get_origin(choice) is typing.Literal:
                    assert all(f'"{value}"' in SPEC for value in typing.get_args(choice)), choice


@pytest.mark.parametrize(
    "statement",
    [
        f"**Version {spec.FORMAT_VERSION}**",
        f"at most {spec.MAX_CONFIG_BYTES // 2**20} MiB",
        f"SHALLOW_SHARE = {layers.SHALLOW_SHARE}",
        f"below {extract._DEAD_VARIANCE:g}",
        f"at least {codec.MIN_ROW} elements",
        f"relative error of at most {codec.MAX_HALF_ERROR:g}",
        f"{kinship.SIZE} buckets",
        f"first {kinship.MAX_ELEMENTS:,} elements",
        *(f"| `{f.name}` | {', '.join(f'`{d}`' for d in f.dialects)} |" for f in names.families().values()),
        *(f"`{w}`" for w in (*sorted(resolve.TRANSPARENT), *recognise._WRAPPERS)),
    ],
)
def test_the_specification_states_the_numbers_of_the_code(statement):
    assert statement in " ".join(SPEC.split())
