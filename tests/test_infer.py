"""Maps found by running two models side by side: proven, or refused; never a wrong one."""

import re

import pytest
import torch
from bits import bits, changed
from builders import perturbed, tiny_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twin_weights import layout
from twins import TWINS

from rws_hub import RobustWeightSignature, patch
from rws_hub.infer import infer_table
from rws_hub.names import families, parse_family
from rws_hub.pairing import Pair
from rws_hub.recognise import recognise

BY_NAME = {t.name: t for t in TWINS}
QUICK = ["resnet-bottleneck", "vit", "vit-tv", "dinov2-swiglu", "beit", "swin", "convnext-v2-atto", "vgg-bn"]
UNSEEN = ["swin-v2", "hiera", "levit", "focalnet", "regnet-x-tv", "densenet-tv"]


def infer(twin):
    return infer_table(twin.a(), twin.b(), torch.zeros(1, 3, twin.size, twin.size))


def concrete(text, a):
    """The pairs that a table's rows spell, on the layout of the first model."""
    family = parse_family("found", text)
    found = set()
    for name in a:
        for row in family.rows:
            fields = row.cells["a"].parse(name)
            if fields is not None:
                views = [row.cells[side].view for side in "ab"]
                parts = [(v.part, v.parts) for v in views]
                found.add((name, parts[0], row.cells["b"].format(fields), parts[1]))
    return found


@pytest.mark.parametrize("name", QUICK + UNSEEN)
def test_a_map_is_found_and_its_rows_spell_it(name):
    twin = BY_NAME[name]
    found = infer(twin)
    assert found.difference <= 1e-12 < 1e-3 < found.before
    spelled = concrete(found.text, layout(twin.a()))
    prefix = next((p.b.split(".")[0] + "." for p in found.pairs if f"| {p.b}" not in found.text), "")
    assert {(a, x, b, y) for a, x, b, y in spelled} == {
        (p.a, p.a_part, p.b if p.b in {b for _, _, b, _ in spelled} else p.b.removeprefix(prefix), p.b_part)
        for p in found.pairs
    }


@pytest.mark.parametrize("name", ["vit", "swin", "convnext", "regnet-y"])
def test_what_is_found_is_what_the_table_says(name):
    """The tables of the package were written by hand, the inference knows nothing of them."""
    twin = BY_NAME[name]
    table = families()[twin.table]
    (theirs,) = recognise(layout(twin.b()))
    expected = set()
    for piece in theirs.pieces:
        rows = theirs.body[piece.canonical][0]
        step = rows if piece.part is None else piece.part.stop - piece.part.start
        part = (0, 1) if piece.part is None else (piece.part.start // step, rows // step)
        expected.add(Pair(piece.canonical, part, piece.model, (0, 1)))
    body = {p for p in infer(twin).pairs if p.a in theirs.body}
    assert body == expected and table is theirs.table


def test_a_found_table_patches_the_twin(tmp_path):
    twin = BY_NAME["swin-v2"]
    a, b = twin.a(), twin.b()
    found = infer(twin)
    file = tmp_path / "swin_v2.map"
    file.write_text(found.text)
    signature = RobustWeightSignature.extract(
        standard=a, robust=perturbed(a, 0.01, 1), corruption="fog", license="mit", layers=["layers.0.*"], table=file
    )
    clean = bits(b)
    with patch(b, signature, verify="architecture"):
        assert changed(clean, b) and all("encoder.layers.0." in n for n in changed(clean, b))
    assert changed(clean, b) == set()


def test_nothing_of_the_models_or_the_random_state_changes():
    a, b = tiny_vit(), tiny_vit(seed=3)
    a.train(), b.requires_grad_(False)
    before, state = (bits(a), bits(b)), torch.get_rng_state()
    infer_table(a, b, torch.zeros(1, 3, 32, 32))
    assert changed(before[0], a) == set() == changed(before[1], b)
    assert torch.equal(torch.get_rng_state(), state)
    assert a.training and not b.training
    assert all(p.requires_grad for p in a.parameters()) and not any(p.requires_grad for p in b.parameters())


def test_the_same_seed_gives_the_same_text():
    assert infer(BY_NAME["vit"]).text == infer(BY_NAME["vit"]).text


class Swapped(nn.Module):
    """Two layers of one shape, used in this order or the other."""

    def __init__(self, back=False, function=torch.relu):
        super().__init__()
        self.back, self.function = back, function
        self.left, self.right, self.head = (nn.Linear(9, 9) for _ in range(3))

    def forward(self, x):
        x = x.flatten(2).mean(1)[:, :9]
        one, two = (self.right, self.left) if self.back else (self.left, self.right)
        return self.head(self.function(two(self.function(one(x)))))


@pytest.mark.parametrize(
    ("name", "lines"),
    {
        "resnet-basic": ["Compared at 32x32 and 64x64 pixels, and with values 1/100 and 1000 times as large."],
        "vit": ["Compared at 32x32 pixels, and with", "Not compared at 64x64 pixels: VisionTransformer does not run"],
        "internvl": ["Not compared at 64x64 pixels: the first model resizes a tensor of its own there"],
    }.items(),
)
def test_what_was_compared_is_told(name, lines):
    text = infer(BY_NAME[name]).text
    assert all(f"\n# {line}" in text for line in lines)


def test_a_feature_map_of_one_place_is_told():
    def fixed():
        layers = [nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=2, padding=1) for i in range(3)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 2))

    told = "# The last feature map is 1x1 at every size compared"
    assert told in infer_table(fixed(), fixed(), torch.zeros(1, 3, 2, 2)).text
    assert told not in infer(BY_NAME["resnet-basic"]).text


