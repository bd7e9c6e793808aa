"""Labelled images from folders: which column is which, and what a split without labels is told."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hub import Hub
from patterns import CLASSES, SIZE, parquet, patterns
from PIL import Image

from rws_hub import DataError
from rws_hub.pictures import View, open_pictures, refuse_overlap

AS_IS = View(SIZE, SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files of 20 training and 8 test images."""
    return parquet(tmp_path_factory.mktemp("pictures") / "stripes", {"train": 20, "test": 8})


def image_folder(root: Path, images: dict[str, Image.Image]) -> Path:
    """PNG files by their paths."""
    for path, image in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / path)
    return root


def table(folder: Path, columns: dict[str, tuple[object, list[object]]]) -> Path:
    """One Parquet file, split "train", of any columns: name -> feature and values."""
    features = datasets.Features({name: feature for name, (feature, _) in columns.items()})
    made = datasets.Dataset.from_dict({name: values for name, (_, values) in columns.items()}, features=features)
    folder.mkdir()
    made.to_parquet(folder / "train.parquet")
    return folder


def pictures(count: int = 3) -> tuple[object, list[object]]:
    return datasets.Image(), [Image.fromarray(p) for p in patterns(count)[0]]


# --- where they come from


def test_parquet(folder: Path) -> None:
    found = open_pictures(folder, "test")
    pixels, labels = patterns(8, 1)
    assert (found.name, found.dataset_id, found.split, found.classes) == ("stripes", None, "test", CLASSES)
    assert len(found) == 8 and found.labels.dtype == np.int64 and np.array_equal(found.labels, labels)
    assert np.array_equal(found.pixels(range(8), AS_IS), pixels)
    sliced = open_pictures(str(folder), "test[2:5]")
    assert np.array_equal(sliced.labels, labels[2:5]) and np.array_equal(sliced.pixels([1], AS_IS), pixels[3:4])


def test_folders_of_images(tmp_path: Path) -> None:
    pixels = patterns(4)[0]
    names = ("cat/0.png", "cat/1.png", "dog/0.png", "ant/0.png")
    root = image_folder(
        tmp_path / "zoo", {f"train/{n}": Image.fromarray(p) for n, p in zip(names, pixels, strict=True)}
    )
    found = open_pictures(root, "train")
    assert found.classes == ("ant", "cat", "dog") and found.labels.tolist() == [0, 1, 1, 2]
    assert np.array_equal(found.pixels([0, 1, 2, 3], AS_IS), pixels[[3, 0, 1, 2]])
    assert len(found.fingerprint) == 64


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at/all", "nowhere/at/all: no such folder, and not a data set on the Hub"),
        ("./nowhere", "no such folder"),
        ("empty", r"empty, split 'train': .*(data|files)"),
        ("file.parquet", "file.parquet is a file; name the folder that holds"),
    ],
)
def test_nothing_there(source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.parquet").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_pictures(source, "train")


def test_nothing_on_the_hub(hub: Hub, hub_cache: Path) -> None:
    with pytest.raises(DataError, match=r"alice/none.*Couldn't find 'alice/none' on the Hugging Face Hub"):
        open_pictures("alice/none", "train")


def test_splits(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'tets': .*Unknown split.*train.*test"):
        open_pictures(folder, "tets")
    with pytest.raises(DataError, match=r"split 'test\[:0\]': .*no data"):
        open_pictures(folder, "test[:0]")
    with pytest.raises(DataError, match=r"stripes: the split 'test\[5:2\]' is empty"):
        open_pictures(folder, "test[5:2]")
    with pytest.raises(DataError, match=r"void, split 'train': .*no data"):
        open_pictures(parquet(tmp_path / "void", {"train": 0, "test": 3}), "train")


def test_the_cause_of_an_error_is_told(tmp_path: Path) -> None:
    files = {"train": {"label": [1]}, "test": {"label": [1], "name": ["x"]}}  # their columns differ
    for split, columns in files.items():
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"occurred while generating the dataset \(.*column names don't match"):
        open_pictures(tmp_path, "train")


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("train", "train", True),
        ("train", "test", False),
        ("train[:10]", "train[10:]", False),
        ("train[:10]", "train[9:]", True),
        ("train[:50%]", "train[50%:]", False),
        ("train[-5:]", "train[12:16]", True),
        ("train[:5]+test[:5]", "train[10:]+test[4:]", True),
        ("all", "test[:1]", True),
    ],
)
def test_parts_that_share_images(one: str, other: str, shared: bool, folder: Path, tmp_path: Path) -> None:
    parts = [open_pictures(folder, split) for split in (one, other)]
    for first, second in (parts, parts[::-1]):
        if not shared:
            refuse_overlap(first, second, "they must not")
            continue
        with pytest.raises(DataError) as caught:
            refuse_overlap(first, second, "they must not")
        assert str(caught.value) == f"stripes: {first.split} and {second.split} share images; they must not"
    elsewhere = parquet(tmp_path / "stripes", {"train": 20, "test": 8})
    refuse_overlap(parts[0], open_pictures(elsewhere, other), "they do not")


# --- which column


def test_the_only_class_labels_are_the_labels(tmp_path: Path) -> None:
    kinds = datasets.ClassLabel(names=["a", "b"])
    columns = {"picture": pictures(), "n": (datasets.Value("int64"), [7, 8, 9]), "kind": (kinds, [1, 0, 1])}
    found = open_pictures(table(tmp_path / "d", columns), "train")
    assert found.classes == ("a", "b") and found.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["label", "labels", "fine_label", "target", "class", "cls", "Label"])
