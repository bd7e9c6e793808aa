"""The name tables: every row reads and writes every dialect, and no two rows spell one name."""

import re

import pytest

from rws_hub.names import WORDS, Cell, families, parse_family
from rws_hub.recognise import recognise
from rws_hub.resolve import spell

ROWS = [
    pytest.param(family, row, id=f"{family.name}-{next(c for c in row.cells.values() if c).template}")
    for family in families().values()
    for row in family.rows
]


def field_values(cell):
    """A few values for every field of a template."""
    fields = re.findall(r"\{([a-z]+)", cell.template)
    for number in (0, 1, 9, 10, 123):
        for word in range(4):
            yield {f: WORDS[f][word % len(WORDS[f])] if f in WORDS else number + i for i, f in enumerate(fields)}


@pytest.mark.parametrize(("family", "row"), ROWS)
def test_a_row_parses_and_formats_every_dialect(family, row):
    for cell in filter(None, row.cells.values()):
        for fields in field_values(cell):
            name = cell.format(fields)
            assert cell.parse(name) == fields
            for other in filter(None, row.cells.values()):
                assert other.parse(other.format(fields)) == fields
            assert cell.parse(name + "x") is None
            assert cell.parse("x." + name) is None


@pytest.mark.parametrize(("family", "row"), ROWS)
def test_a_name_is_spelled_by_one_row_only(family, row):
    for dialect, cell in row.cells.items():
        if cell is None:
            continue
        for fields in field_values(cell):
            name = cell.format(fields)
            rivals = [r for r in family.rows if (c := r.cells[dialect]) and c.parse(name) is not None]
            # Row blocks of one tensor are several rows with one template; a shared head may have two sources.
            assert {r.cells[dialect].template for r in rivals} == {cell.template}
            assert (
                row.head
                or sorted(r.cells[dialect].part for r in rivals) == list(range(cell.parts))
                or (dialect == family.canonical and len(rivals) == cell.parts)
            )


@pytest.mark.parametrize("family", families().values(), ids=families())
def test_row_blocks_of_a_table_fill_whole_tensors(family):
    for dialect in family.dialects:
        blocks = {}
        for row in family.rows:
            cell = row.cells[dialect]
            if cell and cell.parts > 1:
                blocks.setdefault((cell.template, cell.parts), []).append(cell.part)
        for (template, parts), found in blocks.items():
            assert sorted(found) == list(range(parts)), template


@pytest.mark.parametrize("family", families().values(), ids=families())
def test_every_body_row_belongs_to_a_unit(family):
    for row in family.rows:
        cell = row.cells[family.canonical]
        if cell is None or row.head:
            continue
        for fields in field_values(cell):
            assert family.unit_of(cell.format(fields)) is not None, cell.template
    assert family.unit_of("something.else.weight") is None


def test_units_come_in_execution_order_and_numbers_are_compared_as_numbers():
    vit, resnet = families()["vit"], families()["resnet"]
    names = ["norm.weight", "blocks.10.norm1.bias", "blocks.9.mlp.fc1.weight", "cls_token", "blocks.0.attn.qkv.bias"]
    ordered = sorted(names, key=lambda n: vit.unit_of(n)[0])
    assert [vit.unit_of(n)[1] for n in ordered] == ["embed", "blocks.0", "blocks.9", "blocks.10", "norm"]
    names = ["layer2.0.conv1.weight", "layer1.10.bn1.bias", "layer1.9.conv2.weight", "bn1.weight", "conv1.weight"]
    ordered = sorted(names, key=lambda n: resnet.unit_of(n)[0])
    assert [resnet.unit_of(n)[1] for n in ordered] == ["stem", "stem", "layer1.9", "layer1.10", "layer2.0"]


@pytest.mark.parametrize(
    ("template", "name", "fields"),
    [
        ("layer{s+1}.{b}.weight", "layer1.0.weight", {"s": 0, "b": 0}),
        ("layer{s+1}.{b}.weight", "layer0.0.weight", None),
        ("layer{s+1}.{b}.weight", "layer1.00.weight", None),
        ("layer{s+1}.{b}.weight", "layer01.0.weight", None),
        ("layer{s+1}.{b}.weight", "layer1.-1.weight", None),
        ("layer{s+1}.{b}.weight", "layer1x0.weight", None),
        ("layer{s+1}.{b}.weight", "layer1.٣.weight", None),
        ("a.{bn}", "a.running_var", {"bn": "running_var"}),
        ("a.{bn}", "a.num_batches_tracked", None),
        ("a.{wb}", "a.weights", None),
    ],
)
def test_templates_match_whole_names_and_plain_numbers_only(template, name, fields):
    assert Cell(template).parse(name) == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: a | b\nx.weight", "t.map line 2: 1 cells for 2 columns"),
        ("columns: a | b\n\nx.{i} | y.{j}", "t.map line 3: the cells of a row must hold the same fields"),
        ("columns: a | b\nx.{i} | y", "t.map line 2: the cells of a row must hold the same fields"),
    ],
)
def test_a_table_with_a_mistake_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_family("t", text)


def test_the_notation():
    text = "# a comment\ncolumns: a | b | c\nunit u{i}: x.{i} y\nx.{i}[1/3] | ^z.{i} | =  # why\nhead: h | - | ="
    family = parse_family("t", text)
    row, head = family.rows
    assert row.cells["a"] == Cell("x.{i}", part=1, parts=3)
    assert row.cells["b"] == row.cells["c"] == Cell("z.{i}", in_parent=True)
    assert head.head and head.cells == {"a": Cell("h"), "b": None, "c": None}
    assert family.canonical == "a"
    assert family.unit_of("x.4.weight") == ((0, 4), "u4")


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
def test_a_table_is_bijective_on_every_parameter(kind):
    family, body = families()[kind], golden(kind, 11)
    for dialect in family.dialects:
        spelled = {}
        for name, shape in body.items():
            pieces = spell(family, dialect, name, shape)
            assert sum(p.rows[1] - p.rows[0] for p in pieces) == shape[0]
            for piece in pieces:
                key = (piece.model, piece.model_rows)
                assert key not in spelled, f"{key} has two sources"
                spelled[key] = piece
        layout = {}
        for (model, rows), piece in spelled.items():
            layout[model] = (max(rows[1], layout.get(model, (0,))[0]), *body[piece.canonical][1:])
        (found,) = [r for r in recognise(layout) if r.dialect == dialect]
        assert found.body == body
        assert sorted(found.pieces, key=str) == sorted(spelled.values(), key=str)
