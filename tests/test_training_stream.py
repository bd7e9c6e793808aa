"""Which images a step sees, and how: by (seed, epoch, position) alone."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from patterns import SIZE, parquet, patterns
from PIL import Image

from rws_hub import DataError
from rws_hub.corruptions import corrupt
from rws_hub.pictures import Pictures, View, open_pictures
from rws_hub.training.settings import TrainSettings
from rws_hub.training.stream import Epoch, batches, split_off, whole

VIEW = View(SIZE, SIZE)
COUNT = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """40 images."""
    return open_pictures(parquet(tmp_path_factory.mktemp("stream"), {"train": COUNT}), "train")


def epoch(data: Pictures, number: int = 0, **given: Any) -> Epoch:
    told = {"recipe": "standard", "augment": False} | given
    if told["recipe"] != "standard":
        told = {"corruption": "gaussian_noise", "severity": 5} | told
    return Epoch(whole(data), TrainSettings(**told), VIEW, number)


def everything(found: Epoch) -> tuple[np.ndarray, np.ndarray]:
    images, labels = found.__getitems__(list(range(len(found))))
    return images.numpy(), labels.numpy()


def order(found: Epoch) -> list[int]:
    """Which image each position shows, by its pixels."""
    places = {p.tobytes(): i for i, p in enumerate(patterns(COUNT)[0])}
    return [places[image.tobytes()] for image in everything(found)[0]]


def test_every_image_once_in_an_order_of_its_own(data: Pictures) -> None:
    orders = [order(epoch(data, e, seed=s)) for s in (0, 1) for e in (0, 1)]
    assert all(sorted(o) == list(range(COUNT)) for o in orders)
    assert len({tuple(o) for o in [*orders, range(COUNT)]}) == 5
    assert order(epoch(data, 1, seed=1)) == orders[3]
    _, labels = everything(epoch(data))
    assert np.array_equal(labels, patterns(COUNT)[1][orders[0]])


def test_the_part_set_aside_is_not_trained_on(data: Pictures) -> None:
    for share, count in [(0.1, 4), (0.5, 20), (0.001, 1)]:
        training, validation = split_off(data, share, 3)
        assert (len(training), len(validation)) == (COUNT - count, count)
        assert sorted([*training.numbers, *validation.numbers]) == list(range(COUNT))
    first, other = split_off(data, 0.5, 3)[1].numbers, split_off(data, 0.5, 4)[1].numbers
    assert np.array_equal(split_off(data, 0.5, 3)[1].numbers, first) and not np.array_equal(first, other)
    shown = Epoch(split_off(data, 0.5, 3)[0], TrainSettings("standard", augment=False), VIEW, 0)
    assert not set(order(shown)) & set(first.tolist())


@pytest.mark.parametrize("recipe", ["standard", "from-clean", "two-branch"])
def test_what_is_corrupted(recipe: str, data: Pictures) -> None:
    clean, _ = everything(epoch(data))
    found = epoch(data, recipe=recipe)
    wrong = {"standard": slice(0, 0), "from-clean": slice(1, None, 2), "two-branch": slice(None)}[recipe]
    expected, numbers = clean.copy(), np.array(order(epoch(data)))
    if recipe != "standard":
        expected[wrong] = corrupt(clean[wrong], "gaussian_noise", 5, seed=(0, 0), indices=numbers[wrong])
    assert np.array_equal(everything(found)[0], expected)
    for begin in range(0, COUNT, 8):  # half of every batch, not only on the whole
        images, _ = found.__getitems__(list(range(begin, begin + 8)))
        share = np.mean([(a != b).any() for a, b in zip(images.numpy(), clean[begin : begin + 8], strict=True)])
        assert share == {"standard": 0, "from-clean": 0.5, "two-branch": 1}[recipe]


def test_another_epoch_or_seed_is_corrupted_otherwise(data: Pictures) -> None:
    def noise(number: int, seed: int) -> np.ndarray:
        found = epoch(data, number, recipe="two-branch", seed=seed)
        images, places = everything(found)[0].astype(int), order(epoch(data, number, seed=seed))
        return images[np.argsort(places)] - patterns(COUNT)[0]

    assert np.array_equal(noise(0, 0), noise(0, 0))
    for other in (noise(1, 0), noise(0, 1)):
        assert all((a != b).any() for a, b in zip(noise(0, 0), other, strict=True))


def test_moved_and_mirrored(data: Pictures) -> None:
    moved, plain = everything(epoch(data, augment=True))[0], everything(epoch(data))[0]
    margin = SIZE // 8
    mirrored = set()
    for image, original in zip(moved, plain, strict=True):
        framed = np.pad(original, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
        windows = [
            (flip, framed[y : y + SIZE, x : x + SIZE][:, :: -1 if flip else 1])
            for flip in (False, True)
            for y in range(2 * margin + 1)
            for x in range(2 * margin + 1)
        ]
        found = [flip for flip, window in windows if np.array_equal(window, image)]
        assert found
        mirrored |= set(found)
    assert mirrored == {False, True}


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers: int, data: Pictures) -> None:
    found = epoch(data, recipe="from-clean", augment=True)
    images, labels = found.__getitems__(list(range(COUNT)))
    parts = [list(range(b, b + 10)) for b in range(10, COUNT, 10)]  # as after going on from a saved state
    shown = list(batches(found, parts, workers))
    assert torch.equal(torch.cat([i for i, _ in shown]), images[10:])
    assert torch.equal(torch.cat([n for _, n in shown]), labels[10:])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_told_without_a_traceback(workers: int, tmp_path: Path) -> None:
    images = [Image.fromarray(patterns(1)[0][0]), {"bytes": b"PNG?", "path": None}]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features).to_parquet(tmp_path / "t.parquet")
    found = epoch(open_pictures(tmp_path, "train"))
    with pytest.raises(DataError) as caught:
        list(batches(found, [[0, 1]], workers))
    told = str(caught.value)
    assert told.startswith(f"{tmp_path.name}, train: an image cannot be read (") and "\n" not in told


def test_the_folder_itself_is_not_changed(data: Pictures, tmp_path: Path) -> None:
    everything(epoch(data, recipe="two-branch", augment=True))
    assert np.array_equal(data.pixels(range(COUNT), VIEW), patterns(COUNT)[0])
