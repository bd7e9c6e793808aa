"""Labelled images from a Hub data set, a folder of Parquet files or a folder of images, through `datasets`."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rws_hub.config import is_repo_id
from rws_hub.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]

# Decoded images are kept in memory while all of them together take no more than this many bytes.
_KEEP_BYTES = 2**30
_LABEL_NAMES = ("label", "labels", "fine_label", "target", "class", "cls")


@dataclass(frozen=True, slots=True)
class View:
    """How an image becomes a square: unless it has the size already, its shorter side is resized, then it is cropped.

    Attributes:
        size: side of the square in pixels.
        resize: what the shorter side is resized to (bicubic) before the centre is cropped, in pixels.
    """

    size: int
    resize: int


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """One split of a data set of labelled images.

    Attributes:
        name: what to call it, one line.
        dataset_id: its Hub id, if it has one.
        split: which part of it.
        classes: names of the classes, in the order of the labels.
        labels: class of every image, int64 [N].
        fingerprint: sha256 over the labels and a sample of the encoded images: another data set has another one.
    """

    name: str
    dataset_id: str | None
    split: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    fingerprint: str
    _rows: Any
    _column: str
    _source: str
    _kept: dict[View, tuple[Pixels, NDArray[np.bool_]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Sequence[int] | NDArray[np.int64], view: View) -> Pixels:
        """Images by their numbers, uint8 [n, size, size, 3], RGB."""
        wanted = np.asarray(indices, dtype=np.int64)
        if len(self) * view.size**2 * 3 > _KEEP_BYTES:
            return self._decode(wanted, view)
        if view not in self._kept:
            empty = np.empty((len(self), view.size, view.size, 3), np.uint8)
            self._kept[view] = (empty, np.zeros(len(self), np.bool_))
        pixels, known = self._kept[view]
        missing = np.unique(wanted[~known[wanted]])
        if missing.size:
            pixels[missing] = self._decode(missing, view)
            known[missing] = True
        return pixels[wanted]

    def _decode(self, indices: NDArray[np.int64], view: View) -> Pixels:
        try:
            images = self._rows[indices.tolist()][self._column]
        except (OSError, SyntaxError) as error:  # what Pillow cannot read; it calls a broken PNG a syntax error
            raise DataError(f"{self.name}, {self.split}: an image cannot be read ({error})") from error
        return (
            np.stack([_square(image, view) for image in images])
            if images
            else np.empty((0, view.size, view.size, 3), np.uint8)
        )


def open_pictures(
    source: str | Path,
    split: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    labelled: bool = True,
) -> Pictures:
    """Open one split; images are decoded when they are asked for.

    Args:
        source: a local folder of Parquet files or of images (one sub-folder a class), or a Hub id with an
            optional `@revision`. A folder that exists wins.
        split: such as "train", "test", or a slice in the words of `datasets`, "test[:1000]".
        image_column: by default the one column that holds images.
        label_column: by default the one column of class labels.
        labelled: False for images whose labels nobody will look at, if there are any: every label is 0.

    Raises:
        DataError: nothing there, no such split or column, no labels, no images.
        huggingface_hub.errors: whatever the Hub client raises, untouched.
    """
    rows, name, dataset_id = _load(source, split)
    if not rows.num_rows:
        raise DataError(f"{name}: the split {split!r} is empty")
    image = _image_column(rows, image_column, name)
    if missing := rows.data.column(image).null_count:
        raise DataError(f"{name}: {missing:,} of {rows.num_rows:,} rows of the split {split!r} hold no image")
    labels: NDArray[np.int64] = np.zeros(rows.num_rows, np.int64)
    classes: tuple[str, ...] = ("",)
    if labelled:
        label = _label_column(rows, label_column, name, image)
        labels, classes = _labels(rows, label, name, _whole(source, split, rows, label))
    digest = _fingerprint(rows, image, labels)
    return Pictures(name, dataset_id, split, classes, labels, digest, rows, image, str(source))


def refuse_overlap(one: Pictures, other: Pictures, why: str) -> None:
    """Refuse two parts of one data set that share images.

    Raises:
        DataError: naming both.
    """
    if one._source == other._source and any(
        a == b and max(begin, start) < min(end, stop)
        for a, begin, end in _spans(one)
        for b, start, stop in _spans(other)
    ):
        raise DataError(f"{one.name}: {one.split} and {other.split} share images; {why}")


def _spans(pictures: Pictures) -> list[tuple[str, int, int]]:
    """Which rows of which splits."""
    import datasets

    sizes = {name: info.num_examples for name, info in (pictures._rows.info.splits or {}).items()}
    split = "+".join(sizes) if pictures.split == "all" else pictures.split
    found = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    return [(part.splitname, part.from_, part.to) for part in found]


def _whole(source: str | Path, split: str, rows: Any, label: str) -> Any:
    """The split that a slice is of, where only all of it knows all classes."""
    import datasets

    if isinstance(rows.features[label], datasets.ClassLabel) or "[" not in split:
        return rows
    parts = dict.fromkeys(part.partition("[")[0] for part in split.split("+"))
    return _load(source, "+".join(parts))[0]


def _load(source: str | Path, split: str) -> tuple[Any, str, str | None]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise DataError("reading images needs the datasets library: pip install 'rws-hub[eval]'") from error
    text = str(source)
    folder = Path(source).expanduser()
    repo_id, _, revision = text.partition("@")
    if folder.exists():
        if not folder.is_dir():
            raise DataError(f"{text} is a file; name the folder that holds the Parquet files or the images")
        arguments: dict[str, Any] = {"path": str(folder)}
        name, dataset_id = folder.resolve().name, None
    elif is_repo_id(repo_id):
        arguments = {"path": repo_id, "revision": revision or None}
        name, dataset_id = repo_id, repo_id
    else:
        raise DataError(f"{text}: no such folder, and not a data set on the Hub (namespace/name)")
    try:
        return datasets.load_dataset(split=split, **arguments), name, dataset_id
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(f"{text}: no such data set on the Hub, or it is private ({error})") from error
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        # `datasets` says what it found: an unknown split, no data files, several configurations.
        cause = f" ({' '.join(str(error.__cause__).split())[:300]})" if error.__cause__ else ""
        raise DataError(f"{text}, split {split!r}: {' '.join(str(error).split())}{cause}") from error


def _image_column(rows: Any, given: str | None, name: str) -> str:
    import datasets

    if given is not None:
        _require_column(rows, given, name, "--image-column")
        if not isinstance(rows.features[given], datasets.Image):
            raise DataError(f"{name}: the column {given!r} holds {_kind(rows, given)}, not images")
        return given
    found = [c for c, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if len(found) == 1:
        return str(found[0])
    raise DataError(
        f"{name}: {'no column holds' if not found else 'several columns hold'} images; its columns are "
        f"{_columns(rows)}. Say which with --image-column (image_column=)"
    )


def _label_column(rows: Any, given: str | None, name: str, image: str) -> str:
    import datasets

    if given is not None:
        _require_column(rows, given, name, "--label-column")
        return given
    others = [c for c in rows.features if c != image]
    found = [c for c in others if isinstance(rows.features[c], datasets.ClassLabel)]
    found = found or [c for c in others if c.lower() in _LABEL_NAMES]
    if len(found) == 1:
        return str(found[0])
    raise DataError(
        f"{name}: {'no column holds' if not found else ' and '.join(found) + ' both hold'} class labels; its columns "
        f"are {_columns(rows)}. Say which with --label-column (label_column=)"
    )


def _labels(rows: Any, column: str, name: str, whole: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels of `rows`, and the classes of `whole`, the split that they are of."""
    import datasets

    feature, values = rows.features[column], rows.with_format(None)[column][:]
    known = [v for v in whole.with_format(None)[column][:] if v is not None]
    if isinstance(feature, datasets.ClassLabel):
        classes = tuple(feature.names)
    elif all(isinstance(v, str) for v in values):
        classes = tuple(sorted(set(known)))
        numbers = {text: i for i, text in enumerate(classes)}
        values = [numbers[v] for v in values]
    elif all(type(v) is int for v in values):
        classes = tuple(str(i) for i in range(max(known) + 1))
    else:
        raise DataError(f"{name}: the column {column!r} holds {_kind(rows, column)}, not class labels")
    labels = np.array([-1 if v is None else v for v in values], dtype=np.int64)
    if labels.min() < 0 or labels.max() >= len(classes):
        wrong = int(labels.min() if labels.min() < 0 else labels.max())
        raise DataError(f"{name}: the label {wrong} is of no class; is this split without labels?")
    return labels, classes


