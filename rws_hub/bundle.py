"""What a signature file says that it covers: for keeping house, not for trust. Needs no library, and no key.

The file is a Sigstore bundle: a DSSE envelope around an in-toto statement that lists every file with its digest (the
OpenSSF Model Signing specification). Whether anybody signed that statement is for `signing` to find out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rws_hub import jsonio
from rws_hub.errors import CorruptArtifactError
from rws_hub.manifest import Manifest
from rws_hub.spec import CARD_FILE, MAX_SIGNATURE_BYTES, SIGNATURE_FILE, Data

# People edit the card, and no file can hold its own digest.
UNSIGNED = frozenset({CARD_FILE, SIGNATURE_FILE})


def read_bundle(file: Path) -> bytes:
    """The bytes of a signature file.

    Raises:
        CorruptArtifactError: there are more of them than a signature can need.
    """
    _require_small(file.stat().st_size, str(file))
    return file.read_bytes()


def statement(bundle: Data, where: str) -> Manifest:
    """What a signature file says that it covers. Nothing is verified here.

    Raises:
        CorruptArtifactError: it is not a signature file, or one of another kind than `model-signing` writes.
    """
    _require_small(len(bundle), where)
    data = jsonio.parse(bytes(bundle), where)
    try:
        payload = base64.b64decode(data["dsseEnvelope"]["payload"], validate=True)
        found = jsonio.parse(payload, f"{where}: dsseEnvelope.payload")
        digests = [(_text(r["name"]), _text(r["digest"])) for r in _files(found["predicate"])]
    except CorruptArtifactError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptArtifactError(
            f"{where}: not a signature of whole files with SHA-256, as model-signing writes them. Sign again."
        ) from error
    if len(digests) != len(dict(digests)):
        raise CorruptArtifactError(f"{where}: a file occurs twice")
    return Manifest(where, dict(digests), UNSIGNED)


def names_key(bundle: Data) -> bool:
    """Whether a signature file says which bare key it was made with; others are by a certificate, or an old library."""
    material = jsonio.parse(bytes(bundle), SIGNATURE_FILE).get("verificationMaterial")
    key = material.get("publicKey") if isinstance(material, dict) else None
    return isinstance(key, dict) and bool(key.get("hint"))


def why_stale(bundle: Data, where: str, files: Mapping[str, Data]) -> str | None:
    """Why a signature file is not of these files; None if it says that it is."""
    try:
        return statement(bundle, where).difference(files)
    except CorruptArtifactError as error:
        return str(error)


def _files(predicate: Any) -> list[Any]:
    how = predicate["serialization"]
    if how["method"] != "files" or any(r["algorithm"] != "sha256" for r in predicate["resources"]):
        raise ValueError("shards, or another digest")
    return list(predicate["resources"])


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():  # it will stand in messages
        raise TypeError("not a plain string")
    return value


def _require_small(size: int, where: str) -> None:
    if size > MAX_SIGNATURE_BYTES:
        raise CorruptArtifactError(f"{where}: {size:,} bytes; a signature has at most {MAX_SIGNATURE_BYTES:,}")
