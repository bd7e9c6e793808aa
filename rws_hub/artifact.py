"""The files of an artifact: verified reading, and writing that leaves the old file or the new one, never half.

Needs no torch and no Hub client, so that `rws info` stays fast.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from rws_hub.beside import FIGURES, read_file, read_own
from rws_hub.config import parse_config
from rws_hub.disk import naming, place, scratch_folder, sweep, write
from rws_hub.errors import ArtifactError, CardError, CorruptArtifactError, NotASignatureError
from rws_hub.manifest import Manifest
from rws_hub.pending import current, names, stamp
from rws_hub.results import Results, parse_results
from rws_hub.spec import (
    CARD_FILE,
    CONFIG_FILE,
    FORMAT,
    MAX_CONFIG_BYTES,
    PAYLOAD_FILE,
    RESULTS_FILE,
    SIGNATURE_FILE,
    Data,
    SignatureConfig,
)

_FIGURE = re.compile(FIGURES + r"/[\w-]+\.png", re.ASCII)


def belongs(path: str) -> bool:
    """Whether a file belongs to an artifact; whatever else a repository holds stays there."""
    ours = (CONFIG_FILE, PAYLOAD_FILE, CARD_FILE, RESULTS_FILE, SIGNATURE_FILE)
    return path in ours or _FIGURE.fullmatch(path) is not None


T = TypeVar("T")


def consistently(folder: Path, read: Callable[[], T]) -> T:
    """What `read` finds in a folder, all of one state: it is called again if another process replaces files."""
    while True:
        before = stamp(folder)
        try:
            found = read()
        except (ArtifactError, FileNotFoundError):
            if stamp(folder) == before:
                raise
        else:
            if stamp(folder) == before:
                return found


def local_folder(source: str | Path, revision: str | None, subfolder: str | None) -> Path | None:
    """The local folder that `source` means, or None if there is none of that name; subfolder="" means none.

    Raises:
        NotASignatureError: a local file.
        ArtifactError: a subfolder that points elsewhere, or a revision of a local folder.
    """
    require_plain(subfolder)
    folder = Path(source)
    try:
        if folder.is_file():
            raise NotASignatureError(f"{folder} is a file; name the folder that holds it")
        if str(source) == "" or not folder.is_dir():
            return None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None
    if revision is not None:
        raise ArtifactError(f"{folder} is a local folder; revision={revision!r} has no meaning there")
    return folder / subfolder if subfolder else folder


def require_plain(subfolder: str | None) -> None:
    """Refuse a subfolder that points elsewhere."""
    path = PurePosixPath(subfolder or "none")
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in str(path):
        raise ArtifactError(f"subfolder={subfolder!r} must be a plain relative path")


def read_config(folder: Path, manifests: Sequence[Manifest] = (), where: str | None = None) -> SignatureConfig:
    """Read and verify `config.json` of a folder.

    Args:
        folder: where it lies.
        manifests: what the bytes of config and payload have to be; compared before anything is decoded.
        where: what a message calls the folder.

    Raises:
        NotASignatureError: there is none, or it is something else's.
        VerificationError: config or payload are not what a manifest says.
        FormatVersionError, CorruptArtifactError: it does not hold.
    """
    where = where or str(folder)
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise NotASignatureError(f"{where}: no {CONFIG_FILE} there, so this is not a robust weight signature")
    data = read_file(file, MAX_CONFIG_BYTES) or b""
    for manifest in manifests:
        manifest.require(where, CONFIG_FILE, hashlib.sha256(data).hexdigest())
    config = parse_config(data, f"{where}/{CONFIG_FILE}")
    for manifest in manifests:  # whoever reads the payload holds it to the config
        manifest.require(where, PAYLOAD_FILE, config.payload.sha256)
    return config


def require_replaceable(config: bytes, where: str) -> None:
    """Refuse to write over a config that is not of a signature; a damaged one of ours may be written anew.

    Raises:
        NotASignatureError: it is of something else.
        FormatVersionError: it is of a newer format.
    """
    try:
        parse_config(config, where)
    except CorruptArtifactError as error:
        try:
            data = json.loads(config)  # leniently: other libraries write what we would refuse
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise NotASignatureError(f"{where} is not that of a robust weight signature") from error


def read_payload_bytes(folder: Path, config: SignatureConfig) -> bytearray:
    """The bytes of `rws.safetensors`, never more than the config promises, digest not yet checked.

    Raises:
        CorruptArtifactError: missing, or of another size.
    """
    file = current(folder, PAYLOAD_FILE)
    if not file.is_file():
        raise CorruptArtifactError(f"{folder}: {PAYLOAD_FILE} is missing")
    size = file.stat().st_size
    if size != config.payload.bytes:
        raise CorruptArtifactError(
            f"{file}: {size:,} bytes, config.json says {config.payload.bytes:,}: the file is "
            f"{'truncated' if size < config.payload.bytes else 'too long'}. Fetch it again."
        )
    try:
        data = bytearray(size)
    except MemoryError as error:
        raise CorruptArtifactError(f"{file}: {size:,} bytes, more than this machine has memory for") from error
    with naming(file), file.open("rb") as handle:
        got = handle.readinto(data)
    if got != size:
        raise CorruptArtifactError(f"{file}: {got:,} bytes could be read, {size:,} were there a moment ago")
    return data


def verify_payload(folder: Path, config: SignatureConfig) -> bytearray:
    """The bytes of `rws.safetensors` with the digest checked (values are checked when they are decoded)."""
    payload = read_payload_bytes(folder, config)
    found = hashlib.sha256(payload).hexdigest()
    if found != config.payload.sha256:
        file, said = current(folder, PAYLOAD_FILE), config.payload.sha256
        raise CorruptArtifactError(
            f"{file}: sha256 is {found[:12]}..., config.json says {said[:12]}...: "
            "the file was damaged or replaced. Fetch the artifact again."
        )
    return payload


def read_verified(folder: Path, manifests: Sequence[Manifest] = ()) -> SignatureConfig:
    """The config of a folder, whose payload is the one that it vouches for."""

    def read() -> SignatureConfig:
        config = read_config(folder, manifests)
        verify_payload(folder, config)
        return config

    return consistently(folder, read)


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file of the artifact in a folder, as it is."""

    def read() -> dict[str, bytes]:
        paths = [CONFIG_FILE, CARD_FILE, RESULTS_FILE, SIGNATURE_FILE, *sorted(names(folder, f"{FIGURES}/*.png"))]
        found = {n: data for n in paths if (data := read_own(folder, n)) is not None}
        payload = current(folder, PAYLOAD_FILE)
        return found | ({PAYLOAD_FILE: payload.read_bytes()} if payload.is_file() else {})

    return consistently(folder, read)


