"""Artifacts made to mislead. Each case is sealed again after the change, so only its own check can refuse it.

Of format 1, for what all formats have in common and for codes of equal length; `test_hostile_entropy.py` has the rest.
"""

import dataclasses
import json
import math
import struct
import time
import tracemalloc

import pytest
from forge import DELETE, config_data, join, load, old_signature, put, sealed, split, vouched, with_bytes, with_header

from rws_hub import RobustWeightSignature
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError, CorruptArtifactError, FormatVersionError, NotASignatureError
from rws_hub.payload import check_header, read_payload
from rws_hub.spec import CONFIG_FILE, FORMAT_VERSION, PAYLOAD_FILE

SMALL = old_signature()
DATA = config_data(SMALL)
CODES, SCALES, VALUES = "conv.weight.codes", "conv.weight.scales", "norm.weight.values"


def header(**changes):
    """The payload with entries of its header changed (None: left out)."""

    def change(entries):
        for name, entry in changes.items():
            name = name.replace("__", ".")
            if entry is None:
                del entries[name]
            else:
                entries[name] = entries.get(name, {}) | entry

    return with_header(SMALL.payload, change)


def renamed(new):
    """The payload with one tensor under another name."""
    return with_header(SMALL.payload, lambda h: {new if n == CODES else n: e for n, e in h.items()})


def twice():
    """The payload with one name twice in its header, as only a hand can write it."""
    entries, data = split(SMALL.payload)
    text = json.dumps(entries)
    return join(text[:-1] + f', "{CODES}": {json.dumps(entries[CODES])}}}', data)


def moved(name, by):
    start, stop = split(SMALL.payload)[0][name]["data_offsets"]
    return header(**{name.replace(".", "__"): {"data_offsets": [start + by, stop + by]}})


def swapped_length(length):
    return length.to_bytes(8, "little") + SMALL.payload[8:]


def bf16(value):
    return struct.pack("<f", value)[2:]


def written(name, offset, raw):
    def change(part):
        part[offset : offset + len(raw)] = raw

    return with_bytes(SMALL.payload, name, change)


