"""What factors may say, to the last number that is allowed, and what a small file of them may take."""

import math
import time

import pytest
import torch
from attacks_factors import components, compressed, factored, reaching, regrouped, shaped, with_rank
from attacks_payload import as_bytes, counted
from builders import tiny_vit
from corpus import bases, load
from forge import put, sealed

from rws_hub import patch
from rws_hub.codec import norm_of
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError, CorruptArtifactError, IncompatibleModelError
from rws_hub.factors import EXACT, MAX_STEP, TOP
from rws_hub.frames import compress
from rws_hub.spec import CONFIG_FILE, MAX_EXPANSION, PAYLOAD_FILE
from rws_hub.symbols import MIN_STEP

BOTH, ALONE = bases()["format 5, entropy"], bases()["format 5, entropy without symbols"]
ORIGINS = pytest.mark.parametrize("origin", [BOTH, ALONE], ids=["with symbols", "without"])


def opened(make, folder):
    """What a made artifact is read as."""
    make(folder)
    return load(folder)


def with_numbers(origin, label, at, value):
    changed = origin.parts[label].clone()
    changed[at] = value
    return counted(origin, {label: changed})


def test_the_forge_itself_changes_nothing(tmp_path):
    for origin in (BOTH, ALONE):
        for parts in ({}, compressed(origin.streams["factors"])):
            assert opened(counted(origin, parts), tmp_path).config.tensors == origin.config.tensors
    assert ALONE.streams["frame"] == b"" and ALONE.config.codec.frame > 0


@ORIGINS
def test_products_may_reach_two_to_the_24(origin, tmp_path):
    for name in factored(origin):
        if origin.config.tensors[name].rank < 2:
            continue
        signature = opened(counted(origin, reaching(origin, name, exact=True)), tmp_path)
        codes = signature.delta(name).double() / float(signature.tensors[name].parts["step"])
        assert float(signature.tensors[name].parts["largest"]) == EXACT
        assert torch.equal(codes, codes.round()) and float(codes.abs().max()) <= EXACT


@ORIGINS
@pytest.mark.parametrize("step", [MIN_STEP, MAX_STEP])
def test_the_least_and_the_largest_step_are_allowed(origin, step, tmp_path):
    first = factored(origin)[0]
    at = sorted(n for n, f in origin.config.tensors.items() if f.encoding in ("symbols", "factors")).index(first)
    delta = opened(with_numbers(origin, "steps", at, step), tmp_path).delta(first)
    assert bool(torch.isfinite(delta).all()) and float(delta[delta != 0].abs().min()) >= MIN_STEP


@ORIGINS
def test_a_rank_may_be_as_large_as_a_side_and_a_vector_have_one(origin, tmp_path):
    name = factored(origin)[0]
    others = [c for c in components(origin) if c[0] != name]
    rest = sum(count for *_, count in others)
    for shape, rank in (((3, 70), 3), ((70, 3), 3), ((9,), 1), ((1, 9), 1), ((2, 3, 5), 2)):
        data = shaped(with_rank(origin.data, name, rank), origin, name, shape)
        codes = rank * (shape[0] + math.prod(shape[1:]))
        parts = compressed(bytes([TOP + 1]) * (codes + rest)) | {
            "shifts": torch.zeros(rank + len(others), dtype=torch.uint8)
        }
        signature = opened(counted(origin, parts, data), tmp_path)
        step = float(signature.tensors[name].parts["step"])
        assert torch.equal(signature.delta(name), torch.full(shape, rank * step))


@ORIGINS
def test_every_changed_character_of_the_config_is_found(origin):
    text = origin.text.decode()
    for position, character in enumerate(text):
        if not character.isascii() or not character.isalnum():
            continue
        other = {"9": "8", "z": "y", "Z": "Y"}.get(character) or chr(ord(character) + 1)
        try:
            found = parse_config(text[:position] + other + text[position + 1 :])
        except ArtifactError as error:
            assert CONFIG_FILE in str(error)
        else:
            start = text.index('"description"')
            assert found == origin.config or start < position < text.index("\n", start)


def test_a_negative_count_of_factors_is_refused_where_there_are_none():
    plain = bases()["format 4, entropy"]
    for value in (-1, 0, 1):
        data = put(put(plain.data, "codec.factors", value), "format_version", 5)
        with pytest.raises(
            CorruptArtifactError, match=rf"codec\.factors is {value}, which cannot stand for the factors of 0 tensors"
        ):
            parse_config(sealed(data))


