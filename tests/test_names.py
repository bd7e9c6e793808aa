"""The name tables: every row reads and writes every dialect, and no two rows spell one name."""

import re

import pytest

from rws_hub.cells import WORDS, Cell, View
from rws_hub.errors import NameTableError
from rws_hub.names import MAX_TABLE_BYTES, families, parse_family, read_table, table_of
from rws_hub.recognise import recognise

ROWS = [
    pytest.param(family, row, id=f"{family.name}-{row.text.split()[0]}-{i}")
    for family in families().values()
    for i, row in enumerate(family.rows)
]


def field_values(cell):
    """A few values for every field of a template."""
    fields = re.findall(r"\{(?:\d\*)?([a-z]+)", cell.template)
    for number in (1, 2, 9, 10, 123):
        for word in range(4):
            values = {f: WORDS[f][word % len(WORDS[f])] if f in WORDS else number + i for i, f in enumerate(fields)}
            yield values | dict(cell.fixed)


@pytest.mark.parametrize(("family", "row"), ROWS)
def test_a_row_parses_and_formats_every_dialect(family, row):
    for cell in filter(None, row.cells.values()):
        for fields in field_values(cell):
            name = cell.format(fields)
            assert cell.parse(name) == fields
            assert cell.parse(name + "x") is None
            assert cell.parse("x." + name) is None


@pytest.mark.parametrize("family", families().values(), ids=families())
def test_row_blocks_of_a_table_fill_whole_tensors(family):
    for dialect in family.dialects:
        blocks = {}
        for row in family.rows:
            cell = row.cells[dialect]
            if cell and cell.view.parts > 1:
                blocks.setdefault((cell.template, cell.view.parts), []).append(cell.view.part)
        for (template, parts), found in blocks.items():
            assert sorted(found) == list(range(parts)), template


@pytest.mark.parametrize("family", families().values(), ids=families())
def test_every_body_row_belongs_to_a_unit(family):
    for row in family.rows:
        cell = row.cells[family.canonical]
        if cell is None or not row.is_body or row.never:
            continue
        for fields in field_values(cell):
            assert family.unit_of(cell.format(fields)) is not None, cell.template
    assert family.unit_of("something.else.weight") is None


def in_order(family, names):
    return [family.unit_of(n)[1] for n in sorted(names, key=lambda n: family.unit_of(n)[0])]


def test_units_come_in_execution_order_and_numbers_are_compared_as_numbers():
    names = ["norm.weight", "blocks.10.norm1.bias", "blocks.9.mlp.fc1.weight", "cls_token", "blocks.0.attn.qkv.bias"]
    assert in_order(families()["vit"], names) == ["embed", "blocks.0", "blocks.9", "blocks.10", "norm"]
    names = ["layer2.0.conv1.weight", "layer1.10.bn1.bias", "layer1.9.conv2.weight", "bn1.weight", "conv1.weight"]
    assert in_order(families()["resnet"], names) == ["stem", "stem", "layer1.9", "layer1.10", "layer2.0"]


def test_a_down_sampling_layer_comes_before_the_blocks_of_its_stage_and_after_those_of_the_one_before():
    names = [f"layers.{s}.blocks.{b}.norm1.bias" for s in (2, 10, 1) for b in (1, 0)]
    names += [f"layers.{s}.downsample.norm.bias" for s in (10, 1, 2)]
    assert in_order(families()["swin"], names) == [
        f"layers.{s}.{unit}" for s in (1, 2, 10) for unit in ("downsample", "blocks.0", "blocks.1")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: a | b\nx.weight", "t, line 2: 1 cells for 2 columns"),
        ("columns: a | b\n\nx.{i} | y.{j}", "t, line 3: the cells of a row must hold the same fields"),
        ("columns: a | b\nx.{i} | y", "t, line 2: the cells of a row must hold the same fields"),
        ("columns: a | b\nx.{i}{j} | =", "t, line 2: .* with a text that is no number between two fields"),
        ("columns: a | b\nx.{i}.{i} | =", "t, line 2: .* holds a field twice"),
        ("columns: a | b\nx[3/3] | y", r"t, line 2: \[3/3\] is no view"),
        ("columns: a | b\nx | y[:,:1]", "can only be added"),
        ("columns: a | b\nx/y | z", "is no name template"),
        ("columns: a | b\nx y | z", "is no name template"),
        ("columns: a | b\n- | z", "the first column holds the canonical name"),
        ("columns: a | b\nwith y: x | z", "no row above is about y"),
        ("columns: a | a\nx | z", "expected a line `columns: a [|] b`"),
        ("columns: a\nx", "expected a line `columns: a [|] b`"),
        ("columns: a | b", "and rows below it"),
        ("columns: a | b\nx | y\ncolumns: c | d", "t, line 3: a second line `columns:`; a table has one"),
        ("columns: a | b\nx | y # \0", r"t, line 2: the character '\\x00' cannot be printed; remove it"),
        ("columns: a | b\nx | y\u2028", r"t, line 2: the character '\\u2028' cannot be printed"),
        ("x | y", "t, line 1: 2 cells for 0 columns"),
        ("#" * (MAX_TABLE_BYTES + 1), "a table has at most 65,536"),
    ],
)
def test_a_table_with_a_mistake_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_family("t", text)


