"""Sealed configs that break a rule: who makes the digests anew is still refused."""

import pytest
from forge import DELETE, put, sealed
from test_config import DATA, NEW_DATA

from rws_hub.config import parse_config
from rws_hub.errors import CorruptArtifactError

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
