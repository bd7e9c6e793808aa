"""Elliptic curve keys for tests, made once a run."""

from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


@cache
def _pem(name: str, curve: type[ec.EllipticCurve]) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(curve())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def key_pair(folder: Path, name: str = "alice", curve: type[ec.EllipticCurve] = ec.SECP256R1) -> tuple[Path, Path]:
    """Files with the private and the public half of the one key of that name."""
    files = folder / f"{name}.pem", folder / f"{name}.pub"
    for file, data in zip(files, _pem(name, curve), strict=True):
        file.write_bytes(data)
    files[0].chmod(0o600)
    return files
