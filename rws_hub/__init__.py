"""Share robustness as a patch on the Hugging Face Hub.

`import rws_hub` is light: torch is imported when the first public name is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rws_hub._version import __version__ as __version__

if TYPE_CHECKING:
    from rws_hub.backbones import load_patched as load_patched
    from rws_hub.batchnorm import reestimate_batchnorm as reestimate_batchnorm
    from rws_hub.comparison import compare as compare
    from rws_hub.comparison import identify as identify
    from rws_hub.errors import ArtifactError as ArtifactError
    from rws_hub.errors import CardError as CardError
    from rws_hub.errors import CheckpointError as CheckpointError
    from rws_hub.errors import ComparisonError as ComparisonError
    from rws_hub.errors import CorruptArtifactError as CorruptArtifactError
    from rws_hub.errors import CorruptionError as CorruptionError
    from rws_hub.errors import DataError as DataError
    from rws_hub.errors import EvaluationError as EvaluationError
    from rws_hub.errors import ExtractionError as ExtractionError
    from rws_hub.errors import FormatVersionError as FormatVersionError
    from rws_hub.errors import IncompatibleModelError as IncompatibleModelError
    from rws_hub.errors import InferenceError as InferenceError
    from rws_hub.errors import NameTableError as NameTableError
    from rws_hub.errors import NotASignatureError as NotASignatureError
    from rws_hub.errors import PatchStateError as PatchStateError
    from rws_hub.errors import RWSError as RWSError
    from rws_hub.errors import SigningError as SigningError
    from rws_hub.errors import TrainingError as TrainingError
    from rws_hub.errors import VerificationError as VerificationError
    from rws_hub.gates import steady as steady
    from rws_hub.handle import Patch as Patch
    from rws_hub.infer import infer_table as infer_table
    from rws_hub.judging import plan_patch as plan_patch
    from rws_hub.patching import active_patches as active_patches
    from rws_hub.patching import patch as patch
    from rws_hub.plan import PatchPlan as PatchPlan
    from rws_hub.results import Accuracy as Accuracy
    from rws_hub.results import Evaluation as Evaluation
    from rws_hub.results import Results as Results
    from rws_hub.signature import RobustWeightSignature as RobustWeightSignature
    from rws_hub.spec import SignatureConfig as SignatureConfig

# Public name -> the module that defines it.
_HOME = {
    "Accuracy": "results",
    "ArtifactError": "errors",
    "CardError": "errors",
    "CheckpointError": "errors",
    "ComparisonError": "errors",
    "CorruptArtifactError": "errors",
    "CorruptionError": "errors",
    "DataError": "errors",
    "Evaluation": "results",
    "EvaluationError": "errors",
    "ExtractionError": "errors",
    "FormatVersionError": "errors",
    "IncompatibleModelError": "errors",
    "InferenceError": "errors",
    "NameTableError": "errors",
    "NotASignatureError": "errors",
    "Patch": "handle",
    "PatchPlan": "plan",
    "PatchStateError": "errors",
    "RWSError": "errors",
    "Results": "results",
    "RobustWeightSignature": "signature",
    "SignatureConfig": "spec",
    "SigningError": "errors",
    "TrainingError": "errors",
    "VerificationError": "errors",
    "active_patches": "patching",
    "compare": "comparison",
    "identify": "comparison",
    "infer_table": "infer",
    "load_patched": "backbones",
    "patch": "patching",
    "plan_patch": "judging",
    "reestimate_batchnorm": "batchnorm",
    "steady": "gates",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'rws_hub' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rws_hub.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