def test_the_notation():
    text = """# a comment
        columns: a | b | c
        unit u{i}: x.{i} y.{i}
        r | s | -
        x.{i}[1/3] | z.{i} | =  # why
        with r: p | p[:,1:] | -
        without r: p | p | =
        needs: q[None] | q | +q[:,:1]
        head: h | - | ^h<7,7>
        extra: - | m | =
    """
    family = parse_family("t", text)
    assert family.text == text and family.canonical == "a"
    r, x, with_r, without_r, q, head, extra = family.rows
    assert r.cells["c"] is None and r.is_body
    assert x.cells["a"] == Cell("x.{i}", View(part=1, parts=3)) and x.cells["b"] == x.cells["c"] == Cell("z.{i}")
    assert with_r.cells["b"] == Cell("p", View(first=1)) and with_r.condition.names == {"a": "r", "b": "s"}
    assert with_r.condition.holds("b", ["s"]) and not with_r.condition.holds("b", ["r"])
    assert without_r.condition.holds("b", ["r"]) and not without_r.condition.holds("a", ["r"])
    assert q.needed and q.cells["a"] == Cell("q", View(lift=1))
    assert q.cells["c"] == Cell("q", View(first=0, last=1), additive=True)
    assert not head.is_body and head.cells["c"] == Cell("h", in_parent=True, last=(7, 7))
    assert not extra.is_body and extra.cells["a"] is None
    assert family.unit_of("x.4.weight") == ((0, 4, 0), "u4")


FLAT = """columns: timm | hf
flat hf: k = s b by layer.{k}.out
stem | =
blocks.{s=0}.{b}.w | layer.{k}.w
blocks.{s}.{b}.v   | layer.{k}.v
blocks.{s}.{b}.out | layer.{k}.out
"""


def test_a_running_number_is_counted_by_stage_and_block():
    timm = {"stem": (1,), "blocks.0.0.w": (4,)}
    timm |= {f"blocks.{s}.{b}.out": (8 * (s + 1), 4) for s, b in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))}
    timm |= {"blocks.1.1.v": (2,)}
    hf = {"stem": (1,), "layer.0.w": (4,), "layer.3.v": (2,)}
    hf |= {f"layer.{k}.out": (8 * (s + 1), 4) for k, s in enumerate((0, 0, 1, 1, 2))}
    family = parse_family("t", FLAT)
    (ours,), (theirs,) = recognise(timm, [family]), recognise(hf, [family])
    assert ours.body == theirs.body == timm
    assert {p.canonical: p.model for p in theirs.pieces}["blocks.1.1.v"] == "layer.3.v"
    hf["layer.4.w"] = (4,)  # a fixed field: only stage 0 has it
    assert recognise(hf, [family])[0].table is None


def test_known_stage_sizes_win_over_widths():
    family = parse_family("t", FLAT.replace("by", "as 1 2 2 by"))
    narrow = {"stem": (1,)} | {f"layer.{k}.out": (8, 4) for k in range(5)}
    (found,) = recognise(narrow, [family])
    assert [n for n in found.body if n != "stem"] == [
        f"blocks.{s}.{b}.out" for s, b in ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1))
    ]


def test_a_table_is_read_from_a_file_and_goes_by_its_name(tmp_path):
    file = tmp_path / "mine.map"
    file.write_text(FLAT)
    assert read_table(file).name == "mine"
    assert table_of("mine", FLAT).rows == read_table(str(file)).rows
    assert table_of("vit", None) is families()["vit"] and table_of("unknown", None) is None
    file.write_text("\ufeff" + FLAT.replace("\n", "\r\n"))  # as some editors write it
    assert read_table(file).rows == table_of("mine", FLAT).rows
    file.write_text("columns: a | b\nx{ | y")
    with pytest.raises(NameTableError, match=r"mine\.map: no name table \(mine, line 2"):
        read_table(file)
    file.write_bytes(b"\xff")
    for missing in (file, tmp_path / "none.map", tmp_path):
        with pytest.raises(NameTableError, match="no name table"):
            read_table(missing)


def golden(kind, blocks):
    """Canonical body layouts, written down without any library."""
    if kind == "vit":
        d = 12
        body = {"cls_token": (1, 1, d), "pos_embed": (1, 5, d)}
        body |= {"patch_embed.proj.weight": (d, 3, 2, 2), "patch_embed.proj.bias": (d,)}
        for i in range(blocks):
            b = f"blocks.{i}."
            for n in ("norm1", "norm2"):
                body |= {f"{b}{n}.weight": (d,), f"{b}{n}.bias": (d,)}
            for n, o, k in (("attn.qkv", 3 * d, d), ("attn.proj", d, d), ("mlp.fc1", 4 * d, d), ("mlp.fc2", d, 4 * d)):
                body |= {f"{b}{n}.weight": (o, k), f"{b}{n}.bias": (o,)}
        return body | {"norm.weight": (d,), "norm.bias": (d,)}
    stats = ("weight", "bias", "running_mean", "running_var")
    body = {"conv1.weight": (4, 3, 7, 7)} | {f"bn1.{s}": (4,) for s in stats}
    for stage in range(1, 5):
        for b in range(blocks):
            for c in (1, 2, 3):
                body[f"layer{stage}.{b}.conv{c}.weight"] = (4, 4, 3, 3)
                body |= {f"layer{stage}.{b}.bn{c}.{s}": (4,) for s in stats}
        body[f"layer{stage}.0.downsample.0.weight"] = (4, 4, 1, 1)
        body |= {f"layer{stage}.0.downsample.1.{s}": (4,) for s in stats}
    return body


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_every_golden_tensor_is_read_by_the_table(kind):
    (found,) = recognise(golden(kind, 11))
    assert found.family == kind and found.dialect == "timm" and found.body == golden(kind, 11)