PAYLOADS = {
    "a missing tensor": (header(conv__weight__codes=None), "the tensor conv.weight.codes is missing"),
    "an extra tensor": (
        header(extra={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        "unexpected tensor extra",
    ),
    "metadata": (
        with_header(SMALL.payload, lambda h: h | {"__metadata__": {"a": "b"}}),
        "unexpected tensor __metadata__",
    ),
    "a name twice": (twice(), "the key 'conv.weight.codes' occurs twice"),
    "a name that is a path": (renamed("../../conv.weight.codes"), "'../../conv.weight.codes' cannot be a tensor name"),
    "a name that is an absolute path": (renamed("/etc/passwd"), "'/etc/passwd' cannot be a tensor name"),
    "a name with a null": (renamed("conv.weight\0"), "cannot be a tensor name"),
    "another dtype": (header(conv__weight__codes={"dtype": "I8"}), "conv.weight.codes must be U8 [108], found I8"),
    "a dtype that does not exist": (header(conv__weight__codes={"dtype": "U4"}), "must be U8 [108], found U4"),
    "another shape": (header(conv__weight__codes={"shape": [107]}), "conv.weight.codes must be U8 [108], found U8"),
    "a shape of another rank": (header(conv__weight__codes={"shape": [27, 4]}), "must be U8 [108], found U8 [27, 4]"),
    "a shape of a truth value": (header(gate__weight__scales={"shape": [True]}), "gate.weight.scales"),
    "a shape of a float": (header(gate__weight__scales={"shape": [1.0]}), "gate.weight.scales"),
    "a key too many in an entry": (header(conv__weight__codes={"x": 1}), "entry of conv.weight.codes is malformed"),
    "an entry that is no object": (
        with_header(SMALL.payload, lambda h: h | {CODES: [1]}),
        "entry of conv.weight.codes is malformed",
    ),
    "an offset that is a string": (header(conv__weight__codes={"data_offsets": ["0", 108]}), "malformed offsets"),
    "an offset that is a truth value": (header(conv__weight__codes={"data_offsets": [False, 108]}), "malformed off"),
    "three offsets": (header(conv__weight__codes={"data_offsets": [0, 108, 108]}), "malformed offsets"),
    "offsets of another size": (header(conv__weight__codes={"data_offsets": [0, 107]}), "107 bytes, not what its sha"),
    "offsets backwards": (header(conv__weight__codes={"data_offsets": [108, 0]}), "-108 bytes, not what its shape"),
    "an overlap": (moved(SCALES, -2), "overlap or leave a hole"),
    "a hole": (moved(SCALES, 2), "overlap or leave a hole"),
    "negative offsets": (moved(CODES, -1000), "overlap or leave a hole"),
    "bytes that belong to nothing": (SMALL.payload + b"\0" * 8, "bytes of data, the header covers"),
    "a header longer than the file": (swapped_length(10**6), "the header does not fit"),
    "a header of 2^64 bytes": (swapped_length(2**64 - 1), "the header does not fit"),
    "an empty header": (swapped_length(0), "header: not valid JSON"),
    "a header that ends early": (swapped_length(20), "header: not valid JSON"),
    "a header that is a list": (with_header(SMALL.payload, lambda h: []), "the header is not an object"),
    "a header that is not JSON": (join("{" * 900, b""), "header: not valid JSON"),
    "a header in UTF-16": (
        (lambda text, data: len(text).to_bytes(8, "little") + text + data)(
            json.dumps(split(SMALL.payload)[0]).encode("utf-16"), split(SMALL.payload)[1]
        ),
        "header: not valid JSON",
    ),
    "an offset that Python reads and safetensors does not": (
        with_header(SMALL.payload, lambda h: json.dumps(h).replace("[0, ", "[-0, ", 1)),
        "not spelled or ordered as the format demands",
    ),
    "a header with NaN": (with_header(SMALL.payload, lambda h: {"a": math.nan}), "the number NaN is not allowed"),
    "a deeply nested header": (join('{"a":' * 50_000, b""), "header: not valid JSON"),
    "a pickle": (b"\x80\x02}q\x00." + b"\0" * 900, "the header does not fit"),
    "a scale that is NaN": (written(SCALES, 0, bf16(math.nan)), "conv.weight.scales holds a value that is not finite"),
    "a scale that is infinite": (written(SCALES, 2, bf16(math.inf)), "conv.weight.scales holds a value that is not f"),
    "a negative scale": (written(SCALES, 4, bf16(-1.0)), "conv.weight.scales holds a negative scale"),
    "a value that is NaN": (written(VALUES, 0, struct.pack("<e", math.nan)), "norm.weight.values holds a value that"),
    "a value that is infinite": (written(VALUES, 2, struct.pack("<e", -math.inf)), "norm.weight.values holds a value"),
    "the code -2^(b-1)": (written(CODES, 5, b"\x08"), "conv.weight.codes holds a code outside its 4-bit range"),
    "stray padding bits": (written("gate.weight.codes", 7, b"\x98"), "gate.weight.codes holds a code outside its 4-b"),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_a_payload_is_refused(case):
    payload, message = PAYLOADS[case]
    with pytest.raises(ArtifactError) as caught:
        load(vouched(DATA, payload), payload)
    assert type(caught.value) is CorruptArtifactError
    assert message in str(caught.value)


def test_the_forge_itself_changes_nothing():
    assert load(sealed(DATA), SMALL.payload).config == SMALL.config
    again = join(*split(SMALL.payload))
    assert load(vouched(DATA, again), again).names == SMALL.names


TEXT = SMALL.config.to_text()
CONFIGS = {
    "another library's config": ('{"model_type": "vit", "hidden_size": 768}', NotASignatureError, "not that of a"),
    "an adapter's config": ('{"peft_type": "LORA"}', NotASignatureError, "not that of a robust weight signature"),
    "a list": ("[1]", NotASignatureError, "not that of a robust weight signature"),
    "a newer format": (
        sealed(DATA | {"format_version": FORMAT_VERSION + 1}),
        FormatVersionError,
        "pip install -U rws-hub",
    ),
    "a newer format with keys of its own": (
        sealed(DATA | {"format_version": FORMAT_VERSION + 1, "rws_hub_version": "9.9", "new": 1}),
        FormatVersionError,
        "pip install -U 'rws-hub>=9.9'",
    ),
    "a key twice": (TEXT.replace('"license"', '"format": "rws",\n  "license"', 1), CorruptArtifactError, "occurs twi"),
    "a tensor twice": (
        TEXT.replace('"conv.weight": [', '"conv.weight": [1], "conv.weight": [', 1),
        CorruptArtifactError,
        "the key 'conv.weight' occurs twice",
    ),
    "NaN": (TEXT.replace('"recommended_alpha": 1.0', '"recommended_alpha": NaN'), CorruptArtifactError, "NaN is not"),
    "1e999": (
        TEXT.replace('"recommended_alpha": 1.0', '"recommended_alpha": 1e999'),
        CorruptArtifactError,
        "recommended_alpha: expected a finite number",
    ),
    "an integer of 5,000 digits": (
        TEXT.replace('"severity": 5', '"severity": ' + "5" * 5000),
        CorruptArtifactError,
        "not valid JSON",
    ),
    "deep nesting": ('{"format": ' + "[" * 100_000, CorruptArtifactError, "not valid JSON"),
    "Latin-1": (TEXT.replace("A small one", "Ä small one").encode("latin-1"), CorruptArtifactError, "not valid JSON"),
    "UTF-16": (TEXT.encode("utf-16"), CorruptArtifactError, "not valid JSON"),
    "a byte order mark": (TEXT.encode("utf-8-sig"), CorruptArtifactError, "not valid JSON"),
    "half a character": (TEXT.replace("A small one", "\\ud800"), CorruptArtifactError, "half of a surrogate pair"),
    "half a character in a name": (TEXT.replace('"fog"', '"\\ud800"'), CorruptArtifactError, "half of a surrogate"),
    "truth for a number": (sealed(put(DATA, "codec.bits", True)), CorruptArtifactError, "codec.bits: expected int"),
    "truth for a truth value's neighbour": (
        sealed(put(DATA, "extraction.profile.0.parameters", False)),
        CorruptArtifactError,
        "extraction.profile[0].parameters: expected int, found False",
    ),
    "an unknown key": (sealed(put(DATA, "codec.dither", 1)), CorruptArtifactError, "codec: unknown key 'dither'"),
    "a missing key": (sealed(put(DATA, "codec.bits", DELETE)), CorruptArtifactError, "the key 'bits' is missing"),
    "a changed strength": (
        json.dumps(DATA | {"recommended_alpha": 50.0}),
        CorruptArtifactError,
        "the digest does not hold",
    ),
    "no digest": (json.dumps(put(DATA, "digest", DELETE)), CorruptArtifactError, "the key 'digest' is missing"),
    "nothing": ("", CorruptArtifactError, "not valid JSON"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_is_refused(case):
    text, kind, message = CONFIGS[case]
    with pytest.raises(ArtifactError) as caught:
        parse_config(text)
    assert type(caught.value) is kind
    assert CONFIG_FILE in str(caught.value)
    assert message in str(caught.value)


def test_every_changed_character_of_the_config_is_found():
    start = TEXT.index('"description"')
    description = range(start, TEXT.index("\n", start))
    for position, character in enumerate(TEXT):
        if not character.isascii() or not character.isalnum() or position in description:
            continue
        other = {"9": "8", "z": "y", "Z": "Y"}.get(character) or chr(ord(character) + 1)
        changed = TEXT[:position] + other + TEXT[position + 1 :]
        try:
            read = parse_config(changed)
        except ArtifactError:
            continue
        assert read == SMALL.config, TEXT[max(0, position - 30) : position + 30]


@pytest.mark.parametrize("shape", [[2**20, 2**20], [2**40], [1, 2**39, 2]])
@pytest.mark.parametrize("name", ["conv.weight", "norm.weight"])
def test_a_terabyte_claimed_by_a_small_file_takes_neither_memory_nor_time(name, shape):
    text = sealed(put(DATA, f"backbone/layout/{name}", shape))
    times = []

    def refused():
        start = time.perf_counter()
        with pytest.raises(CorruptArtifactError, match=r"payload\.bytes is .*, but the tensors take .* and a header"):
            load(text, SMALL.payload)
        times.append(time.perf_counter() - start)

    for _ in range(3):
        refused()
    assert min(times) < 0.05
    tracemalloc.start()
    try:
        refused()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_terabyte_claimed_in_both_files_is_refused_by_the_size_of_the_data():
    backbone = dataclasses.replace(
        SMALL.config.backbone, layout=SMALL.config.backbone.layout | {"norm.weight": (2**40,)}
    )
    config = dataclasses.replace(SMALL.config, backbone=backbone)
    claimed = header(norm__weight__values={"shape": [2**40], "data_offsets": [116, 116 + 2 * 2**40]})
    config = dataclasses.replace(config, payload=dataclasses.replace(config.payload, bytes=len(claimed)))
    with pytest.raises(CorruptArtifactError, match=r"overlap or leave a hole|the header covers"):
        check_header(claimed, config)
    with pytest.raises(CorruptArtifactError, match=r"norm\.weight\.values must be F16 \[1099511627776\], found F16"):
        read_payload(SMALL.payload, dataclasses.replace(config, payload=SMALL.config.payload))


@pytest.mark.parametrize("size", [-1, 0, 100, 2**40])
def test_a_size_that_the_tensors_do_not_need_is_refused_before_anything_is_fetched(size):
    with pytest.raises(CorruptArtifactError, match=f"payload.bytes is {size:,}, but the tensors take"):
        parse_config(sealed(put(DATA, "payload.bytes", size)))


def test_a_payload_larger_than_stated_is_not_read(tmp_path):
    (tmp_path / CONFIG_FILE).write_text(TEXT, "utf-8")
    with (tmp_path / PAYLOAD_FILE).open("wb") as handle:
        handle.truncate(2**40)  # sparse: a terabyte on paper
    with pytest.raises(CorruptArtifactError, match=r"1,099,511,627,776 bytes, config\.json says .* too long"):
        RobustWeightSignature.from_pretrained(tmp_path)