def test_factors_that_no_count_was_made_of_are_refused():
    plain = bases()["format 4, entropy"]
    wide = next(n for n in plain.config.tensors if len(plain.config.shape(n)) > 1)
    with pytest.raises(
        CorruptArtifactError, match=r"codec\.factors is None, which cannot stand for the factors of 1 tensors"
    ):
        parse_config(sealed(regrouped(plain, wide, "factors", [0.1, 0.1, 1])))


@ORIGINS
def test_a_small_file_of_many_codes_takes_little_memory_and_no_time(origin, tmp_path):
    """As many as may always be, none of them wrong: what is allowed is paid for, too."""
    name = factored(origin)[0]
    others = [c for c in components(origin) if c[0] != name]
    rest, rank = sum(count for *_, count in others), 2**10
    side = (2**24 - rest) // rank // 2
    data = shaped(with_rank(origin.data, name, rank), origin, name, (side, side))
    stream = bytes([TOP + 1]) * (2 * side * rank + rest)
    parts = {
        "factors": as_bytes(bytes(compress([stream], len(stream), 1))),
        "shifts": torch.zeros(rank + len(others), dtype=torch.uint8),
    }
    counted(origin, parts, data)(tmp_path)
    assert (tmp_path / PAYLOAD_FILE).stat().st_size < 2**14 and len(stream) > 2**24 - 2**12
    start = time.process_time()
    signature = load(tmp_path)
    assert time.process_time() - start < 1
    kept = signature.tensors[name].parts
    assert sum(p.numel() * p.element_size() for p in kept.values()) < 2**24 * 5 + 2**12
    with pytest.raises(CorruptArtifactError, match="cannot stand for"):  # as many bytes, were they symbols
        parse_config(sealed(shaped(data, origin, name, (side, MAX_EXPANSION * side))))


def test_components_that_cancel_each_other_do_not_hide_how_far_a_patch_moves_a_model(tmp_path):
    model = tiny_vit(embed_dim=24)
    name = factored(ALONE)[0]
    stream, shifts = bytearray(ALONE.streams["factors"]), ALONE.parts["shifts"].clone()
    own = [(place, at, count) for n, _, place, at, count in components(ALONE) if n == name]
    outputs = ALONE.config.shape(name)[0]
    for i, (place, at, count) in enumerate(own):  # 2^22 - 2^21 - 2^20 - 2^20, and 1 in one element
        stream[at : at + count] = bytes([TOP - 1 if i else TOP + 1] * outputs + [TOP + 1] * (count - outputs))
        shifts[place] = (22, 21, 20, 20, 0)[i]
    stream[at : at + count] = bytes([TOP + 1] + [TOP] * (count - 2) + [TOP + 1])
    steps = ALONE.parts["steps"].clone()
    steps[0] = 1e6
    make = counted(ALONE, compressed(stream) | {"shifts": shifts, "steps": steps})
    signature = opened(make, tmp_path)
    delta = signature.delta(name)
    assert int((delta != 0).sum()) == 1 and float(delta.abs().max()) == 1e6
    assert norm_of(signature.tensors[name], 4) == 1e6
    with pytest.raises(IncompatibleModelError, match="would change it by"):
        patch(model, signature)


def test_a_signature_of_cancelled_components_alone_has_no_norm(tmp_path):
    name = factored(ALONE)[0]
    stream, shifts = bytearray(ALONE.streams["factors"]), torch.zeros_like(ALONE.parts["shifts"])
    for n, i, _, at, count in components(ALONE):
        if n == name:  # 4 - 1 - 1 - 1 - 1
            outputs = ALONE.config.shape(name)[0]
            stream[at : at + count] = bytes([TOP + (-1 if i else 4)] * outputs + [TOP + 1] * (count - outputs))
    signature = opened(counted(ALONE, compressed(stream) | {"shifts": shifts}), tmp_path)
    assert not signature.delta(name).any() and norm_of(signature.tensors[name], 4) == 0
    model = tiny_vit(embed_dim=24)
    with patch(model, signature) as on:
        assert [change.relative_norm for change in on.plan.changes][-1] == 0
