"""`rws.safetensors`: exactly what the config promises."""

import dataclasses
import hashlib

import pytest
import safetensors.torch
import torch
from builders import tiny_signature
from forge import DTYPES, old_signature, small_signature, split

from rws_hub.errors import CorruptArtifactError
from rws_hub.payload import check_header, parts_of, read_payload, write_payload
from rws_hub.pools import pool

ALL_BITS = [0.5, 2, 4, 6.5, 8]
EVERY = [*(small_signature(b) for b in (*ALL_BITS, 32)), *(old_signature(b) for b in range(2, 9))]


@pytest.mark.parametrize("signature", EVERY, ids=lambda s: f"{s.config.codec.scheme}-{s.config.relative_error:g}")
def test_a_payload_comes_back_as_it_was(signature):
    tensors = read_payload(signature.payload, signature.config)
    assert list(tensors) == list(signature.names)
    for name, packed in tensors.items():
        written = signature.tensors[name]
        assert (packed.shape, packed.encoding, packed.granularity) == (
            written.shape,
            written.encoding,
            written.granularity,
        )
        assert all(torch.equal(packed.parts[s], part) for s, part in written.parts.items())
    codec = signature.config.codec
    flat = pool(tensors, codec.bits) if codec.scheme == "entropy" else parts_of(tensors)
    assert safetensors.torch.save(flat) == signature.payload  # the library would write the same file
    assert all(torch.equal(part, flat[n]) for n, part in safetensors.torch.load(signature.payload).items())
    assert write_payload(flat) == signature.payload


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_same_checkpoints_same_bytes(kind):
    first, second = tiny_signature(kind), tiny_signature(kind)
    assert first.payload == second.payload
    assert first.config.to_text() == second.config.to_text()


OLD_NAMES = [f"{n}.weight.{part}" for n in ("conv", "gate") for part in ("codes", "scales")]


@pytest.mark.parametrize(
    ("signature", "names"),
    [
        (small_signature(0.5), ["frame", "halves", "steps"]),
        (small_signature(8), ["escapes", "frame", "halves", "steps"]),
        (old_signature(), [*OLD_NAMES, "norm.running_var.values", "norm.weight.values"]),
    ],
    ids=["new", "escapes", "old"],
)
def test_the_file_is_plain_safetensors_without_metadata(signature, names):
    header, data = split(signature.payload)
    assert "__metadata__" not in header
    assert sorted(header) == names
    loaded = safetensors.torch.load(signature.payload)
    assert set(loaded) == set(header)
    assert sum(t.numel() * DTYPES[header[n]["dtype"]] for n, t in loaded.items()) == len(data)


@pytest.mark.parametrize("signature", [small_signature(), small_signature(8), old_signature()], ids=repr)
def test_every_flipped_bit_is_found(signature):
    for position in range(len(signature.payload)):
        damaged = bytearray(signature.payload)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptArtifactError):
            read_payload(bytes(damaged), signature.config)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1])
def test_a_truncated_payload_says_so(keep):
    signature = small_signature()
    with pytest.raises(CorruptArtifactError, match=r"the file is truncated\. Fetch it again"):
        read_payload(signature.payload[:keep], signature.config)


def test_a_payload_that_is_too_long_says_so():
    signature = small_signature()
    with pytest.raises(CorruptArtifactError, match="the file is too long"):
        read_payload(signature.payload + b"\0", signature.config)


def test_the_header_is_compared_before_the_digest():
    signature = small_signature()
    other = dataclasses.replace(signature.config.payload, sha256=hashlib.sha256(b"").hexdigest())
    config = dataclasses.replace(signature.config, payload=other)
    check_header(signature.payload, config)
    with pytest.raises(CorruptArtifactError, match=r"rws\.safetensors: sha256 is .*: the file was damaged or replaced"):
        read_payload(signature.payload, config)


def test_a_payload_of_another_signature_is_refused():
    signature, other = old_signature(), old_signature(seed=4)
    assert len(signature.payload) == len(other.payload)
    with pytest.raises(CorruptArtifactError, match="sha256"):
        read_payload(other.payload, signature.config)
    signature, other = small_signature(), small_signature(seed=4)
    with pytest.raises(CorruptArtifactError, match=r"sha256|bytes"):
        read_payload(other.payload, signature.config)
