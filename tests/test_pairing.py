"""Which tensor could be which: by shape first; words only break ties."""

import pytest
import torch

from rws_hub.pairing import Pair, Pairing, block_of, copy_part, is_flat

WHOLE = (0, 1)


def pairing(a, b, use_roles=True):
    make = lambda shapes: {n: torch.arange(float(torch.Size(s).numel())).reshape(s) for n, s in shapes.items()}  # noqa: E731
    return Pairing(make(a), make(b), [], use_roles)


def parts(found):
    return [(p.a, p.a_part, p.b_part) for p in found]


def test_equal_shapes_and_axes_of_length_one():
    p = pairing({"x": (4, 3), "y": (1, 1, 5)}, {"u": (4, 3, 1, 1), "v": (5,), "w": (2, 2)})
    assert parts(p.propose("u", ["x", "y"])) == [("x", WHOLE, WHOLE)]
    assert parts(p.propose("v", ["x", "y"])) == [("y", WHOLE, WHOLE)]
    assert p.propose("w", ["x", "y"]) == []


def test_a_fused_tensor_is_taken_block_by_block():
    p = pairing({"fused": (6, 4)}, {n: (2, 4) for n in "abc"})
    for k, name in enumerate("abc"):
        found = p.propose(name, ["fused"])
        assert parts(found) == [("fused", (k, 3), WHOLE)]
        p.take(found)
        assert torch.equal(p.b[name], p.a["fused"][2 * k : 2 * k + 2])
    assert not p.left("fused") and not p.is_open("a")


def test_words_say_which_block_and_can_be_left_out_of_account():
    shapes = {"layer.value.weight": (2, 4), "layer.query.weight": (2, 4)}
    for roles, expected in ((True, (2, 3)), (False, (0, 3))):
        p = pairing({"attn.qkv.weight": (6, 4)}, shapes, roles)
        assert parts(p.propose("layer.value.weight", ["attn.qkv.weight"])) == [("attn.qkv.weight", expected, WHOLE)]


def test_several_tensors_fill_a_fused_one_by_their_words():
    p = pairing({"v_proj.weight": (2, 4), "q_proj.weight": (2, 4), "k_proj.weight": (2, 4)}, {"in_proj": (6, 4)})
    found = p.propose("in_proj", list(p.a))
    assert parts(found) == [(f"{r}_proj.weight", WHOLE, (k, 3)) for k, r in enumerate("qkv")]
    p.take(found)
    assert torch.equal(p.b["in_proj"][:2], p.a["q_proj.weight"])


def test_the_last_word_breaks_ties():
    p = pairing({"n.bias": (4,), "n.weight": (4,)}, {"m.weight": (4,)})
    assert parts(p.propose("m.weight", ["n.bias", "n.weight"])) == [("n.weight", WHOLE, WHOLE)]


def test_what_is_taken_is_not_proposed_again():
    p = pairing({"x": (4,)}, {"u": (4,), "v": (4,)})
    p.take(p.propose("u", ["x"]))
    assert p.propose("v", ["x"]) == []


@pytest.mark.parametrize(
    ("wide", "flat", "expected"),
    [
        ((8, 2, 3, 3), (8, 18), True),
        ((8, 2, 3, 3), (9, 16), False),
        ((8, 18), (8, 18), False),
        ((8, 18), (8, 2, 3, 3), False),
    ],
)
def test_a_kernel_as_a_matrix(wide, flat, expected):
    assert is_flat(wide, flat) == expected


def test_a_part_is_copied_into_a_part():
    source, target = torch.arange(6.0).reshape(6, 1), torch.zeros(4, 1)
    copy_part(source, target, Pair("x", (1, 3), "y", (0, 2)))
    assert target.flatten().tolist() == [2.0, 3.0, 0.0, 0.0]
    assert block_of(source, (2, 3)).flatten().tolist() == [4.0, 5.0]
