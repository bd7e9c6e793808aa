"""Artifacts of every published format version load for ever, and a reader written from docs/SPEC.md alone agrees."""

import base64
import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from builders import tiny_resnet, tiny_signature, tiny_vit

from rws_hub import RobustWeightSignature, plan_patch
from rws_hub.spec import CONFIG_FILE, FORMAT_VERSION, PAYLOAD_FILE

FIXTURES = Path(__file__).parent / "fixtures"
FOLDERS = sorted(f.parent for f in FIXTURES.glob("v*/*/expected.json"))


def identify(folder):
    return f"{folder.parent.name}-{folder.name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=identify)
def test_a_published_artifact_decodes_to_the_same_bits(folder):
    signature = RobustWeightSignature.from_pretrained(folder)
    found = {n: hashlib.sha256(signature.delta(n).numpy().tobytes()).hexdigest() for n in signature.names}
    assert found == json.loads((folder / "expected.json").read_text("utf-8"))
    assert signature.config.to_text() == (folder / CONFIG_FILE).read_text("utf-8")


def test_every_format_version_has_a_fixture():
    assert {f.parent.name for f in FOLDERS} == {f"v{v}" for v in range(1, FORMAT_VERSION + 1)}


def test_the_fixtures_of_version_1_hold_every_choice():
    signatures = [RobustWeightSignature.from_pretrained(f) for f in FOLDERS if f.parent.name == "v1"]
    facts = [t for s in signatures for t in s.config.tensors.values()]
    assert {t.encoding for t in facts} == {"codes", "float16", "float32"}
    assert {t.granularity for t in facts} == {"row", "tensor", None}
    assert {t.op for t in facts} == {"add", "multiply"}
    assert {s.config.extraction.recipe for s in signatures} == {"two-branch", "from-clean"}


def test_the_fixtures_of_version_1_still_fit_their_models():
    for kind, model in (("resnet", tiny_resnet()), ("vit", tiny_vit(embed_dim=24))):
        signature = RobustWeightSignature.from_pretrained(FIXTURES / "v1" / kind)
        assert plan_patch(model, signature).ok


def half(raw):
    return [v[0] for v in struct.iter_unpack("<e", raw)]


def bfloat(raw):
    return [struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, len(raw), 2)]


def count(shape):
    total = 1
    for dimension in shape:
        total *= dimension
    return total


def decode_by_the_book(folder):
    """Name -> little-endian binary32 bytes, by docs/SPEC.md, sections 2, 5 and 6, and the standard library."""
    text = (folder / CONFIG_FILE).read_text("utf-8")
    config = json.loads(text)
    sealed = {k: v for k, v in config.items() if k not in ("description", "digest")}
    canonical = json.dumps(sealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() == config["digest"]
    payload = (folder / PAYLOAD_FILE).read_bytes()
    assert len(payload) == config["payload"]["bytes"]
    assert hashlib.sha256(payload).hexdigest() == config["payload"]["sha256"]
    start = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:start])

    def raw(name):
        first, last = header[name]["data_offsets"]
        return payload[start + first : start + last]

    decoded = {}
    bits = config["codec"]["bits"]
    for name, facts in config["tensors"].items():
        elements = count(config["backbone"]["layout"][name])
        if facts["encoding"] == "float32":
            decoded[name] = raw(f"{name}.values")
            continue
        if facts["encoding"] == "float16":
            values = half(raw(f"{name}.values"))
        else:
            scales, stream = bfloat(raw(f"{name}.scales")), raw(f"{name}.codes")
            values = []
            for element in range(elements):
                group, place = divmod(element, 8)
                word = int.from_bytes(stream[group * bits : (group + 1) * bits], "little")
                code = ((word >> (bits * place)) & (2**bits - 1)) - 2 ** (bits - 1)
                values.append(code * scales[element * len(scales) // elements])
        decoded[name] = struct.pack(f"<{elements}f", *values)
    return decoded


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.parent.name == "v1"], ids=identify)
def test_a_reader_written_from_the_specification_agrees(folder):
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    assert {n: hashlib.sha256(b).hexdigest() for n, b in decode_by_the_book(folder).items()} == expected


LAYERS = ["bn1.*", "conv1.*", "layer1.0.conv1.*"]


def test_source_digests_are_those_of_the_specification():
    signature = tiny_signature("resnet", layers=LAYERS)
    weights = tiny_resnet().state_dict()
    digest = hashlib.sha256()
    for name in sorted(signature.names):
        shape = ", ".join(str(d) for d in weights[name].shape)
        digest.update(f"{name}\0float32\0[{shape}]\0".encode("ascii"))
        digest.update(struct.pack(f"<{weights[name].numel()}f", *weights[name].reshape(-1).tolist()))
    assert (signature.config.sources[0].role, signature.config.sources[0].sha256) == ("standard", digest.hexdigest())


def test_the_sketch_is_that_of_the_specification():
    signature = tiny_signature("resnet", layers=LAYERS)
    weights = tiny_resnet().state_dict()
    totals = [0.0] * 256
    for name in sorted(n for n in signature.names if weights[n].ndim > 1):
        values = weights[name].reshape(-1).tolist()[:262_144]
        words = np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        factor = math.sqrt(len(values)) / math.sqrt(math.fsum(v * v for v in values))
        for value in values:
            word = int(words.random_raw())
            totals[word % 256] += factor * (value if word >> 8 & 1 == 0 else -value)
    largest = max(abs(t) for t in totals)
    levels = np.frombuffer(base64.b64decode(signature.config.sketch.values), np.int8).astype(int)
    assert max(abs(level - round(t * 127 / largest)) for level, t in zip(levels, totals, strict=True)) <= 1
    assert max(abs(levels)) == 127