def test_usual_names_of_labels(name: str, tmp_path: Path) -> None:
    columns = {"img": pictures(), name: (datasets.Value("int32"), [2, 0, 1]), "n": (datasets.Value("int32"), [1, 1, 1])}
    found = open_pictures(table(tmp_path / "d", columns), "train")
    assert found.classes == ("0", "1", "2") and found.labels.tolist() == [2, 0, 1]


def test_labels_in_words(tmp_path: Path) -> None:
    columns = {"img": pictures(), "label": (datasets.Value("string"), ["owl", "bee", "owl"])}
    found = open_pictures(table(tmp_path / "d", columns), "train")
    assert found.classes == ("bee", "owl") and found.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("feature", "train", "test", "classes"),
    [
        (datasets.Value("string"), ["owl", "bee", "owl"], ["cat", "owl", None], ("bee", "cat", "owl")),
        (datasets.Value("int64"), [4, 0, 0], [2, 1, None], ("0", "1", "2", "3", "4")),
        (datasets.ClassLabel(names=["a", "b"]), [1, 0, 1], [1, 1, 0], ("a", "b")),
    ],
)
def test_a_slice_has_all_classes_of_its_split(
    feature: object, train: list[object], test: list[object], classes: tuple[str, ...], tmp_path: Path
) -> None:
    for split, labels in (("train", train), ("test", test)):
        columns = {"img": pictures(), "label": (feature, labels)}
        made = table(tmp_path / split, columns) / "train.parquet"
        made.rename(tmp_path / f"{split}.parquet")
        made.parent.rmdir()
    for split, shown in (
        ("train[1:]+test[:2]", [*train[1:], *test[:2]]),
        ("train[1:2]+test[1:2]", [train[1], test[1]]),
    ):
        found = open_pictures(tmp_path, split)
        known = [v if isinstance(feature, datasets.ClassLabel) else classes.index(str(v)) for v in shown]
        assert found.classes == classes and found.labels.tolist() == known
    assert open_pictures(tmp_path, "train[1:2]").classes == open_pictures(tmp_path, "train").classes


def test_several_candidates(tmp_path: Path) -> None:
    kinds = datasets.ClassLabel(names=["a", "b"])
    columns = {
        "left": pictures(),
        "right": pictures(),
        "fine_label": (kinds, [0, 1, 1]),
        "coarse_label": (datasets.ClassLabel(names=["x", "y", "z"]), [2, 1, 0]),
    }
    made = table(tmp_path / "d", columns)
    with pytest.raises(
        DataError,
        match=r"several columns hold images; its columns are left \(images\), right \(images\), .*--image-column",
    ):
        open_pictures(made, "train")
    with pytest.raises(DataError, match=r"fine_label and coarse_label both hold class labels.*--label-column"):
        open_pictures(made, "train", image_column="left")
    found = open_pictures(made, "train", image_column="right", label_column="coarse_label")
    assert found.classes == ("x", "y", "z") and found.labels.tolist() == [2, 1, 0]
    with pytest.raises(DataError, match=r"--label-column 'fine_labels' is no column of it .*did you mean 'fine_label'"):
        open_pictures(made, "train", image_column="left", label_column="fine_labels")
    with pytest.raises(DataError, match=r"--image-column 'lefd' .*did you mean 'left'"):
        open_pictures(made, "train", image_column="lefd")
    with pytest.raises(DataError, match="the column 'fine_label' holds int64, not images"):
        open_pictures(made, "train", image_column="fine_label")


def test_no_candidate(tmp_path: Path) -> None:
    numbers = (datasets.Value("float32"), [0.5, 1.5, 2.5])
    with pytest.raises(DataError, match=r"no column holds images; its columns are label \(float32\)"):
        open_pictures(table(tmp_path / "a", {"label": numbers}), "train")
    made = table(tmp_path / "b", {"img": pictures(), "size": numbers})
    with pytest.raises(
        DataError, match=r"no column holds class labels; its columns are img \(images\), size \(float32\)"
    ):
        open_pictures(made, "train")
    with pytest.raises(DataError, match="the column 'size' holds float32, not class labels"):
        open_pictures(made, "train", label_column="size")


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        (datasets.ClassLabel(names=["a", "b"]), [-1, -1, -1]),
        (datasets.ClassLabel(names=["a", "b"]), [0, 1, None]),
        (datasets.Value("int64"), [0, 1, -1]),
    ],
)
def test_images_without_labels_are_refused(feature: object, values: list[object], tmp_path: Path) -> None:
    made = table(tmp_path / "d", {"img": pictures(), "label": (feature, values)})
    with pytest.raises(DataError, match="the label -1 is of no class; is this split without labels"):
        open_pictures(made, "train")
    found = open_pictures(made, "train", labelled=False)
    assert found.labels.tolist() == [0, 0, 0] and np.array_equal(found.pixels(range(3), AS_IS), patterns(3)[0])


def test_no_labels_are_needed_where_nobody_looks_at_them(tmp_path: Path) -> None:
    made = table(tmp_path / "d", {"img": pictures()})
    assert len(open_pictures(made, "train", label_column="label", labelled=False)) == 3
    with pytest.raises(DataError, match="no column holds class labels"):
        open_pictures(made, "train")
