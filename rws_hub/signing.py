"""Signing an artifact, and finding out whose signature it is, with the OpenSSF library `model-signing`.

The library is imported only when somebody signs or verifies. Of verifying it does what is cryptography: is this
statement signed with that key? Its own comparison of a folder with a statement is left alone. It would leave out what
the statement asks to leave out, refuse the Hub's cache (whose files are links), and read files from the disk that we
then read once more; we compare the bytes that are decoded, and hold them to the statement.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from rws_hub.artifact import belongs
from rws_hub.bundle import UNSIGNED, names_key, read_bundle, statement
from rws_hub.disk import naming
from rws_hub.errors import CorruptArtifactError, SigningError, VerificationError
from rws_hub.manifest import Manifest
from rws_hub.spec import CONFIG_FILE, PAYLOAD_FILE, SIGNATURE_FILE, Data

# What the library says, in fewer words.
_WORDS = {"Key mismatch": "it names another key"}
_CURVES = "an elliptic curve key (P-256, P-384 or P-521) in a PEM file"


def sign(files: Mapping[str, Data], private_key: str | Path, name: str) -> bytes:
    """The signature file for an artifact. No network.

    Args:
        files: every file by its path in the artifact; the card and a signature are left out.
        private_key: a PEM file.
        name: what the statement calls the artifact; informative, one path component.

    Raises:
        SigningError: `model-signing` is missing, the key cannot sign, or others than its owner can read it.
        OSError: with the name of the file that could not be read, or of the copy that could not be written.
    """
    try:
        from model_signing import hashing, signing
    except ImportError as error:
        raise _missing() from error
    _require_file(private_key)
    try:
        with naming(private_key):
            signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except OSError:
        raise
    except Exception as error:  # whatever the library makes of a file that is no such key
        raise SigningError(_why_not(error, private_key, "private")) from error
    _require_own(private_key)
    how = hashing.Config().set_ignored_paths(paths=sorted(UNSIGNED), ignore_git_paths=True)
    with _room() as scratch:
        folder = scratch / name
        for path in sorted(files.keys() - UNSIGNED):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with naming(folder / path):
                (folder / path).write_bytes(files[path])
        made = scratch / SIGNATURE_FILE
        with naming(made):
            signer.set_hashing_config(how).sign(folder, made)
            return made.read_bytes()


@contextlib.contextmanager
def _room() -> Iterator[Path]:
    """A folder for what the library signs: it takes files, and the artifact may not have been written yet."""
    try:
        with naming("a temporary folder"), tempfile.TemporaryDirectory(prefix="rws-sign-") as scratch:
            yield Path(scratch)
    except OSError as error:
        error.add_note(
            "nothing was signed or changed. The files are copied into a temporary folder to be signed: make room "
            "there, or set TMPDIR to another folder, and run it again"
        )
        raise


def verified(file: Path, public_key: str | Path, where: str) -> Manifest:
    """What the holder of a key vouches for with a signature file. No network.

    Args:
        file: the signature file.
        public_key: a PEM file.
        where: what a message calls the artifact.

    Raises:
        VerificationError: there is no signature, it is not made with this key, or it does not cover what is loaded.
        SigningError: `model-signing` is missing, or the file holds no such key.
        FileNotFoundError: there is no such key file.
    """
    try:
        from model_signing._signing import sign_ec_key, sign_sigstore_pb
    except ImportError as error:
        raise _missing() from error
    _require_file(public_key)
    try:
        with naming(public_key):
            verifier = sign_ec_key.Verifier(Path(public_key))
    except OSError:
        raise
    except Exception as error:
        raise SigningError(_why_not(error, public_key, "public")) from error
    if not file.is_file():
        raise unsigned(where, public_key)
    try:
        bundle = read_bundle(file)
        statement(bundle, SIGNATURE_FILE)  # small, strict JSON, of our kind
        if not names_key(bundle):
            raise CorruptArtifactError(f"{SIGNATURE_FILE} is not made with a bare key, or by model-signing before 1.1")
        found = verifier.verify(sign_sigstore_pb.Signature.read(file))
    except CorruptArtifactError as error:
        raise VerificationError(f"{where} was refused: {error}") from error
    except Exception as error:  # the file may be anybody's: whatever goes wrong, it is not verified
        reason = _WORDS.get(str(error).partition(":")[0], str(error)) or "the signature does not hold"
        raise VerificationError(
            f"{where}: {SIGNATURE_FILE} was not made with the private key of {public_key} ({reason}). Nothing was "
            "loaded. Ask the publisher which key is theirs, on another way than this repository."
        ) from error
    manifest = Manifest(
        f"the signature verified with {public_key}",
        {r.identifier: r.digest.digest_hex for r in found.resource_descriptors() if belongs(r.identifier)},
        UNSIGNED,
    )
    for path in (CONFIG_FILE, PAYLOAD_FILE):
        if path not in manifest.sha256:
            raise VerificationError(f"{where}: {SIGNATURE_FILE} does not cover {path}. Nothing was loaded.")
    return manifest


def unsigned(where: str, public_key: str | Path) -> VerificationError:
    """The error for an artifact without a signature."""
    return VerificationError(f"{where} is not signed: no {SIGNATURE_FILE} there to verify with {public_key}")


def _missing() -> SigningError:
    return SigningError("signing and verifying need the library model-signing: pip install 'rws-hub[sign]'")


def _require_file(key: str | Path) -> None:
    if Path(key).is_dir():
        raise SigningError(f"{key}: is a folder; name the file in it that holds {_CURVES}")


def _require_own(key: str | Path) -> None:
    """Refuse a private key that lies open to others, as ssh does; what comes through a pipe lies nowhere."""
    mode = Path(key).stat().st_mode
    if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SigningError(
            f"{key}: is open to others than its owner (mode {stat.S_IMODE(mode):04o}, expected 0600), and who reads it "
            f"can sign in your name. Run chmod 600 {key}. If somebody may have read it, make a new one: docs/SIGNING.md"
        )


def _why_not(error: Exception, key: str | Path, kind: str) -> str:
    if isinstance(error, TypeError) and "encrypted" in str(error):
        return f"{key} is encrypted. Decrypt it on the way: --sign <(openssl pkey -in {key})"
    if isinstance(error, AttributeError):  # the library looks for the curve of whatever key it is
        found = "an RSA key" if type(error.obj).__name__.startswith("RSA") else "a key of another kind"
        return f"{key}: it is {found}; expected {_CURVES} (docs/SIGNING.md)"
    return f"{key}: not the {kind} half of {_CURVES} ({str(error).partition('. ')[0]})"
