"""Artifacts of every published format version load for ever, and a reader written from docs/SPEC.md alone agrees."""

import base64
import hashlib
import itertools
import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import old
import pytest
from builders import tiny_resnet, tiny_signature, tiny_vit

from rws_hub import RobustWeightSignature, plan_patch
from rws_hub.frames import zstd
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


def test_the_fixtures_of_version_3_hold_every_choice():
    signatures = [RobustWeightSignature.from_pretrained(f) for f in FOLDERS if f.parent.name == "v3"]
    assert {s.config.codec.bits for s in signatures} == {4, 8}
    assert {t.encoding for s in signatures for t in s.config.tensors.values()} == {"symbols", "float16", "float32"}
    for signature in signatures:
        wide = [(n, p) for n, p in signature.tensors.items() if p.encoding == "symbols"]
        aside = [len(p.parts["escapes"]) for _, p in wide]
        assert max(aside) > 0 and (signature.config.codec.bits == 8 or min(aside) == 0)
        assert signature.config.codec.bits == 8 or any(signature.elements(n) % 2 for n, _ in wide)


def test_the_fixtures_of_version_5_hold_every_choice():
    vit, linear = (RobustWeightSignature.from_pretrained(FIXTURES / "v5" / kind) for kind in ("vit", "linear"))
    assert {f.encoding for f in vit.config.tensors.values()} == {"factors", "symbols", "float16", "float32"}
    assert {f.encoding for f in linear.config.tensors.values()} == {"factors"}
    shifts = [p.parts["shifts"].tolist() for s in (vit, linear) for p in s.tensors.values() if p.encoding == "factors"]
    assert {s for each in shifts for s in each} == {0, 2, 4, 6} and {len(s) for s in shifts} == {2, 3, 5}


@pytest.mark.parametrize(
    ("version", "kind", "model"),
    [
        ("v1", "resnet", tiny_resnet()),
        ("v1", "vit", tiny_vit(embed_dim=24)),
        ("v3", "resnet", tiny_resnet(channels=[9, 16, 32, 64])),
        ("v3", "vit", tiny_vit(embed_dim=24)),
        ("v4", "resnet", tiny_resnet(channels=[9, 16, 32, 64])),
        ("v4", "vit", tiny_vit(embed_dim=24)),
        ("v4", "plain", tiny_resnet()),
        ("v5", "vit", tiny_vit(embed_dim=24)),
        ("v5", "linear", tiny_vit(embed_dim=24)),
    ],
)
def test_the_fixtures_still_fit_their_models(version, kind, model):
    assert plan_patch(model, RobustWeightSignature.from_pretrained(FIXTURES / version / kind)).ok


def half(raw):
    return [v[0] for v in struct.iter_unpack("<e", raw)]


def single(raw):
    return [v[0] for v in struct.iter_unpack("<f", raw)]


def bfloat(raw):
    return [struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, len(raw), 2)]


def count(shape):
    total = 1
    for dimension in shape:
        total *= dimension
    return total


def spelled_out(pattern):
    """`a.{0..2}.{b,w}` -> every name that it stands for."""
    parts = []
    for part in re.findall(r"\{[^}]*\}|[^.{}]+", pattern):
        first, dots, last = part.strip("{}").partition("..")
        numbers = [str(i) for i in range(int(first), int(last) + 1)] if dots else part.strip("{}").split(",")
        parts.append(numbers)
    return [".".join(words) for words in itertools.product(*parts)]


def long_form(config):
    """What the short spelling since format 3 stands for."""
    tables = {k: {n: s for p, s in config["backbone"][k].items() for n in spelled_out(p)} for k in ("layout", "head")}
    tensors = {}
    for group in config["tensors"]:
        for name, (error, norm, *rank) in group["tensors"].items():
            kind = {k: v for k, v in group.items() if k != "tensors"}
            tensors[name] = kind | {"relative_error": error, "relative_norm": norm}
            tensors[name] |= {"rank": rank[0]} if rank else {}
    return config | {"backbone": config["backbone"] | tables, "tensors": tensors}


def read_by_the_book(folder):
    """Config, in its long form, and a way to read the bytes of a tensor of the payload."""
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    config = long_form(config) if config["format_version"] >= 3 else config
    sealed = {k: v for k, v in config.items() if k not in ("description", "digest")}
    canonical = json.dumps(sealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() == config["digest"]
    payload = (folder / PAYLOAD_FILE).read_bytes()
    assert len(payload) == config["payload"]["bytes"]
    assert hashlib.sha256(payload).hexdigest() == config["payload"]["sha256"]
    start = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:start])

    def raw(name):
        first, last = header[name]["data_offsets"] if name in header else (0, 0)
        return payload[start + first : start + last]

    return config, raw


def decode_by_the_book(folder):
    """Name -> little-endian binary32 bytes, by docs/SPEC.md, sections 2, 5 and 6, and the standard library."""
    config, raw = read_by_the_book(folder)
    decode = entropy_coded if config["codec"]["scheme"] == "entropy" else of_equal_length
    values = decode(config, raw)
    return {name: struct.pack(f"<{len(v)}f", *v) for name, v in values.items()}