@pytest.mark.parametrize(("name", "largest"), [("aimv2", 1e-12), ("dinov3", 1e-6)])
def test_what_a_model_computes_in_float32_is_no_difference(name, largest):
    """The norms of one are cast to float32 when it runs; the rotary constants of the other when it is built."""
    assert infer(BY_NAME[name]).difference < largest


class Branches(nn.Module):
    """Branches of equal layers, added up or multiplied, that start from one input."""

    def __init__(self, names, depth=1, product=False):
        super().__init__()
        self.branches = nn.ModuleDict({n: nn.Sequential(*(nn.Linear(9, 9) for _ in range(depth))) for n in names})
        self.product, self.head = product, nn.Linear(9, 9)

    def forward(self, x):
        x = x.flatten(1)[:, :9]
        stacked = torch.stack([torch.relu(branch(x)) for branch in self.branches.values()])
        return self.head(stacked.prod(0) if self.product else stacked.sum(0))


class Gated(nn.Module):
    """Two gated branches that are added up: their four layers all meet the input."""

    def __init__(self):
        super().__init__()
        self.g1, self.v1, self.g2, self.v2, self.head = (nn.Linear(9, 9) for _ in range(5))

    def forward(self, x):
        x = x.flatten(1)[:, :9]
        return self.head(torch.sigmoid(self.g1(x)) * self.v1(x) + torch.sigmoid(self.g2(x)) * self.v2(x))


class Fused(nn.Module):
    """Two branches whose products are taken, in one layer."""

    def __init__(self):
        super().__init__()
        self.both, self.head = nn.Linear(9, 18), nn.Linear(9, 9)

    def forward(self, x):
        one, two = torch.relu(self.both(x.flatten(1)[:, :9])).chunk(2, -1)
        return self.head(one * two)


def exchanged(*branches, depth=1):
    """Names of the tensors of two branches, side by side."""
    one, two = ([f"branches.{b}.{i}.{w}" for i in range(depth) for w in ("weight", "bias")] for b in branches)
    return set(zip(one, two, strict=True))


