"""Everything this package raises on purpose.

    RWSError
    ├─ ArtifactError (ValueError)            the files of a signature are wrong
    │  ├─ NotASignatureError (FileNotFoundError)  a folder or repo that holds no signature
    │  ├─ FormatVersionError                 written by a newer rws-hub
    │  ├─ CorruptArtifactError               digest, key set, dtype, shape or value does not hold
    │  └─ VerificationError                  not signed, not with this key, or not what a lock file pins
    ├─ SigningError (ValueError)             a key cannot sign or verify
    ├─ CheckpointError (ValueError)          a model file cannot be read as weights
    ├─ ExtractionError (ValueError)          the checkpoints cannot give a signature
    ├─ IncompatibleModelError (ValueError)   the signature does not fit the model; carries the plan
    ├─ PatchStateError (RuntimeError)        the model is not in the state the patch left it in
    ├─ CardError (ValueError)                a card cannot be written from what is known
    ├─ ComparisonError (ValueError)          the signatures cannot be compared
    ├─ DataError (ValueError)                images or labels cannot be read, or are not the model's
    ├─ EvaluationError (ValueError)          a measurement cannot be made as asked
    ├─ TrainingError (ValueError)            a training cannot be begun or gone on with
    └─ CorruptionError (ValueError)          images, or the corruption asked for, are not what can be worked on

Each also inherits the built-in that a caller would catch anyway. Errors of the Hub client
(`RepositoryNotFoundError`, `GatedRepoError`, ...) are never wrapped: they pass through untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rws_hub.plan import PatchPlan


class RWSError(Exception):
    """Base of every error that rws-hub raises on purpose."""


class ArtifactError(RWSError, ValueError):
    """The files of a signature are missing, unreadable or wrong."""


class NotASignatureError(ArtifactError, FileNotFoundError):
    """The folder or repository exists but holds no signature."""

    def __str__(self) -> str:
        # OSError formats its arguments as "[Errno ...]"; ours is one plain sentence.
        return str(self.args[0]) if self.args else ""


class FormatVersionError(ArtifactError):
    """The artifact was written in a format newer than this version reads."""


class CorruptArtifactError(ArtifactError):
    """A digest, key set, dtype, shape or value of the artifact does not hold."""


class VerificationError(ArtifactError):
    """The artifact is not signed, not with the given key, or not what a lock file pins. Nothing of it was used."""


class SigningError(RWSError, ValueError):
    """A key cannot be used to sign or to verify, or the library for it is missing."""


class CheckpointError(RWSError, ValueError):
    """A model file cannot be read as weights."""


class NameTableError(RWSError, ValueError):
    """A name table does not follow the notation, or does not explain the names it is used on."""


class ExtractionError(RWSError, ValueError):
    """The given checkpoints cannot give a signature."""


class IncompatibleModelError(RWSError, ValueError):
    """The signature does not fit the model. Nothing was changed.

    Attributes:
        plan: the `PatchPlan` that was refused; `plan.explain()` is the whole table.
    """

    def __init__(self, message: str, plan: PatchPlan) -> None:
        super().__init__(message)
        self.plan = plan


class PatchStateError(RWSError, RuntimeError):
    """A patch is asked for something that the model's present state does not allow."""


class CardError(RWSError, ValueError):
    """A card cannot be written, or an existing one cannot be kept, from what is known."""


class ComparisonError(RWSError, ValueError):
    """The signatures cannot be compared with each other."""


class InferenceError(RWSError, ValueError):
    """No name table for two models could be proven."""


class DataError(RWSError, ValueError):
    """Images and labels cannot be read, or are not those that a model speaks of."""


class TrainingError(RWSError, ValueError):
    """A training cannot be begun or gone on with."""


class EvaluationError(RWSError, ValueError):
    """A measurement cannot be made as asked."""


class CorruptionError(RWSError, ValueError):
    """Images, or the corruption that is asked for, are not what the corruptions work on."""
