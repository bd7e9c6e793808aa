"""Corruptions as a user meets them: names, constants, the same pixels in any batch, more damage, and errors."""

import doctest
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from photographs import photographs

from rws_hub.corruptions import CORRUPTIONS, KINDS, STANDARD, corrupt, corruption_table
from rws_hub.errors import CorruptionError, RWSError

FIXED = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
}
RANDOM = [name for name in CORRUPTIONS if name not in FIXED]
# By the published constants themselves, the next severity is not always further from the clean image.
NOT_MONOTONE = {32: {"glass_blur", "frost", "elastic_transform", "saturate"}} | {
    64: {"glass_blur", "elastic_transform", "saturate"}
}


def damage(name: str, side: int, count: int) -> list[float]:
    """Mean squared error against the clean photographs, severities 1 to 5."""
    clean = photographs(count, side, side)
    return [float(((corrupt(clean, name, s, seed=0) - clean.astype(float)) ** 2).mean()) for s in range(1, 6)]


def test_example_runs() -> None:
    found = doctest.DocTestFinder().find(corrupt, "corrupt", globs={"corrupt": corrupt, "np": np})
    assert doctest.DocTestRunner(verbose=False).run(found[0]) == doctest.TestResults(0, 1)


def test_names() -> None:
    assert len(STANDARD) == 15 and len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 19
    assert CORRUPTIONS[:15] == STANDARD
    assert sorted(itertools.chain(*KINDS.values())) == sorted(CORRUPTIONS)


@pytest.mark.parametrize(
    ("side", "name", "expected"),
    [
        (32, "gaussian_noise", [0.04, 0.06, 0.08, 0.09, 0.10]),
        (32, "shot_noise", [500, 250, 100, 75, 50]),
        (32, "jpeg_compression", [80, 65, 58, 50, 40]),
        (32, "fog", [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]),
        (32, "glass_blur", [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)]),
        (32, "frost", [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]),
        (
            32,
            "elastic_transform",
            [(0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)],
        ),
        (64, "impulse_noise", [0.01, 0.02, 0.05, 0.08, 0.14]),
        (64, "defocus_blur", [(0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)]),
        (64, "saturate", [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)]),
        (64, "contrast", [0.4, 0.3, 0.2, 0.1, 0.05]),
        (224, "gaussian_noise", [0.08, 0.12, 0.18, 0.26, 0.38]),
        (224, "motion_blur", [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]),
        (224, "pixelate", [0.6, 0.5, 0.4, 0.3, 0.25]),
        (224, "zoom_blur", [(1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02), (1, 1.31, 0.03)]),
        (224, "elastic_transform", [(488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88)]),
    ],
)
def test_published_constants(side: int, name: str, expected: list[Any]) -> None:
    for found, row in zip(corruption_table(side)[name], expected, strict=False):
        assert found == pytest.approx(row if isinstance(row, tuple) else (row,))


def test_tables_are_whole_and_chosen_by_the_shorter_side() -> None:
    for side in (32, 64, 224):
        assert set(corruption_table(side)) == set(CORRUPTIONS)
        assert all(len(rows) == 5 and len({len(row) for row in rows}) == 1 for rows in corruption_table(side).values())
    assert corruption_table(48) is corruption_table(8) is not corruption_table(49)
    assert corruption_table(96) is corruption_table(64) is not corruption_table(97)
    clean = photographs(1, 32, 200)
    contrast = (clean - clean.mean(axis=(1, 2), keepdims=True)) * 0.15 + clean.mean(axis=(1, 2), keepdims=True)
    assert np.abs(corrupt(clean, "contrast", 5, seed=0) - contrast).max() <= 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_depend_on_the_image_alone(name: str) -> None:
    clean = photographs(64, 32, 32)
    before = clean.copy()
    whole = corrupt(clean, name, 3, seed=5)
    assert whole.dtype == np.uint8 and whole.shape == clean.shape and not np.shares_memory(whole, clean)
    for size in (1, 7):
        parts = [slice(start, start + size) for start in range(0, 64, size)]
        again = [corrupt(clean[p], name, 3, seed=5, indices=range(64)[p]) for p in parts]
        assert np.array_equal(np.concatenate(again), whole)
    order = np.random.default_rng(0).permutation(64)
    assert np.array_equal(corrupt(clean[order], name, 3, seed=[5], indices=order), whole[order])
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_memory_layout(name: str) -> None:
    clean = photographs(3, 40, 36)
    turned = np.asfortranarray(clean)[:, ::-1][:, ::-1]
    assert np.array_equal(corrupt(turned, name, 2, seed=0), corrupt(clean, name, 2, seed=0))
    assert corrupt(clean[:0], name, 2, seed=0).shape == (0, 40, 36, 3)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(8, 8), (9, 31), (70, 65), (100, 300)])
