"""The pixels of labelled images: which are given, the same in any batch, and what cannot be read."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from numpy.typing import NDArray
from patterns import CLASSES, SIZE, parquet, patterns
from PIL import Image
from test_pictures import AS_IS, folder, image_folder, pictures, table

from rws_hub import DataError
from rws_hub.pictures import View, open_pictures

__all__ = ["folder"]  # a fixture


@pytest.mark.parametrize("damage", ["cut", "another length", "something else"])
def test_an_image_that_cannot_be_read(damage: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(patterns(1)[0][0]).save(whole, "PNG")
    png = whole.getvalue()
    spoiled = {"cut": png[:500], "another length": png[:33] + bytes(3) + b"\5" + png[37:], "something else": b"BM?"}
    images: list[object] = [{"bytes": data, "path": None} for data in (png, spoiled[damage])]
    columns = {"img": (datasets.Image(), images), "label": (datasets.Value("int64"), [0, 1])}
    found = open_pictures(table(tmp_path / "d", columns), "train")
    assert np.array_equal(found.pixels([0], AS_IS), patterns(1)[0])
    with pytest.raises(DataError, match=r"d, train: an image cannot be read \("):
        found.pixels([0, 1], AS_IS)


def test_rows_without_an_image(tmp_path: Path) -> None:
    feature, images = pictures(3)
    columns = {"img": (feature, [*images[:2], None]), "label": (datasets.Value("int64"), [0, 1, 2])}
    made = table(tmp_path / "d", columns)
    assert len(open_pictures(made, "train[:2]")) == 2
    with pytest.raises(DataError, match="d: 1 of 3 rows of the split 'train' hold no image"):
        open_pictures(made, "train")


def test_fingerprints(folder: Path, tmp_path: Path) -> None:
    first = open_pictures(folder, "train").fingerprint
    again = parquet(tmp_path / "again", {"train": 20})
    assert open_pictures(again, "train").fingerprint == first
    other = {
        "other images": open_pictures(parquet(tmp_path / "other", {"train": 20}, seed=5), "train"),
        "fewer": open_pictures(folder, "train[:19]"),
        "another split": open_pictures(folder, "test"),
    }
    assert len({first, *(p.fingerprint for p in other.values())}) == 4
    pixels, labels = patterns(20)
    kinds = datasets.ClassLabel(names=list(CLASSES))
    images: list[object] = [Image.fromarray(p) for p in pixels]
    shifted = {"image": (datasets.Image(), images), "label": (kinds, list((labels + 1) % 4))}
    assert open_pictures(table(tmp_path / "labels", shifted), "train").fingerprint != first  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [True, False], ids=["in memory", "decoded anew"])
def test_pixels_are_the_same_in_any_batch(kept: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr("rws_hub.pictures._KEEP_BYTES", 0)
    found, view = open_pictures(folder, "train"), View(24, 28)
    whole = open_pictures(folder, "train").pixels(range(20), view)
    assert whole.shape == (20, 24, 24, 3) and whole.dtype == np.uint8
    order = np.random.default_rng(0).permutation(20)
    for size in (1, 3, 20):
        for begin in range(0, 20, size):
            numbers = order[begin : begin + size]
            assert np.array_equal(found.pixels(numbers, view), whole[numbers])
    assert np.array_equal(found.pixels([4, 4, 2], view), whole[[4, 4, 2]])
    assert found.pixels([], view).shape == (0, 24, 24, 3)
    assert found.pixels([0], AS_IS).shape == (1, SIZE, SIZE, 3)  # another view of the same images


def test_what_is_given_out_may_be_written_to(folder: Path) -> None:
    found = open_pictures(folder, "test")
    found.pixels([0], AS_IS)[:] = 0
    assert np.array_equal(found.pixels([0], AS_IS), patterns(8, 1)[0][:1])


def test_any_image_becomes_a_square_of_three_colours(tmp_path: Path) -> None:
    def ramp(width: int, height: int) -> NDArray[np.uint8]:
        return np.broadcast_to(np.linspace(0, 255, width, dtype=np.uint8), (height, width)).copy()

    grey, wide = Image.fromarray(ramp(32, 32)), Image.fromarray(np.stack([ramp(128, 32)] * 3, 2))
    images = {
        "train/x/0.png": grey,
        "train/x/1.png": grey.convert("RGBA"),
        "train/x/2.png": wide,
        "train/x/3.png": wide.transpose(Image.Transpose.TRANSPOSE),
        "train/x/4.png": Image.fromarray(ramp(7, 5)),
        "train/y/0.png": grey.convert("P"),  # a folder without a second class has no labels
    }
    found = open_pictures(image_folder(tmp_path / "d", images), "train").pixels(range(6), AS_IS)
    assert found.shape == (6, 32, 32, 3)
    for exact in (0, 1, 5):
        assert np.array_equal(found[exact], np.stack([ramp(32, 32)] * 3, 2))
    centre = ramp(128, 32)[:, 48:80]
    assert np.array_equal(found[2], np.stack([centre] * 3, 2))
    assert np.array_equal(found[3], found[2].transpose(1, 0, 2))
    assert found[4, 16, 0].max() < found[4, 16, -1].min()


def test_a_frame_is_cut_off(tmp_path: Path) -> None:
    inside = np.full((40, 40, 3), 200, np.uint8)
    inside[:4] = inside[-4:] = inside[:, :4] = inside[:, -4:] = 0
    images = {f"train/{name}/0.png": Image.fromarray(inside) for name in "xy"}
    found = open_pictures(image_folder(tmp_path / "d", images), "train")
    assert found.pixels([0], View(32, 40)).min() == 200 and found.pixels([0], View(32, 32)).min() == 0
