"""An artifact as files: what a folder or repository of a signature holds, and how it is written.

Needs no torch, so `rws info`, cards and pushes of a folder stay fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rws_hub.card import render_card
from rws_hub.card_merge import merge_card
from rws_hub.config import parse_config
from rws_hub.errors import ArtifactError, CorruptArtifactError, NotASignatureError
from rws_hub.results import Results, parse_results
from rws_hub.spec import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    PAYLOAD_FILE,
    RESULTS_FILE,
    SignatureConfig,
)

FIGURES = "figures"


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything an artifact holds but its card, which depends on where it goes.

    Attributes:
        config: the parsed config.
        payload: bytes of `rws.safetensors`.
        results: what was measured, if anything was.
        figures: PNG bytes by file name (without the `figures/` folder).
    """

    config: SignatureConfig
    payload: bytes
    results: Results | None
    figures: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if self.results is not None:
            self.results.require_for(self.config)

    def files(self, repo_id: str | None, *existing_cards: str) -> dict[str, bytes]:
        """Every file by its path in the artifact; the card keeps what people wrote in `existing_cards`."""
        figures = tuple(f"{FIGURES}/{n}" for n in sorted(self.figures))
        card = render_card(self.config, self.results, repo_id, figures)
        for existing in existing_cards:
            card = merge_card(card, existing)
        files = {
            PAYLOAD_FILE: self.payload,
            CONFIG_FILE: self.config.to_text().encode(),
            CARD_FILE: card.encode(),
        }
        if self.results is not None:
            files[RESULTS_FILE] = self.results.to_text().encode()
        return files | {f"{FIGURES}/{n}": data for n, data in self.figures.items()}


def read_config(folder: Path) -> SignatureConfig:
    """Read and verify `config.json` of a folder.

    Raises:
        NotASignatureError: there is none, or it is something else's.
        FormatVersionError, CorruptArtifactError: it does not hold.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise NotASignatureError(f"{folder}: no {CONFIG_FILE} there, so this is not a robust weight signature")
    size = file.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise CorruptArtifactError(f"{file}: {size:,} bytes; at most {MAX_CONFIG_BYTES:,} are allowed")
    return parse_config(file.read_bytes(), str(file))


def read_payload_bytes(folder: Path, config: SignatureConfig) -> bytes:
    """The bytes of `rws.safetensors`, never more than the config promises, digest not yet checked.

    Raises:
        CorruptArtifactError: missing, or of another size.
    """
    file = folder / PAYLOAD_FILE
    if not file.is_file():
        raise CorruptArtifactError(f"{folder}: {PAYLOAD_FILE} is missing")
    size = file.stat().st_size
    if size != config.payload.bytes:
        raise CorruptArtifactError(
            f"{file}: {size:,} bytes, config.json says {config.payload.bytes:,}: the file is "
            f"{'truncated' if size < config.payload.bytes else 'too long'}. Fetch it again."
        )
    return file.read_bytes()


def verify_payload(folder: Path, config: SignatureConfig) -> bytes:
    """The bytes of `rws.safetensors` with the digest checked (values are checked when they are decoded)."""
    payload = read_payload_bytes(folder, config)
    found = hashlib.sha256(payload).hexdigest()
    if found != config.payload.sha256:
        raise CorruptArtifactError(
            f"{folder / PAYLOAD_FILE}: sha256 is {found[:12]}..., config.json says {config.payload.sha256[:12]}...: "
            "the file was damaged or replaced. Fetch the artifact again."
        )
    return payload


def read_results(folder: Path) -> Results | None:
    """`results.json` of a folder, or None if there is none."""
    file = folder / RESULTS_FILE
    return parse_results(file.read_bytes(), str(file)) if file.is_file() else None


def read_contents(folder: Path) -> Contents:
    """Everything in a folder, verified."""
    config = read_config(folder)
    figures = {f.name: f.read_bytes() for f in sorted((folder / FIGURES).glob("*.png"))}
    return Contents(config, verify_payload(folder, config), read_results(folder), figures)


def read_card(folder: Path) -> str | None:
    """`README.md` of a folder, or None if there is none."""
    file = folder / CARD_FILE
    return file.read_text("utf-8") if file.is_file() else None


def write_folder(
    folder: Path,
    config: SignatureConfig,
    payload: bytes,
    results: Results | None,
    figures: Mapping[str, bytes] | None = None,
) -> None:
    """Write an artifact: a new folder appears whole or not at all; files of an existing one are replaced one by one.

    In an existing folder the payload is replaced before the config that vouches for it, so a reader never
    takes a half-written artifact for a whole one.

    Raises:
        ArtifactError: the folder belongs to something else, or holds results of another signature.
    """
    cards: list[str] = []
    if folder.exists():
        results = _kept_results(folder, config, results)
        card = read_card(folder)
        cards = [] if card is None else [card]
    contents = Contents(config, payload, results, figures or {})
    write_files(folder, contents.files(None, *cards))


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, each one whole or not at all; a new folder whole or not at all."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(folder.parent, folder.name) as scratch:
            for path, data in files.items():
                _write(scratch / path, data)
            scratch.rename(folder)
        return
    for path, data in files.items():
        target = folder / path
        if target.is_file() and target.read_bytes() == data:
            continue
        with _scratch(folder, target.name) as scratch:
            _write(scratch / target.name, data)
            target.parent.mkdir(parents=True, exist_ok=True)
            (scratch / target.name).replace(target)


def _kept_results(folder: Path, config: SignatureConfig, results: Results | None) -> Results | None:
    """The results to write into an existing folder; refuses folders that are not ours to write into."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; a signature is saved as a folder")
    if (folder / CONFIG_FILE).is_file():
        try:
            read_config(folder)
        except NotASignatureError as error:
            raise ArtifactError(f"{folder}: holds the config.json of something else; choose another folder") from error
        except ArtifactError:
            pass  # a damaged signature of ours may be written anew
    found = read_results(folder)
    if results is not None or found is None:
        return results
    if found.payload_sha256 != config.payload.sha256:
        raise ArtifactError(
            f"{folder / RESULTS_FILE} was measured on another signature. Delete it, pass results=, or choose "
            "another folder."
        )
    return found


@contextlib.contextmanager
def _scratch(parent: Path, name: str) -> Iterator[Path]:
    """A folder beside the target (same file system, so that a rename is atomic), removed if it is still there."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    scratch.chmod(0o777 & ~_umask())
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
