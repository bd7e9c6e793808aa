"""What an artifact *is*: the frozen types behind `config.json` (docs/SPEC.md, normative).

Nothing here knows torch: `rws info`, cards and the Hub need only this. A config is valid when every
key is known, every value has its type, the digest over its deciding values holds, and the rules of
`config.check_config` hold. Text in `description` may be edited by a person; nothing else may.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import Literal

from rws_hub import compact, jsonio

CONFIG_FILE = "config.json"
PAYLOAD_FILE = "rws.safetensors"
CARD_FILE = "README.md"
RESULTS_FILE = "results.json"
SIGNATURE_FILE = "model.sig"
FORMAT = "rws"
# The newest one; a config states the oldest that can hold it.
FORMAT_VERSION = 5
MAX_CONFIG_BYTES = 16 * 2**20
MAX_SIGNATURE_BYTES = 2**20

# The relative error of coded weights where nothing else is asked for: of kernels, and of the matrices of linear layers,
# which take fewer bits for it and need it more (measured: docs/EVIDENCE.md, 4a).
DEFAULT_ERROR, DEFAULT_MATRIX_ERROR = 0.5, 0.3
# Bits that a symbol of an entropy-coded delta can have.
WIDTHS = (4, 8)
# Compressed symbols may become so many times larger, so that a small file takes no memory worth speaking of. So many
# bytes they may always become: deltas that are nearly all zero (a twin whose batch norms alone moved) compress further.
MAX_EXPANSION, ALWAYS_EXPANDED = 1024, 2**26
# Factors stand for more: so many elements for each of their bytes, or as many as may always be.
MAX_PRODUCT = 2**14

# The only keys that a digest leaves out: the digest itself and the text that a person may edit.
UNSEALED_KEYS = ("description", "digest")

# The bytes of a payload, however they are held.
Data = bytes | bytearray | memoryview

# What an entropy coder makes small.
CODED = ("symbols", "factors")

Op = Literal["add", "multiply"]
Encoding = Literal["codes", "symbols", "factors", "float16", "float32"]
Granularity = Literal["row", "tensor"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """The architecture a signature fits, in canonical names (docs/SPEC.md, section 3).

    Attributes:
        library: where the source model came from ("timm", "transformers", "torchvision", "torch").
        architecture: the library's name for it, or the class name.
        repo_id, revision: the published clean model, when there is one; revision is a 40-hex commit.
        family: name table that explains the layout, or "identity".
        dialect: naming scheme of the source (provenance; the layout is canonical).
        layout: canonical name -> shape of every floating parameter and buffer of the body.
        head: the same for the classification head, which a signature never touches.
        function: advisory facts that names and shapes cannot show (activation, norm eps).
        table: the name table itself, where it is not one of the package (since format 2).
    """

    library: str
    architecture: str
    repo_id: str | None
    revision: str | None
    family: str
    dialect: str
    layout: dict[str, tuple[int, ...]]
    head: dict[str, tuple[int, ...]]
    function: dict[str, str]
    table: str | None = None

    @property
    def has_batchnorm(self) -> bool:
        """Whether there are running statistics."""
        return any(name.endswith("running_var") for name in self.layout)


@dataclass(frozen=True, slots=True)
class Source:
    """One checkpoint that a signature was computed from.

    `sha256` covers the touched tensors (docs/SPEC.md, section 7), so it names the exact weights.
    """

    role: Literal["pretrained", "standard", "robust"]
    sha256: str


@dataclass(frozen=True, slots=True)
class Corruption:
    """What the robust model was made robust to. `severity` is 1 to 5, as in the common-corruption benchmarks."""

    name: str
    severity: int | None
    dataset: str | None


@dataclass(frozen=True, slots=True)
class UnitProfile:
    """How much one unit of the backbone changed: ||robust - standard|| / ||standard||, unitless."""

    unit: str
    parameters: int
    relative_difference: float
    touched: bool


@dataclass(frozen=True, slots=True)
class Extraction:
    """How the difference was taken and which part of it was kept.

    Attributes:
        recipe: "two-branch" (both twins grown from the pretrained weights) or "from-clean".
        method: "projection" (orthogonal to the clean fine-tuning direction) or "difference".
        layers: the rule as given: "shallow", "first K" or "names".
        share: for "shallow", the share of the summed relative differences that the prefix must hold.
        patterns: for "names", the patterns as given.
        batchnorm: "delta" (affine and means add, variances multiply) or "none".
        profile: every unit of the body in execution order.
    """

    recipe: Literal["two-branch", "from-clean"]
    method: Literal["projection", "difference"]
    layers: Literal["shallow", "first", "names"]
    share: float | None
    patterns: tuple[str, ...]
    batchnorm: Literal["delta", "none"]
    profile: tuple[UnitProfile, ...]


@dataclass(frozen=True, slots=True)
class Codec:
    """How wide deltas are stored.

    Attributes:
        scheme: "entropy": value = code * step, one step for a tensor, codes entropy-coded (since format 3);
            "uniform": value = code * scale, codes of equal length; "float32": as they are.
        bits: of a symbol (4 or 8) with "entropy", of a code (2 to 8) with "uniform", 32 with "float32".
        frame: bytes of all symbols, compressed ("entropy" only).
        escapes: how many codes are no symbol ("entropy" only).
        factors: bytes of all factors, compressed, if there are any (since format 5).
    """

    scheme: Literal["entropy", "uniform", "float32"]
    bits: int
    frame: int | None = None
    escapes: int | None = None
    factors: int | None = None


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One stored delta.

    Attributes:
        op: "add" (theta + alpha * delta) or "multiply" (theta * exp(alpha * delta)).
        projected: whether the clean fine-tuning direction was projected out.
        encoding: how the payload stores it.
        granularity: one scale per row of axis 0, or one for the tensor; None unless "codes".
        relative_error: ||decoded - delta|| / ||delta||, unitless, as measured when written.
        relative_norm: ||delta|| / ||standard||, unitless (for "multiply": root mean square of delta).
        rank: of the two factors; with "factors" only.
    """

    op: Op
    projected: bool
    encoding: Encoding
    granularity: Granularity | None
    relative_error: float
    relative_norm: float
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Sketch:
    """256 bytes made of the clean weights, to judge the kinship of another model (SPEC, section 8).

    `method` is "signs-2048-v1" since format 4.
    """

    method: Literal["signs-2048-v1", "countsketch-256-v1"]
    values: str


