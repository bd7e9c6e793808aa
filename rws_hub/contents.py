"""Everything an artifact holds, put together: config, payload, results, figures and the card made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rws_hub import disk, pending, signing
from rws_hub.artifact import (
    consistently,
    read_card,
    read_config,
    read_results,
    require_replaceable,
    verify_payload,
    write_files,
)
from rws_hub.beside import FIGURES, read_figures, read_file, read_own
from rws_hub.bundle import why_stale
from rws_hub.card import render_card
from rws_hub.card_merge import merge_card
from rws_hub.errors import ArtifactError, NotASignatureError
from rws_hub.results import Results
from rws_hub.spec import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    PAYLOAD_FILE,
    RESULTS_FILE,
    SIGNATURE_FILE,
    Data,
    SignatureConfig,
)

AGAIN = f"Sign again (sign=KEY; `rws sign`, `rws push --sign`), or delete {SIGNATURE_FILE}."

# Seconds to wait for another process that writes the same folder.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything an artifact holds but its card, which depends on where it goes.

    Attributes:
        config: the parsed config.
        payload: bytes of `rws.safetensors`.
        results: what was measured, if anything was.
        figures: PNG bytes by file name (without the `figures/` folder).
        signature: the bytes of `model.sig`, of exactly these files but the card; None: not signed.
    """

    config: SignatureConfig
    payload: Data
    results: Results | None
    figures: Mapping[str, bytes]
    signature: bytes | None = None

    def __post_init__(self) -> None:
        if self.results is not None:
            self.results.require_for(self.config)

    def files(self, repo_id: str | None, *existing_cards: str) -> dict[str, Data]:
        """Every file by its path in the artifact; the card keeps what people wrote in `existing_cards`."""
        figures = tuple(f"{FIGURES}/{n}" for n in sorted(self.figures))
        card = render_card(self.config, self.results, repo_id, figures)
        for existing in existing_cards:
            card = merge_card(card, existing)
        files = self._generated() | {CARD_FILE: card.encode()}
        return files if self.signature is None else files | {SIGNATURE_FILE: self.signature}

    def signed(self, private_key: str | Path) -> Contents:
        """The same with a signature of everything but the card.

        Raises:
            SigningError: the key cannot sign, or the library for it is missing.
            TypeError: True or False instead of a key.
        """
        if isinstance(private_key, bool):
            raise TypeError(
                f"sign={private_key!r}: expected the file of a private key. To save without a signature, delete "
                f"{SIGNATURE_FILE}; sign=False is for push_to_hub"
            )
        name = self.config.corruption.name
        return replace(self, signature=signing.sign(self._generated(), private_key, name))

    def _generated(self) -> dict[str, Data]:
        """Every file that no person edits, the payload first."""
        files: dict[str, Data] = {PAYLOAD_FILE: self.payload, CONFIG_FILE: self.config.to_text().encode()}
        if self.results is not None:
            files[RESULTS_FILE] = self.results.to_text().encode()
        return files | {f"{FIGURES}/{n}": data for n, data in self.figures.items()}


def read_contents(folder: Path) -> Contents:
    """Everything in a folder, verified, and of one state of it."""

    def read() -> Contents:
        config = read_config(folder)
        payload, results, figures = verify_payload(folder, config), read_results(folder), read_figures(folder)
        return Contents(config, payload, results, figures, read_own(folder, SIGNATURE_FILE))

    return consistently(folder, read)


def read_all(folder: Path) -> tuple[Contents, str | None]:
    """Everything in a folder, verified, and the card if there is one."""
    return consistently(folder, lambda: (read_contents(folder), read_card(folder)))


