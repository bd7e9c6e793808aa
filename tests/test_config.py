"""`config.json`: what is read, what is refused, and what the seal covers."""

import json
import re

import pytest
from builders import tiny_signature
from forge import DELETE, config_data, old_signature, put, sealed, small_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub.config import is_repo_id, is_tensor_name, parse_config
from rws_hub.errors import CorruptArtifactError, FormatVersionError, NotASignatureError
from rws_hub.spec import MAX_CONFIG_BYTES

# Of format 1, which is spelled out, and of the newest.
SMALL, NEW = old_signature().config, small_signature().config
DATA, NEW_DATA = config_data(old_signature()), config_data(small_signature())


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_config_comes_back_as_it_was(kind):
    config = tiny_signature(kind).config
    again = parse_config(config.to_text())
    assert again == config
    assert again.to_text() == config.to_text()
    assert parse_config(config.to_text().encode()) == config


def leaves(data, path=()):
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list) and data:
        for i, value in enumerate(data):
            yield from leaves(value, (*path, i))
    else:
        yield path


LEAVES = [
    (data, path) for data in (DATA, NEW_DATA) for path in leaves(data) if path[0] not in ("description", "digest")
]
plain_values = (
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(LEAVES), plain_values | st.lists(st.integers(0, 9), max_size=3))
def test_no_sealed_value_can_be_changed(leaf, value):
    original, path = leaf
    place = data = json.loads(json.dumps(original))
    for step in path[:-1]:
        place = place[step]
    if place[path[-1]] == value and type(place[path[-1]]) is type(value):
        return
    place[path[-1]] = value
    try:
        read = parse_config(json.dumps(data))
    except (CorruptArtifactError, FormatVersionError, NotASignatureError):
        return
    assert read == (SMALL if original is DATA else NEW)  # 1 for 1.0


@settings(deadline=None)
@given(st.text())
def test_the_description_may_be_edited(text):
    data = DATA | {"description": text}
    read = parse_config(json.dumps(data))
    assert read.description == text
    assert read.sealed == SMALL.sealed