def test_any_shape(name: str, shape: tuple[int, int]) -> None:
    clean = photographs(1, *shape)
    assert corrupt(clean, name, 5, seed=0).shape == clean.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white(name: str, level: int) -> None:
    flat = np.full((2, 32, 32, 3), level, np.uint8)
    for severity in (1, 3, 5):
        corrupt(flat, name, severity, seed=0)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seed_index_and_severity_matter(name: str) -> None:
    clean = np.repeat(photographs(1, 64, 64), 2, axis=0)
    found = corrupt(clean, name, 3, seed=0)
    assert np.array_equal(found[0], found[1]) == (name in FIXED)
    for seed in (1, (0, 0), (0, 1)):
        assert np.array_equal(corrupt(clean, name, 3, seed=seed), found) == (name in FIXED)
    assert not np.array_equal(corrupt(clean, name, 2, seed=0), found)


def test_the_global_generator_is_left_alone() -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    for name in RANDOM:
        corrupt(photographs(2, 32, 32), name, 1, seed=0)
    assert np.random.random() == expected


def test_threads() -> None:
    clean = photographs(4, 32, 32)
    alone = [corrupt(clean, name, 4, seed=1) for name in CORRUPTIONS]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: corrupt(clean, name, 4, seed=1), CORRUPTIONS * 2))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 2, together, strict=True))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("side", "count"), [(32, 40), (64, 16)])
def test_damage_grows(name: str, side: int, count: int) -> None:
    found = damage(name, side, count)
    if name not in NOT_MONOTONE[side]:
        assert found == sorted(found)
    elif name == "glass_blur" and side == 32:
        # More smoothing in one round hides the copies; a second round tells.
        assert found[0] > found[1] > found[2] and min(found[3:]) > max(found[:3])
    elif name == "glass_blur":
        assert found[4] == max(found)
    elif name == "frost":
        # From severity 3 on the image itself gets darker, which takes back some of what the frost adds.
        assert found[0] < found[1] < found[2] and min(found[3:]) > found[1]
    elif name == "elastic_transform":
        # The affine part moves pixels furthest, and it shrinks.
        assert found == sorted(found, reverse=True)
    else:
        # Severities 1 and 2 take colour away, 3 to 5 add it.
        assert found[0] < found[1] and found[2] < found[3] < found[4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "gausian_noise"}, "did you mean 'gaussian_noise'.*There are: gaussian_noise, shot_noise"),
        ({"name": "JPEG compression"}, "did you mean 'jpeg_compression'"),
        ({"name": "q"}, "no corruption is called 'q'. There are"),
        ({"severity": 0}, "from 1 to 5, found 0"),
        ({"severity": 6}, "found 6"),
        ({"severity": 2.0}, "found 2.0"),
        ({"severity": True}, "found True"),
        ({"images": np.zeros((1, 32, 32, 3))}, "found dtype float64; scale to 0 to 255"),
        ({"images": np.zeros((32, 32, 3), np.uint8)}, r"N, H, W, 3.*found shape \[32, 32, 3\]"),
        ({"images": np.zeros((1, 3, 32, 32), np.uint8)}, r"found shape \[1, 3, 32, 32\]"),
        ({"images": np.zeros((1, 7, 32, 3), np.uint8)}, "at least 8 pixels"),
        ({"images": [[1]]}, "found list"),
        ({"indices": [0]}, "2 images need as many indices, found 1"),
        ({"indices": np.array(5)}, "2 images need as many indices, found 1"),
        ({"indices": 5}, "indices must be whole numbers, one for each image, found 5"),
        ({"indices": [0, -1]}, "indices must be whole numbers that are not negative, found -1"),
        ({"indices": np.array([0.0, 1.0])}, "found 0.0"),
        ({"seed": -3}, "seed must be whole numbers that are not negative, found -3"),
        ({"seed": "x"}, "seed must be whole"),
        ({"seed": None}, "seed must be whole"),
        ({"seed": ()}, "seed must hold at least one"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"images": photographs(2, 32, 32), "name": "fog", "severity": 1, "seed": 0} | changes
    images, name, severity = (given.pop(key) for key in ("images", "name", "severity"))
    with pytest.raises(CorruptionError, match=message) as caught:
        corrupt(images, name, severity, **given)
    assert isinstance(caught.value, RWSError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("missing", ["scipy", "PIL"])
def test_missing_libraries_are_named(missing: str) -> None:
    code = f"""
import sys, numpy; sys.modules[{missing!r}] = None
from rws_hub.corruptions import corrupt
from rws_hub.errors import RWSError
try: corrupt(numpy.zeros((1, 8, 8, 3), numpy.uint8), "contrast", 1, seed=0)
except RWSError as error: print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"contrast needs {missing}" in ran.stdout and "pip install 'rws-hub[corruptions]'" in ran.stdout


def test_import_is_light() -> None:
    code = "import sys, rws_hub.corruptions; print({'torch', 'scipy', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