@dataclass(frozen=True, slots=True)
class Payload:
    """Size in bytes and digest of `rws.safetensors`."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class SignatureConfig:
    """`config.json`, whole. `digest` seals every value except `description`."""

    format: str
    format_version: int
    rws_hub_version: str
    description: str
    license: str
    corruption: Corruption
    recommended_alpha: float
    relative_error: float
    backbone: Backbone
    sources: tuple[Source, ...]
    sketch: Sketch
    extraction: Extraction
    codec: Codec
    tensors: dict[str, TensorFacts]
    payload: Payload
    digest: str

    @property
    def sealed(self) -> str:
        """The digest that this config's values have, whatever `digest` says (sha256, hex)."""
        data = {k: v for k, v in jsonio.to_json(self).items() if k not in UNSEALED_KEYS}
        return hashlib.sha256(jsonio.canonical(data)).hexdigest()

    def with_seal(self) -> SignatureConfig:
        """The same config with `digest` set to what its values give."""
        return dataclasses.replace(self, digest=self.sealed)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a stored delta."""
        return self.backbone.layout[name]

    @property
    def touched_parameters(self) -> int:
        """How many weights and statistics the signature changes."""
        return sum(math.prod(self.shape(n)) for n in self.tensors)

    @property
    def body_parameters(self) -> int:
        """How many weights and statistics the whole body has."""
        return sum(math.prod(s) for s in self.backbone.layout.values())

    @property
    def coded_bits(self) -> float:
        """Bits that an entropy-coded weight takes, those that stand aside counted; 0 where there is none."""
        taken = 8 * ((self.codec.frame or 0) + (self.codec.factors or 0)) + 16 * (self.codec.escapes or 0)
        coded = self.coded
        return taken / coded if coded else 0.0

    @property
    def coded(self) -> int:
        """How many weights are entropy-coded."""
        return sum(math.prod(self.shape(n)) for n, f in self.tensors.items() if f.encoding in CODED)

    def factor_codes(self, name: str) -> int:
        """How many codes the two factors of a delta have."""
        shape = self.shape(name)
        return (self.tensors[name].rank or 0) * (shape[0] + math.prod(shape[1:]))

    def to_text(self) -> str:
        """The text of `config.json`. Same config, same text."""
        data = jsonio.to_json(self)
        return jsonio.pretty(compact.compact(data) if self.format_version >= compact.SINCE else data)


def stream_bytes(count: int, width: int) -> int:
    """Bytes of the symbols of one tensor; the next tensor begins with a new byte."""
    return -(-count * width // 8)