def of_equal_length(config, raw):
    """Formats 1 and 2, and float32 of all."""
    decoded = {}
    bits = config["codec"]["bits"]
    for name, facts in config["tensors"].items():
        elements = count(config["backbone"]["layout"][name])
        if facts["encoding"] != "codes":
            decoded[name] = {"float16": half, "float32": single}[facts["encoding"]](raw(f"{name}.values"))
            continue
        scales, stream = bfloat(raw(f"{name}.scales")), raw(f"{name}.codes")
        values = []
        for element in range(elements):
            group, place = divmod(element, 8)
            word = int.from_bytes(stream[group * bits : (group + 1) * bits], "little")
            code = ((word >> (bits * place)) & (2**bits - 1)) - 2 ** (bits - 1)
            values.append(code * scales[element * len(scales) // elements])
        decoded[name] = values
    return decoded


def entropy_coded(config, raw):
    """Since format 3."""
    width, frame = config["codec"]["bits"], raw("frame")
    assert len(frame) == config["codec"]["frame"]
    stream, codes_of = iter(zstd.decompress(frame)), iter(())
    shifts = iter(raw("shifts"))
    if raw("factors"):
        assert len(raw("factors")) == config["codec"]["factors"]
        codes_of = iter(b - 127 for b in zstd.decompress(raw("factors")))
    escapes = iter([v[0] for v in struct.iter_unpack("<h", raw("escapes"))])
    steps, halves, singles = iter(single(raw("steps"))), iter(half(raw("halves"))), iter(single(raw("singles")))
    decoded = {}
    for name, facts in sorted(config["tensors"].items()):
        shape = config["backbone"]["layout"][name]
        elements = count(shape)
        if facts["encoding"] == "factors":
            decoded[name] = product(codes_of, shifts, facts["rank"], shape[0], elements // shape[0], next(steps))
            continue
        if facts["encoding"] != "symbols":
            decoded[name] = list(itertools.islice(halves if facts["encoding"] == "float16" else singles, elements))
            continue
        own = list(itertools.islice(stream, -(-elements * width // 8)))
        fields = own if width == 8 else [b % 16 for b in own] + [b // 16 for b in own]
        middle, step = 2 ** (width - 1) - 1, next(steps)
        codes = [next(escapes) if f == 2 * middle + 1 else f - middle for f in fields[:elements]]
        decoded[name] = [code * step for code in codes]
        assert all(f == middle for f in fields[elements:])
    assert all(next(rest, None) is None for rest in (stream, escapes, codes_of, shifts, steps, halves, singles))
    return decoded


def product(codes, shifts, rank, outputs, inputs, step):
    """Since format 5."""
    totals = [[0] * inputs for _ in range(outputs)]
    for _ in range(rank):
        shift = next(shifts)
        left, right = list(itertools.islice(codes, outputs)), list(itertools.islice(codes, inputs))
        for row, a in zip(totals, left, strict=True):
            row[:] = [total + (a * b << shift) for total, b in zip(row, right, strict=True)]
    return [total * step for row in totals for total in row]


@pytest.mark.parametrize("folder", FOLDERS, ids=identify)
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


def wide_weights(names=None):
    """The wide tensors of a model that a signature touches, flat, by sorted name."""
    weights = tiny_resnet().state_dict()
    return {n: weights[n].reshape(-1).tolist() for n in sorted(names or weights) if weights[n].ndim > 1}


def bits_of(sketch):
    assert sketch.method == "signs-2048-v1"
    return [byte >> i & 1 for byte in base64.b64decode(sketch.values) for i in range(8)]


@pytest.mark.parametrize("layers", [["conv1.*", "layer1.*", "layer2.*"], LAYERS, ["layer1.0.conv1.*"]])
def test_the_sketch_is_that_of_the_specification(layers):
    signature = tiny_signature("resnet", layers=layers)
    runs = [v[i : i + 32] for v in wide_weights(signature.names).values() for i in range(0, len(v) - 31, 32)]
    words = np.random.PCG64(0)
    chosen = []
    for j in range(64):
        word, low, high = int(words.random_raw()), j * len(runs) // 64, (j + 1) * len(runs) // 64
        chosen += runs[low + word * (high - low) // 2**64] if low < high else []
    assert bits_of(signature.config.sketch) == [int(w > 0) for w in chosen] + [0] * (2048 - len(chosen))


def test_the_sketch_of_older_formats_is_that_of_the_specification():
    names = tiny_signature("resnet", layers=LAYERS).names
    weights, model = wide_weights(names), tiny_resnet().state_dict()
    totals = [0.0] * 256
    for name, found in weights.items():
        values = found[:262_144]
        words = np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        factor = math.sqrt(len(values)) / math.sqrt(math.fsum(v * v for v in values))
        for value in values:
            word = int(words.random_raw())
            totals[word % 256] += factor * (value if word >> 8 & 1 == 0 else -value)
    largest = max(abs(t) for t in totals)
    found = old.sketch({n: tuple(model[n].shape) for n in names}, model)
    levels = np.frombuffer(base64.b64decode(found.values), np.int8).astype(int)
    assert max(abs(level - round(t * 127 / largest)) for level, t in zip(levels, totals, strict=True)) <= 1
    assert max(abs(levels)) == 127
