"""What stands beside config and payload, and reading no more of any file than it can have to say.

Cards, results and figures are not sealed: whoever writes into the folder, or makes it, chooses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rws_hub import pending
from rws_hub.disk import naming
from rws_hub.errors import CorruptArtifactError
from rws_hub.results import MAX_RESULTS_BYTES, Results, parse_results
from rws_hub.spec import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    MAX_SIGNATURE_BYTES,
    PAYLOAD_FILE,
    RESULTS_FILE,
    SIGNATURE_FILE,
    SignatureConfig,
)

FIGURES = "figures"
MAX_CARD_BYTES, MAX_FIGURE_BYTES = 2**20, 2**24
_PNG = b"\x89PNG\r\n\x1a\n"


def read_file(file: Path, limit: int) -> bytes | None:
    """The bytes of a file, or None if there is nothing of that name.

    Raises:
        CorruptArtifactError: a folder, a pipe or a device, or more than `limit` bytes; nothing more is read.
        OSError: with the name of the file.
    """
    if not file.is_file():
        if file.exists() or file.is_symlink():
            raise CorruptArtifactError(f"{file}: is no file; expected at most {limit:,} bytes of one. Remove it")
        return None
    size = file.stat().st_size
    if size <= limit:
        with naming(file), file.open("rb") as handle:
            data = handle.read(size + 1)
        size = len(data)  # it can have grown meanwhile
    if size > limit:
        raise CorruptArtifactError(f"{file}: {size:,} bytes; at most {limit:,} are allowed")
    return data


def limit_of(path: str) -> int:
    """How many bytes a file of an artifact can have, but for its payload."""
    known = {CARD_FILE: MAX_CARD_BYTES, RESULTS_FILE: MAX_RESULTS_BYTES, CONFIG_FILE: MAX_CONFIG_BYTES}
    return (known | {SIGNATURE_FILE: MAX_SIGNATURE_BYTES}).get(path, MAX_FIGURE_BYTES)


def read_own(folder: Path, path: str) -> bytes | None:
    """A file beside the payload, or None. It lies in the folder itself: what a link leads to could be published.

    Raises:
        CorruptArtifactError: a link, or as `read_file`.
    """
    file = pending.current(folder, path)
    inside = file.parents[: len(file.relative_to(folder).parts) - 1]
    if link := next((p for p in (file, *inside) if p.is_symlink()), None):
        raise CorruptArtifactError(
            f"{link}: is a link; the files of a signature lie in its own folder, so that nothing else is published "
            "with them. Put a copy in its place, or remove it"
        )
    return read_file(file, limit_of(path))


def read_figures(folder: Path) -> dict[str, bytes]:
    """Every `figures/*.png` of a folder, by file name.

    Raises:
        CorruptArtifactError: one that is no picture, or as `read_own`.
    """
    paths = sorted(pending.names(folder, f"{FIGURES}/*.png"))
    found = {Path(path).name: read_own(folder, path) or b"" for path in paths}
    for name, data in found.items():
        require_picture(f"{folder / FIGURES / name}", data)
    return found


def read_beside(paths: Mapping[str, Path]) -> dict[str, bytes]:
    """Every file but the payload, by its path in the artifact, as it is.

    Raises:
        CorruptArtifactError: one with more bytes than it can have to say.
    """
    return {n: read_file(p, limit_of(n)) or b"" for n, p in paths.items() if n != PAYLOAD_FILE}


def require_beside(files: Mapping[str, bytes], config: SignatureConfig, where: str) -> None:
    """Refuse results that are not of this signature, and figures that are no pictures.

    Raises:
        CorruptArtifactError: one that does not hold.
    """
    for name, data in files.items():
        if name == RESULTS_FILE:
            parse_results(data, f"{where}/{name}").require_for(config)
        elif name.startswith(f"{FIGURES}/"):
            require_picture(f"{where}/{name}", data)


def require_picture(where: str, data: bytes) -> None:
    """Refuse a figure that is no PNG."""
    if not data.startswith(_PNG):
        raise CorruptArtifactError(f"{where}: is no PNG, whatever its name says. Remove it")


def read_results_file(file: Path) -> Results | None:
    """A results file anywhere, or None if there is none."""
    data = read_file(file, MAX_RESULTS_BYTES)
    return None if data is None else parse_results(data, str(file))
