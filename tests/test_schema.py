"""Code, JSON schema and written specification say the same."""

import dataclasses
import json
import math
import re
import runpy
import typing
from pathlib import Path

import jsonschema
import pytest
import torch
from builders import tiny_signature
from forge import DELETE, config_data, old_signature, put, sealed, small_signature
from test_config import NEW_RULES, RULES

from rws_hub import (
    codec,
    compact,
    extract,
    factoring,
    factors,
    frames,
    kinship,
    layers,
    names,
    promises,
    recognise,
    resolve,
    rounding,
    spec,
    symbols,
)
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError

DOCS = Path(__file__).parent.parent / "docs"
MAKE = runpy.run_path(str(DOCS / "make_schema.py"))
VALIDATOR = jsonschema.Draft202012Validator(MAKE["schema"]())
DATA, NEW_DATA = config_data(old_signature()), config_data(small_signature())
FIXTURES = sorted(Path(__file__).parent.glob("fixtures/v*/*/config.json"))

# What no schema can say: one part of the file against another, products, how names are folded, 4.0 for 4.
BEYOND = (
    "conv.weight is touched but is not in the backbone's layout",
    "conv.weight is in the backbone's layout and in its head",
    "conv.weight occurs twice",
    "the names of backbone.layout are not folded as the format demands",
    "'{2..1}' cannot be a tensor name",
    "has codes, but the codec is float32",
    "codec.bits: expected int, found 4.0",
    "and 232 escapes cannot stand for 231 codes",
)
BEYOND_VALUES = ([2**20, 2**21], [0.1, 0.1])


def test_the_stored_schema_is_the_generated_one():
    jsonschema.Draft202012Validator.check_schema(MAKE["schema"]())
    assert (DOCS / "config.schema.json").read_text("utf-8") == MAKE["text"]()


@pytest.mark.parametrize(
    "make",
    [
        small_signature,
        lambda: small_signature(8),
        lambda: small_signature(32),
        old_signature,
        lambda: tiny_signature("resnet"),
        lambda: tiny_signature("vit", severity=None, dataset="org/data", base_model="timm/vit", base_revision="0" * 40),
    ],
    ids=["small", "escapes", "float32", "old", "resnet", "vit"],
)
def test_real_configs_are_valid(make):
    VALIDATOR.validate(config_data(make()))


@pytest.mark.parametrize("file", FIXTURES, ids=lambda f: f"{f.parent.parent.name}-{f.parent.name}")
def test_published_configs_are_valid(file):
    VALIDATOR.validate(json.loads(file.read_text("utf-8")))


@pytest.mark.parametrize(
    ("data", "path", "value", "message"), [*((DATA, *r) for r in RULES), *((NEW_DATA, *r) for r in NEW_RULES)]
)
def test_what_the_code_refuses_the_schema_refuses(data, path, value, message):
    data = json.loads(sealed(put(data, path, value)))
    assert VALIDATOR.is_valid(data) is (message in BEYOND or value in BEYOND_VALUES)