def test_what_could_change_places_is_told():
    example = torch.zeros(1, 3, 4, 4)
    found = infer_table(Branches("pq"), Branches("mn"), example)
    assert set(found.exchangeable) == exchanged("m", "n")
    assert (
        "\n# Paired by order alone, since all of these could change places in the same function: "
        "branches.m.0.{weight,bias} and branches.n.0.{weight,bias}\n"
    ) in found.text
    deep = infer_table(Branches("pq", depth=2), Branches("mn", depth=2), example)
    assert set(deep.exchangeable) == exchanged("m", "n", depth=2)
    three = infer_table(Branches("pqr"), Branches("lmn"), example)
    assert set(three.exchangeable) == exchanged("l", "m") | exchanged("m", "n")
    gated = {(f"{x}1.{w}", f"{x}2.{w}") for x in "gv" for w in ("weight", "bias")}
    assert set(infer_table(Gated(), Gated(), example).exchangeable) == gated
    # Where one model holds both branches in one tensor, the other is asked.
    for pair in ((Fused(), Branches("mn", product=True)), (Branches("mn", product=True), Fused())):
        assert set(infer_table(*pair, example).exchangeable) == exchanged("m", "n")
    # The two heads of LeViT are averaged; query, key and value, or branches in a row, are not alike.
    assert len(infer(BY_NAME["levit"]).exchangeable) == 6
    assert infer(BY_NAME["vit"]).exchangeable == () == infer_table(Swapped(), Swapped(), example).exchangeable


def test_order_of_use_decides_and_not_names():
    found = infer_table(Swapped(), Swapped(back=True), torch.zeros(1, 3, 8, 8))
    assert {(p.a, p.b) for p in found.pairs} >= {("left.weight", "right.weight"), ("right.weight", "left.weight")}


def test_tensors_without_part_in_the_output_are_told_and_not_mapped():
    a, b = tiny_vit(), tiny_vit(seed=4)
    b.mask_token = nn.Parameter(torch.zeros(1, 1, 48))
    found = infer_table(a, b, torch.zeros(1, 3, 32, 32))
    assert "# In the second alone, without part in the output: mask_token" in found.text
    assert all(p.b != "mask_token" for p in found.pairs)


def test_what_the_output_cannot_show_is_told():
    found = infer(BY_NAME["vit"])
    # Softmax takes no notice of what is added to every key alike.
    keys = tuple(n for n in layout(BY_NAME["vit"].b()) if re.search(r"\bk(ey|_proj)\.bias$", n))
    assert found.unproven == keys and len(keys) == 2
    assert f"# Paired by their place alone, since the output hardly hangs on them: {keys[0]}" in found.text

    class Faint(nn.Module):
        """Two tensors that hardly matter: swapped, the outputs would be as good as equal."""

        def __init__(self):
            super().__init__()
            self.main, self.one, self.two = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            x = x.flatten(1)[:, :6]
            return self.main(x) + 1e-13 * self.one(x) + 1e-13 * torch.tanh(self.two(x))

    found = infer_table(Faint(), Faint(), torch.zeros(1, 3, 4, 4))
    assert set(found.unproven) == {"one.weight", "one.bias", "two.weight", "two.bias"}
    assert infer_table(Swapped(), Swapped(), torch.zeros(1, 3, 8, 8)).unproven == ()


def test_tied_tensors_are_one():
    a, b = Swapped(), Swapped()
    a.right, b.left = a.left, b.right
    found = infer_table(a, b, torch.zeros(1, 3, 8, 8))
    assert len(found.pairs) == 4


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(5)))
def test_any_order_of_definition(order):
    """The same chain of equal layers, defined in any order."""

    class Chain(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.layers = nn.ModuleDict({f"layer{i}": nn.Linear(6, 6) for i in order})

        def forward(self, x):
            x = x.flatten(1)[:, :6]
            for i in range(5):
                x = torch.tanh(self.layers[f"layer{i}"](x))
            return x

    found = infer_table(Chain(range(5)), Chain(order), torch.zeros(1, 3, 4, 4))
    assert all(p.a == p.b for p in found.pairs) and len(found.pairs) == 10