def write_folder(
    folder: str | Path,
    config: SignatureConfig,
    payload: Data,
    results: Results | None,
    figures: Mapping[str, bytes] | None = None,
    *,
    sign: str | Path | None = None,
) -> None:
    """Write an artifact: a new folder appears whole or not at all; in one that is there, all files change at once.

    Whatever happens on the way, a reader finds the old artifact or the new one. Results and figures that are there
    already are kept, and so is a `model.sig` of these very files. `sign` is a private key to sign with.

    Raises:
        ArtifactError: no folder is named, it belongs to something else, holds results of another signature or a
            `model.sig` of other files and no key is given, or another process is writing it.
        SigningError: the key cannot sign, or the library for it is missing.
        OSError: with the name of what could not be written; the old artifact is still there.
        CardError: its card cannot be read, or states another licence. Nothing was written.
    """
    if folder == "":
        raise ArtifactError("the folder to write is an empty string; write '.' for the current folder")
    folder = Path(folder)
    if not folder.exists():
        made = Contents(config, payload, results, figures or {})
        try:
            return write_files(folder, (made if sign is None else made.signed(sign)).files(None))
        except FileExistsError:  # made by another process meanwhile: it may hold what has to be kept
            if not folder.is_dir():
                raise
    _require_ours(folder)
    with disk.locked(folder, _PATIENCE) as alone:
        if alone is False:
            raise ArtifactError(
                f"{folder}: another process has been writing there for {_PATIENCE:.0f} s; try again later"
            )
        pending.settle(folder)
        results = _kept_results(folder, config, results)
        figures = _kept_figures(folder, config, figures or {})
        card = read_card(folder)
        made = Contents(config, payload, results, figures)
        files = (made if sign is None else made.signed(sign)).files(None, *([] if card is None else [card]))
        _require_covered(folder, files)
        changed = {n for n, data in files.items() if not _is(folder / n, data)}
        if len(changed) > 1:
            pending.replace(folder, {n: files[n] for n in (*sorted(changed - {CONFIG_FILE}), CONFIG_FILE)})
        else:
            write_files(folder, {n: files[n] for n in changed})


def _require_covered(folder: Path, files: Mapping[str, Data]) -> None:
    """Refuse to leave a signature file beside files that it does not cover."""
    kept = None if SIGNATURE_FILE in files else read_own(folder, SIGNATURE_FILE)
    if kept is not None and (reason := why_stale(kept, SIGNATURE_FILE, files)):
        raise ArtifactError(f"{folder / SIGNATURE_FILE} is not of the files to be written ({reason}). {AGAIN}")


def _is(file: Path, data: Data) -> bool:
    with disk.naming(file):
        return file.is_file() and file.read_bytes() == data


def _require_ours(folder: Path) -> None:
    """Refuse a folder that is not ours to write into."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; a signature is saved as a folder")
    file = folder / CONFIG_FILE
    if (config := read_file(file, MAX_CONFIG_BYTES)) is not None:
        try:
            require_replaceable(config, str(file))
        except NotASignatureError as error:
            raise ArtifactError(f"{folder}: holds the config.json of something else; choose another folder") from error


def _kept_figures(folder: Path, config: SignatureConfig, figures: Mapping[str, bytes]) -> dict[str, bytes]:
    """The given figures and those of an existing folder."""
    found = read_figures(folder)
    stale = sorted(found.keys() - figures.keys())
    if stale and not _holds(folder, config.payload.sha256):
        raise ArtifactError(
            f"{folder / FIGURES / stale[0]} was made for another signature. Delete it, or choose another folder."
        )
    return found | dict(figures)


def _holds(folder: Path, sha256: str) -> bool:
    """Whether the signature in a folder is the one with this payload."""
    try:
        return read_config(folder).payload.sha256 == sha256
    except ArtifactError:
        return False


def _kept_results(folder: Path, config: SignatureConfig, results: Results | None) -> Results | None:
    """The given results, or else those of an existing folder."""
    if results is not None:
        return results
    found = read_results(folder)
    if found is not None and found.payload_sha256 != config.payload.sha256:
        raise ArtifactError(
            f"{folder / RESULTS_FILE} was measured on another signature. Delete it, pass results=, or choose "
            "another folder."
        )
    return found