@pytest.mark.parametrize("data", [DATA, NEW_DATA], ids=["old", "new"])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("surprise", 1),
        ("backbone.surprise", 1),
        ("codec.surprise", 1),
        ("extraction.profile.0.surprise", 1),
        ("description", DELETE),
        ("codec.bits", DELETE),
        ("digest", DELETE),
        ("description", None),
        ("format", "peft"),
        ("format_version", 1.5),
        ("format_version", 2),
        ("format_version", 3),
        ("format_version", 5),
        ("sketch.method", "signs"),
        ("format_version", "1"),
        ("tensors", {}),
        ("tensors", []),
        ("tensors", None),
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
def test_both_refuse(data, path, value):
    data = put(data, path, value)
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
        f"relative error of at most {codec.MAX_HALF_ERROR:g}",
        f"at most {compact.MAX_NAMES:,} names and {compact.MAX_CHARACTERS:,} characters each",
        f"no name more than {compact.MAX_LENGTH}, no shape more than {compact.MAX_AXES} dimensions",
        f"each at most {symbols.MAX_CODE:,} in magnitude",
        f"from 2^{math.log2(symbols.MIN_STEP):g} to 2^{math.log2(symbols.MAX_STEP):g}",
        f"codes from -{factors.TOP} to {factors.TOP}, the left ones",
        f"a shift from 0 to {factors._MAX_SHIFT}",
        f"MUST be at most 2^{math.log2(factors.EXACT):g}, so that",
        f"from 2^{math.log2(symbols.MIN_STEP):g} to 2^{math.log2(factors.MAX_STEP):g}",
        f"more than {spec.MAX_EXPANSION // promises._FACTOR_BYTES:,} times `codec.factors` and more than "
        f"2^{math.log2(spec.ALWAYS_EXPANDED / promises._FACTOR_BYTES):g} codes",
        f"more than {spec.MAX_PRODUCT:,} times `codec.factors`",
        f"shorter of at most {factoring._MAX_SIDE:,}, at most 2^{math.log2(factoring._MAX_ELEMENTS):g} elements",
        f"of a symbol, {spec.WIDTHS[0]} or {spec.WIDTHS[1]}, with entropy",
        f"a window of at most 2^{frames._WINDOW_LOG} bytes",
        f"more than {spec.MAX_EXPANSION:,} times `codec.frame`",
        f"more than 2^{math.log2(spec.ALWAYS_EXPANDED):g} bytes",
        f"off by k - 1/{rounding._UNIT // (rounding._UNIT - rounding._OFF)} steps or more",
        f"{kinship.RUN} elements each",
        f"has {kinship.RUNS} strata",
        f"fewer than {kinship.MIN_COMPARED} places",
        *(f"| `{f.name}` | {', '.join(f'`{d}`' for d in f.dialects)} |" for f in names.families().values()),
        *(f"`{w}`" for w in (*sorted(resolve.TRANSPARENT), *recognise._WRAPPERS)),
    ],
)
def test_the_specification_states_the_numbers_of_the_code(statement):
    assert statement in " ".join(SPEC.split())


def test_the_examples_of_the_specification_hold():
    stream, escapes = symbols.pack(torch.tensor([-7, -1, 0, 1, 9]), 4)
    assert f"The codes -7 -1 0 1 9 at b = 4 are the bytes `{stream.numpy().tobytes().hex(' ')}`" in SPEC
    assert escapes.tolist() == [9]
    left, right = torch.tensor([[1, -2], [0, 1]]), torch.tensor([[3, 0, 1], [0, 4, 0]])
    bytes_of = (torch.cat([left, right], 1) + factors.TOP).to(torch.uint8).reshape(-1)
    assert f"`{' '.join(bytes_of.numpy().tobytes().hex(' ').split())}`" in " ".join(SPEC.split())
    parts = factors.parts("", bytes_of, torch.tensor([0, 2], dtype=torch.uint8), 2)
    assert (parts["left"] @ parts["right"]).tolist() == [[3, 0, 1], [-6, 16, -2]]
    assert "the codes 3 0 1 and -6 16 -2" in SPEC
    old = torch.tensor([0x71, 0x98, 0x8F, 0x88], dtype=torch.uint8)
    assert codec.unpack_bits(old, 4, 5).tolist() == [-7, -1, 0, 1, 7]
    assert f"The codes -7 -1 0 1 7 at b = 4 are the bytes `{old.numpy().tobytes().hex(' ')}`" in SPEC
    pattern, shape = re.search(r'`"(\S+)": (\[.*\])` for eight names', SPEC).groups()
    assert compact.fold(compact.unfold({pattern: json.loads(shape)}, "")) == {pattern: json.loads(shape)}
    assert len(compact.unfold({pattern: json.loads(shape)}, "")) == 8
