"""The sheet of corruptions and the command that writes it."""

import argparse
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from photographs import photographs
from PIL import Image

from rws_hub import data_commands
from rws_hub.corruptions import CORRUPTIONS, corrupt
from rws_hub.corruptions.sheet import contact_sheet
from rws_hub.errors import CorruptionError

ROOT = Path(__file__).parent.parent


def run(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    data_commands.declare(parser)
    data_commands.run(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(photographs(1, 60, 90)[0]).save(path)
    return path


def shows(sheet: np.ndarray, cell: np.ndarray) -> bool:
    """Whether a sheet holds a cell, pixel by pixel."""
    pixels, width, at = sheet.tobytes(), sheet.shape[1], -1
    while (at := pixels.find(cell[0].tobytes(), at + 1)) >= 0:
        y, x = divmod(at // 3, width)
        if at % 3 == 0 and np.array_equal(sheet[y : y + len(cell), x : x + cell.shape[1]], cell):
            return True
    return False


def test_sheet_shows_every_corruption() -> None:
    image = photographs(1, 112, 112)[0]
    sheet = np.asarray(contact_sheet(image, seed=4))
    assert shows(sheet, image) and not shows(sheet, image[::-1])
    for name in CORRUPTIONS:
        assert all(shows(sheet, corrupt(image[None], name, severity, seed=4)[0]) for severity in range(1, 6)), name


@pytest.mark.parametrize(("height", "width"), [(32, 32), (50, 120)])
def test_small_images_are_enlarged(height: int, width: int) -> None:
    sheet = contact_sheet(photographs(1, height, width)[0])
    assert sheet.width > 6 * 96 and sheet.height > 19 * 96


def test_sheet_wants_one_image() -> None:
    with pytest.raises(CorruptionError, match="one image"):
        contact_sheet(photographs(1, 32, 32))


def test_command(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    run(picture, "-o", out, "--size", 32)
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size:,} bytes\n"
    again = tmp_path / "again.jpg"
    run(picture, "-o", again, "--size", 32, "--seed", 1, "--json")
    assert json.loads(capsys.readouterr().out) == {"out": str(again), "bytes": again.stat().st_size}
    with Image.open(out) as one, Image.open(again) as other:
        assert one.size == other.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", 7], "--size must be from 8 to 1024"),
        (["--seed", -1], "--seed must not be negative"),
        (["-o", "sheet.txt"], r"end its name in \.png"),
        (["-o", "picture.png"], r"picture\.png exists already"),
    ],
)
def test_command_refuses(options: list[object], message: str, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(picture.parent)
    with pytest.raises(CorruptionError, match=message):
        run(picture, "-o", "sheet.png", *options)
    assert not Path("sheet.png").exists()


def test_command_on_what_is_no_image(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    with pytest.raises(CorruptionError, match=r"notes\.png cannot be read as an image"):
        run(text, "-o", tmp_path / "sheet.png")
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "nowhere.png", "-o", tmp_path / "sheet.png")


def test_page_holds_the_numbers_of_the_last_run() -> None:
    make = runpy.run_path(str(ROOT / "docs" / "make_corruptions.py"))
    found = json.loads((ROOT / "benchmarks" / "results" / "corruptions.json").read_text("utf-8"))
    page = (ROOT / "docs" / "CORRUPTIONS.md").read_text("utf-8")
    assert make["with_numbers"](page, found) == page, "run `make docs`"
    assert set(re.findall(r"^\| `(\w+)` \| (?:noise|blur|weather|digital) ", page, re.M)) == set(CORRUPTIONS)
