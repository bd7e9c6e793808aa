"""All corruptions of one image at a glance: a labelled grid, a row per corruption and a column per severity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rws_hub.corruptions import KINDS, SMALLEST, corrupt
from rws_hub.errors import CorruptionError, RWSError

try:
    from PIL import Image, ImageDraw, ImageFont, ImageOps
except ImportError as error:
    raise RWSError("a sheet of corruptions needs Pillow: pip install 'rws-hub[corruptions]'") from error

LARGEST = 1024
FORMATS = (".png", ".jpg", ".jpeg")

_SEVERITIES = range(1, 6)
_LEAST_CELL = 96  # smaller images are enlarged, so that their pixels can be seen
_PAPER, _INK, _FAINT = (255, 255, 255), (33, 37, 41), (108, 117, 125)


def contact_sheet(image: NDArray[np.uint8], *, seed: int = 0) -> Image.Image:
    """Every corruption of one image, grouped by kind, beside the clean one.

    Args:
        image: uint8, [H, W, 3].
        seed: of the corruptions.

    Raises:
        CorruptionError: the image is not of that kind.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        raise CorruptionError("a sheet shows one image: expected a uint8 array [H, W, 3]")
    factor = -(-_LEAST_CELL // min(image.shape[:2]))
    height, width = (factor * side for side in image.shape[:2])
    gap, text = max(4, width // 32), max(13, width // 11)
    plain, small = (ImageFont.load_default(size) for size in (text, 0.85 * text))
    names = [name for kind in KINDS.values() for name in kind]
    # Upright words need as much room as one line, lying ones as much as the longest of them.
    margin = 2 * text
    label = margin + gap + int(max(plain.getlength(_spoken(name)) for name in names)) + 2 * gap
    top = 2 * text + gap
    across = label + (1 + len(_SEVERITIES)) * (width + gap)
    down = top + len(names) * (height + gap) + (len(KINDS) - 1) * 3 * gap + gap
    sheet = Image.new("RGB", (across, down), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(("clean", *(f"severity {s}" for s in _SEVERITIES))):
        pen.text((label + column * (width + gap) + width / 2, top / 2), title, _INK, small, anchor="mm")
    y = top
    for kind, members in KINDS.items():
        block = len(members) * (height + gap) - gap
        _upright(sheet, kind, plain, (gap, y, margin, block))
        for name in members:
            pen.text((margin + 2 * gap, y + height / 2), _spoken(name), _INK, plain, anchor="lm")
            rows = [image, *(corrupt(image[None], name, s, seed=seed)[0] for s in _SEVERITIES)]
            for column, pixels in enumerate(rows):
                cell = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(cell, (label + column * (width + gap), y))
            y += height + gap
        y += 3 * gap
    return sheet


def write_sheet(source: Path, out: Path, *, size: int, seed: int) -> int:
    """Read an image, cut to its middle square of `size` pixels, and write its sheet; returns the bytes written.

    Raises:
        CorruptionError: the image cannot be read, or the sheet not be written as asked.
    """
    if not SMALLEST <= size <= LARGEST:
        raise CorruptionError(f"--size must be from {SMALLEST} to {LARGEST} pixels, found {size}")
    if seed < 0:
        raise CorruptionError(f"--seed must not be negative, found {seed}")
    if out.suffix.lower() not in FORMATS:
        raise CorruptionError(f"{out}: a sheet is a picture; end its name in {', '.join(FORMATS)}")
    if out.exists() or out.is_symlink():
        raise CorruptionError(f"{out} exists already; choose another name (nothing is ever overwritten)")
    try:
        with Image.open(source) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptionError(f"{source} cannot be read as an image ({error})") from error
    square = np.array(ImageOps.fit(picture, (size, size), Image.Resampling.BOX))
    contact_sheet(square, seed=seed).save(out, quality=90)
    return out.stat().st_size


def _spoken(name: str) -> str:
    return "JPEG compression" if name == "jpeg_compression" else name.replace("_", " ")


def _upright(
    sheet: Image.Image, word: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, box: tuple[int, int, int, int]
) -> None:
    """A word from bottom to top in the middle of a box (left, top, width, height), with a line beside it."""
    left, top, width, height = box
    strip = Image.new("RGB", (height, width), _PAPER)
    pen = ImageDraw.Draw(strip)
    pen.text((height / 2, width / 2), word, _FAINT, font, anchor="mm")
    pen.line([(0, width - 1), (height, width - 1)], _FAINT, width=1)
    sheet.paste(strip.rotate(90, expand=True), (left, top))