def _fingerprint(rows: Any, image: str, labels: NDArray[np.int64]) -> str:
    """Of what can be read quickly: all labels, and the bytes of 64 images."""
    import datasets

    digest = hashlib.sha256(labels.astype("<i8").tobytes())
    sample = np.linspace(0, len(labels) - 1, min(64, len(labels))).astype(int).tolist()
    for found in rows.cast_column(image, datasets.Image(decode=False))[sample][image]:
        data = found["bytes"]
        digest.update(Path(found["path"]).read_bytes() if data is None else data)
    return digest.hexdigest()


def _square(image: Image, view: View) -> Pixels:
    from PIL.Image import Resampling

    rgb = image.convert("RGB")
    width, height = rgb.size
    if (width, height) != (view.size, view.size):
        factor = view.resize / min(width, height)
        target = (max(view.size, round(width * factor)), max(view.size, round(height * factor)))
        left, top = (target[0] - view.size) // 2, (target[1] - view.size) // 2
        rgb = rgb.resize(target, Resampling.BICUBIC).crop((left, top, left + view.size, top + view.size))
    return np.asarray(rgb)


def _require_column(rows: Any, column: str, name: str, option: str) -> None:
    if column not in rows.features:
        near = difflib.get_close_matches(column, rows.features, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{name}: {option} {column!r} is no column of it ({_columns(rows)}){hint}")


def _columns(rows: Any) -> str:
    return ", ".join(f"{c} ({_kind(rows, c)})" for c in rows.features)


def _kind(rows: Any, column: str) -> str:
    import datasets

    feature = rows.features[column]
    return "images" if isinstance(feature, datasets.Image) else str(getattr(feature, "dtype", type(feature).__name__))
