"""Files and the bytes that somebody says they have: what a signature covers, what a lock file pins."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from rws_hub.errors import VerificationError
from rws_hub.spec import Data


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which bytes the files of an artifact have to have.

    Attributes:
        source: who says so, in the words of a message.
        sha256: 64 lowercase hex digits by path in the artifact.
        optional: files that need not be listed; listed ones have to be equal all the same.
    """

    source: str
    sha256: Mapping[str, str]
    optional: frozenset[str] = frozenset()

    def mismatch(self, path: str, sha256: str) -> str | None:
        """What speaks against a file with this digest; None if nothing does."""
        if path not in self.sha256:
            return None if path in self.optional else f"{path} is not covered"
        if self.sha256[path] != sha256:
            return f"{path} differs (sha256 {sha256[:12]}..., expected {self.sha256[path][:12]}...)"
        return None

    def difference(self, files: Mapping[str, Data]) -> str | None:
        """What speaks against these files as the whole artifact; None if nothing does."""
        for path, data in files.items():
            if reason := self.mismatch(path, hashlib.sha256(data).hexdigest()):
                return reason
        missing = sorted(self.sha256.keys() - files.keys())
        return f"{missing[0]} is missing" if missing else None

    def require(self, where: str, path: str, sha256: str) -> None:
        """Refuse a file that has another digest.

        Raises:
            VerificationError: naming the file.
        """
        if reason := self.mismatch(path, sha256):
            raise refusal(where, self.source, reason)

    def require_all(self, where: str, files: Mapping[str, Data]) -> None:
        """Refuse a whole artifact with a file too many, too few, or another one.

        Raises:
            VerificationError: naming the first such file.
        """
        if reason := self.difference(files):
            raise refusal(where, self.source, reason)


def refusal(where: str, source: str, reason: str) -> VerificationError:
    """The error for files that are not those that somebody speaks of."""
    return VerificationError(f"{where} is not what {source} vouches for: {reason}. Nothing of it was used.")