def read_results(folder: Path) -> Results | None:
    """`results.json` of a folder, or None if there is none."""
    data = read_own(folder, RESULTS_FILE)
    return None if data is None else parse_results(data, str(folder / RESULTS_FILE))


def read_card(folder: Path) -> str | None:
    """`README.md` of a folder, or None if there is none.

    Raises:
        CardError: it is not UTF-8.
        CorruptArtifactError: as `read_own`.
    """
    data = read_own(folder, CARD_FILE)
    return None if data is None else decode_card(data, str(folder / CARD_FILE))


def decode_card(data: bytes, where: str) -> str:
    """The text of a card, with the line ends it has.

    Raises:
        CardError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CardError(f"{where} is not UTF-8 text ({error}); what is in it could not be kept") from error


def write_files(folder: Path, files: Mapping[str, Data]) -> None:
    """Write files into a folder, each one whole or not at all; a new folder whole or not at all.

    Raises:
        OSError: with the name of what could not be written, and a note that says what to do.
    """
    if not folder.exists():
        with scratch_folder(folder.parent, folder.name) as scratch:
            for path, data in files.items():
                write(scratch / path, data)
            place(scratch, folder)
        return
    sweep(folder)  # even if nothing is to be written
    for path, data in files.items():
        target = folder / path
        if target.is_file() and target.read_bytes() == data:
            continue
        with scratch_folder(folder, target.name) as scratch:
            write(scratch / target.name, data)
            target.parent.mkdir(parents=True, exist_ok=True)
            (scratch / target.name).replace(target)


def write_new(file: Path, data: Data) -> None:
    """Write a file that must not be there, whole or not at all.

    Raises:
        FileExistsError: it is there by now; it is left as it is.
        OSError: with the name of what could not be written, and a note that says what to do.
    """
    with scratch_folder(file.parent, file.name) as scratch:
        write(scratch / file.name, data)
        place(scratch / file.name, file)


def why_not_new(path: Path) -> str | None:
    """Why nothing new can be made at a path, found before the work is done; None if nothing speaks against it."""
    sweep(path.parent)  # of a process that was killed when it had done all but that
    if path.exists() or path.is_symlink():
        return "exists already"
    parent = next(p for p in path.absolute().parents if p.exists())
    return None if parent.is_dir() else f"cannot be made, since {parent} is a file"