def test_keys_may_stand_in_any_order():
    def backwards(value):
        return {k: backwards(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

    assert parse_config(json.dumps(backwards(DATA))) == SMALL
    again = parse_config(json.dumps(backwards(NEW_DATA)))
    assert again == NEW and again.to_text() == NEW.to_text()


def test_with_seal_is_what_makes_a_config_valid():
    assert SMALL.with_seal() == SMALL
    assert parse_config(sealed(DATA)) == SMALL
    assert parse_config(sealed(NEW_DATA)) == NEW


@pytest.mark.parametrize(
    "path",
    [
        "surprise",
        "corruption.surprise",
        "backbone.surprise",
        "sources.0.surprise",
        "sketch.surprise",
        "extraction.surprise",
        "extraction.profile.0.surprise",
        "codec.surprise",
        "tensors/conv.weight/surprise",
        "payload.surprise",
    ],
)
def test_an_unknown_key_is_refused_at_every_level(path):
    with pytest.raises(CorruptArtifactError, match=r"config\.json.*unknown key 'surprise'; known keys are"):
        parse_config(sealed(put(DATA, path, 1)))


@pytest.mark.parametrize(
    "path",
    [
        *(k for k in DATA if k not in ("format", "format_version", "digest")),
        *(f"{k}.{n}" for k in ("corruption", "backbone", "sketch", "extraction", "codec", "payload") for n in DATA[k]),
        *(f"tensors/conv.weight/{k}" for k in DATA["tensors"]["conv.weight"]),
        "sources.0.sha256",
        "extraction.profile.0.unit",
    ],
)
def test_a_missing_key_is_refused_at_every_level(path):
    key = re.split(r"[./]", path)[-1]
    with pytest.raises(CorruptArtifactError, match=f"the key '{key}' is missing"):
        parse_config(sealed(put(DATA, path, DELETE)))


RULES = [
    ("license", "", "license must be one plain word"),
    ("license", "apache 2", "license must be one plain word, found 'apache 2'"),
    ("license", "mit\n", "license must be one plain word"),
    ("corruption.name", "../fog", "corruption.name must be one plain word"),
    ("corruption.name", "fog|rm", "corruption.name must be one plain word"),
    ("corruption.dataset", "a b", "corruption.dataset must be one word or a Hub id"),
    ("corruption.dataset", "a/b/c", "corruption.dataset must be one word or a Hub id"),
    ("corruption.severity", 0, "corruption.severity must be 1 to 5, found 0"),
    ("corruption.severity", 6, "corruption.severity must be 1 to 5, found 6"),
    ("corruption.severity", True, "corruption.severity: expected int"),
    ("recommended_alpha", "1", "recommended_alpha: expected float"),
    ("recommended_alpha", False, "recommended_alpha: expected float"),
    ("sources.0.role", "robust", "sources must be (pretrained,) standard, robust"),
    ("sources.0.role", "teacher", "expected one of ['pretrained', 'standard', 'robust']"),
    ("sources.0.sha256", "0" * 63, "is not a sha256 in hex"),
    ("sources.1.sha256", "G" * 64, "is not a sha256 in hex"),
    ("payload.sha256", "A" * 64, "is not a sha256 in hex"),
    ("sketch.values", "AAAA", "sketch.values must hold 256 bytes, found 3"),
    ("sketch.values", "%", "sketch.values is not base64"),
    ("sketch.values", "ä", "sketch.values is not base64"),
    ("sketch.method", "md5", "sketch.method: expected one of"),
    ("backbone.repo_id", "resnet50", "backbone.repo_id 'resnet50' is not a Hub id"),
    ("backbone.revision", "main", "backbone.revision 'main' is not a 40-hex commit"),
    ("backbone/layout/conv.weight", [6, 4, 3, -3], "conv.weight has the impossible shape"),
    ("backbone/layout/conv.weight", [0], "conv.weight has the impossible shape"),
    ("backbone/layout/conv.weight", [2**20, 2**21], "conv.weight has the impossible shape"),
    ("backbone/layout/conv.weight", [True], "expected int, found True"),
    ("backbone/layout/..", [1], "'..' cannot be a tensor name"),
    ("backbone/layout/conv.weight\n", [1], "cannot be a tensor name"),
    ("backbone/layout/" + "a" * 300, [1], "cannot be a tensor name"),
    ("backbone/head/x y", [1], "'x y' cannot be a tensor name"),
    ("backbone/head/conv.weight", [1], "conv.weight is in the backbone's layout and in its head"),
    ("backbone/layout/conv.weight", DELETE, "conv.weight is touched but is not in the backbone's layout"),
    ("tensors", {}, "a signature must touch at least one tensor"),
    ("tensors/conv.weight/op", "multiply", "running variances multiply"),
    ("tensors/norm.running_var/op", "add", "running variances multiply"),
    ("tensors/conv.weight/op", "divide", "expected one of ['add', 'multiply']"),
    ("tensors/conv.weight/granularity", None, "granularity goes with encoding 'codes' only"),
    ("tensors/norm.weight/granularity", "row", "granularity goes with encoding 'codes' only"),
    ("codec.bits", 1, "codec 'uniform' with 1 bits does not exist"),
    ("codec.bits", 9, "codec 'uniform' with 9 bits does not exist"),
    ("codec.bits", 32, "codec 'uniform' with 32 bits does not exist"),
    ("codec.bits", 4.0, "codec.bits: expected int, found 4.0"),
    ("codec", {"scheme": "float32", "bits": 4}, "codec 'float32' with 4 bits does not exist"),
    ("codec", {"scheme": "float32", "bits": 32}, "has codes, but the codec is float32"),
    ("codec.scheme", "vq", "codec.scheme: expected one of ['entropy', 'uniform', 'float32']"),
    ("codec.scheme", "entropy", "format_version is 1, but its keys are those of format 3"),
    ("codec.frame", 9, "codec.frame and codec.escapes go with scheme 'entropy' only"),
    ("codec.escapes", 0, "codec.frame and codec.escapes go with scheme 'entropy' only"),
    ("tensors/conv.weight/encoding", "symbols", "granularity goes with encoding 'codes' only"),
    ("format_version", 2, "format_version is 2, but its keys are those of format 1"),
    ("format_version", 3, "tensors must be a list since format 3"),
]
SYMBOLS, HALVES, VARIANCES = (
    next(i for i, g in enumerate(NEW_DATA["tensors"]) if key in g["tensors"])
    for key in ("conv.weight", "norm.weight", "norm.running_var")
)
KIND = {"op": "add", "projected": False, "encoding": "symbols", "granularity": None}
NEW_RULES = [
    ("license", "apache 2", "license must be one plain word, found 'apache 2'"),
    ("format_version", 1, "tensors: expected an object"),
    ("format_version", 2, "tensors: expected an object"),
    ("backbone/layout/norm.{bias,x}", [6], "the names of backbone.layout are not folded as the format demands"),
    ("backbone/layout/conv.weight", {"a": 1}, "backbone.layout.conv.weight: expected a list"),
    ("backbone/layout/conv.weight", [6, 4, 3, -3], "conv.weight has the impossible shape"),
    ("backbone/layout/conv.weight", [2**20, 2**21], "conv.weight has the impossible shape"),
    ("backbone/layout/conv.weight", [True], "expected int, found True"),
    ("backbone/layout/conv.weight", DELETE, "conv.weight is touched but is not in the backbone's layout"),
    ("backbone/layout/..", [1], "'..' cannot be a tensor name"),
    ("backbone/layout/a{b,c}", [1], "'a{b,c}' cannot be a tensor name"),
    ("backbone/layout/{b}", [1], "'{b}' cannot be a tensor name"),
    ("backbone/layout/{2..1}", [1], "'{2..1}' cannot be a tensor name"),
    ("backbone/layout/conv.{weight,x}", [6, 4, 3, 3], "conv.weight occurs twice"),
    ("backbone/head/conv.weight", [1], "conv.weight is in the backbone's layout and in its head"),
    ("backbone/layout", [], "backbone.layout: expected an object, found list"),
    ("backbone", [], "backbone: expected an object"),
    ("tensors", {}, "tensors must be a list since format 3"),
    ("tensors", [], "a signature must touch at least one tensor"),
    ("tensors", [3], "tensors[0] must hold op, projected, encoding, granularity and tensors"),
    (f"tensors/{SYMBOLS}/op", "multiply", "running variances multiply"),
    (f"tensors/{SYMBOLS}/op", ["add"], "expected one of ['add', 'multiply']"),
    (f"tensors/{SYMBOLS}/granularity", "row", "granularity goes with encoding 'codes' only"),
    (f"tensors/{SYMBOLS}/encoding", "codes", "granularity goes with encoding 'codes' only"),
    (f"tensors/{SYMBOLS}/encoding", "vq", "expected one of ['codes', 'symbols', 'float16', 'float32']"),
    (f"tensors/{SYMBOLS}/surprise", 1, f"tensors[{SYMBOLS}] must hold op"),
    (f"tensors/{SYMBOLS}/op", DELETE, f"tensors[{SYMBOLS}] must hold op"),
    (f"tensors/{SYMBOLS}/tensors/conv.weight", [0.1], "'conv.weight' must be a name, once, with two numbers"),
    (f"tensors/{SYMBOLS}/tensors/conv.weight", [0.1, "x"], "relative_norm: expected float"),
    (f"tensors/{HALVES}/tensors/conv.weight", [0.1, 0.1], "'conv.weight' must be a name, once, with two numbers"),
    (f"tensors/{VARIANCES}/op", "add", "running variances multiply"),
    (f"tensors/{len(NEW_DATA['tensors'])}", KIND | {"tensors": {}}, "tensors are not grouped as the format demands"),
    ("codec", {"scheme": "entropy", "bits": 4}, "codec.frame and codec.escapes are missing"),
    ("codec.frame", DELETE, "codec.frame and codec.escapes are missing"),
    ("codec.escapes", DELETE, "codec.frame and codec.escapes are missing"),
    ("codec.escapes", None, "the key 'escapes' is null; leave it out"),
    ("codec.frame", 0, "codec.frame and codec.escapes are missing"),
    ("codec.escapes", -1, "and -1 escapes cannot stand for 231 codes"),
    ("codec.escapes", 232, "and 232 escapes cannot stand for 231 codes"),
    ("codec.bits", 5, "codec 'entropy' with 5 bits does not exist"),
    ("codec.bits", 32, "codec 'entropy' with 32 bits does not exist"),
    ("codec.scheme", "uniform", "codec 'uniform' ended with format 2"),
    ("format_version", 3, "format_version is 3, but its keys are those of format 4"),
    ("sketch.method", "countsketch-256-v1", "format_version is 4, but its keys are those of format 3"),
]


@pytest.mark.parametrize(("path", "value", "message"), RULES)
def test_a_sealed_config_must_still_keep_every_rule(path, value, message):
    with pytest.raises(CorruptArtifactError) as caught:
        parse_config(sealed(put(DATA, path, value)))
    assert message in str(caught.value)


@pytest.mark.parametrize(("path", "value", "message"), NEW_RULES)
def test_a_sealed_config_of_the_newest_format_must_still_keep_every_rule(path, value, message):
    with pytest.raises(CorruptArtifactError) as caught:
        parse_config(sealed(put(NEW_DATA, path, value)))
    assert message in str(caught.value)


def test_little_may_become_much_only_where_it_is_little():
    for rows, fine in ((2**23, True), (2**33, False)):
        data = put(NEW_DATA, "backbone/layout/conv.weight", [rows, 6])
        if fine:
            parse_config(sealed(data))
        else:
            with pytest.raises(CorruptArtifactError, match="compressed bytes and 0 escapes cannot stand for"):
                parse_config(sealed(data))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("{}", NotASignatureError, "is not that of a robust weight signature"),
        ("[]", NotASignatureError, "is not that of a robust weight signature"),
        ("3", NotASignatureError, "is not that of a robust weight signature"),
        ('{"model_type": "vit", "architectures": ["ViTModel"]}', NotASignatureError, "not that of a robust weight"),
        ('{"format": "RWS"}', NotASignatureError, "not that of a robust weight"),
        ('{"format": "rws"}', CorruptArtifactError, "format_version must be a positive integer, found None"),
        ('{"format": "rws", "format_version": true}', CorruptArtifactError, "must be a positive integer, found True"),
        ('{"format": "rws", "format_version": 0}', CorruptArtifactError, "must be a positive integer, found 0"),
        ('{"format": "rws", "format_version": "1"}', CorruptArtifactError, "must be a positive integer, found '1'"),
        ('{"format": "rws", "format_version": 5}', FormatVersionError, "is of format 5; this rws-hub reads up to"),
        ("not json", CorruptArtifactError, "not valid JSON"),
        (" " * (MAX_CONFIG_BYTES + 1), CorruptArtifactError, "at most 16,777,216 are allowed"),
    ],
)
def test_what_is_not_a_config_of_ours_is_told_apart(text, kind, message):
    with pytest.raises(kind) as caught:
        parse_config(text)
    assert type(caught.value) is kind
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "advice"),
    [
        ("7.3.1", "It was written by rws-hub 7.3.1: pip install -U 'rws-hub>=7.3.1'"),
        ("0.1.0", "Install a newer one: pip install -U rws-hub"),
        ("0.1.0rc3", "Install a newer one: pip install -U rws-hub"),
        ("0.0.9", "Install a newer one: pip install -U rws-hub"),
        ("newest", "Install a newer one: pip install -U rws-hub"),
        ("1; reboot", "Install a newer one: pip install -U rws-hub"),
        (3, "Install a newer one: pip install -U rws-hub"),
    ],
)
def test_a_newer_format_says_which_version_to_install(stated, advice):
    newer = {"format": "rws", "format_version": 99, "rws_hub_version": stated, "unheard of": {}}
    with pytest.raises(FormatVersionError) as caught:
        parse_config(json.dumps(newer))
    assert str(caught.value) == f"config.json is of format 99; this rws-hub reads up to format 4. {advice}"


@pytest.mark.parametrize("text", ["a/b", "timm/resnet50.a1_in1k", "A-1/b_2"])
def test_hub_ids(text):
    assert is_repo_id(text)


@pytest.mark.parametrize(
    "text", ["", "resnet50", "a/b/c", "/a", "../a", "a/..", "a/b--c", "a /b", "a/b\n", "a/" + "b" * 97, "ä/b"]
)
def test_what_is_not_a_hub_id(text):
    assert not is_repo_id(text)


@pytest.mark.parametrize("text", ["a", "layer1.0.conv1.weight", "_x.0"])
def test_tensor_names(text):
    assert is_tensor_name(text)


@pytest.mark.parametrize("text", ["", ".", "a..b", "a/b", "../a", "a.", "a\\b", "ä", "a\n", "C:a", "a" * 257])
def test_what_is_not_a_tensor_name(text):
    assert not is_tensor_name(text)
