"""One cell of a table: templates read and write names, views read and write shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rws_hub.cells import Slice, View, parse_cell


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
    assert parse_cell(template).parse(name) == fields


@pytest.mark.parametrize(
    ("template", "name", "fields"),
    [
        ("layer.{2*k}.w", "layer.6.w", {"k": 3}),
        ("layer.{2*k}.w", "layer.7.w", None),
        ("layer.{2*k+1}.w", "layer.7.w", {"k": 3}),
        ("layer.{2*k+1}.w", "layer.0.w", None),
        ("layer.{k-1}.w", "layer.0.w", {"k": 1}),
        ("blocks.{s=0}.{b}.w", "blocks.0.4.w", {"s": 0, "b": 4}),
        ("blocks.{s=0}.{b}.w", "blocks.1.4.w", None),
    ],
)
def test_offsets_strides_and_fixed_fields(template, name, fields):
    cell = parse_cell(template)
    assert cell.parse(name) == fields
    assert fields is None or cell.format(fields) == name


VIEWS = [
    # text, shape of the tensor, shape of the view, where it lies
    ("x[1/3]", (12, 5), (4, 5), Slice(0, 4, 8)),
    ("x[:,1:]", (1, 5, 7), (1, 4, 7), Slice(1, 1, 5)),
    ("+x[:,:1]", (1, 5, 7), (1, 1, 7), Slice(1, 0, 1)),
    ("x[None,None]", (7,), (1, 1, 7), None),
    ("x[0,0,0]", (1, 1, 1, 7), (7,), None),
    ("x[flat]", (4, 3, 2, 2), (4, 12), None),
    ("x", (4, 3), (4, 3), None),
    ("x", (), (), None),
]


@pytest.mark.parametrize(("text", "shape", "part", "place"), VIEWS)
def test_a_view_knows_its_shape_and_its_place(text, shape, part, place):
    view = parse_cell(text).view
    assert view.of(shape) == part
    assert view.slice(shape) == place
    if not view.flat and view.last is None:
        assert view.whole(part) == shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [("x[0/3]", (10, 4)), ("x[0/3]", ()), ("x[:,1:]", (3,)), ("x[:,1:]", (3, 1)), ("x[0,0]", (1, 2, 3))],
)
def test_a_tensor_that_has_no_such_view(text, shape):
    assert parse_cell(text).view.of(shape) is None


@pytest.mark.parametrize(("text", "part"), [("x[None]", (2, 3)), ("x[:,1:]", (3,)), ("x[0/2]", ())])
def test_a_shape_that_is_no_such_view_of_anything(text, part):
    assert parse_cell(text).view.whole(part) is None


@given(st.integers(2, 5), st.integers(1, 6), st.lists(st.integers(1, 4), max_size=3))
def test_row_blocks_tile_a_tensor(parts, step, rest):
    shape = (parts * step, *rest)
    places = [View(part=k, parts=parts).slice(shape) for k in range(parts)]
    assert [i for p in places for i in range(p.start, p.stop)] == list(range(shape[0]))
    assert all(View(part=k, parts=parts).whole(View(part=k, parts=parts).of(shape)) == shape for k in range(parts))


def test_views_overlap_unless_they_are_different_blocks():
    first, second, half = View(0, 3), View(1, 3), View(0, 2)
    assert not first.overlaps(second) and first.overlaps(first)
    assert first.overlaps(half) and View().overlaps(first) and first.overlaps(View())


def test_lengths_of_the_last_axes():
    cell = parse_cell("x<7,7>")
    assert cell.takes((64, 3, 7, 7)) and not cell.takes((64, 3, 3, 3)) and not cell.takes((7,))
    assert parse_cell("x").takes((64, 3, 3, 3))
