"""`RobustWeightSignature`: the user's object. Made by `extract`, kept in a folder or on the Hub."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from rws_hub import artifact, codec, contents, hub
from rws_hub.codec import Packed
from rws_hub.config import check_labels, strength
from rws_hub.errors import ExtractionError
from rws_hub.identity import describe_backbone
from rws_hub.layers import LayerRule
from rws_hub.making import Statement, executed_modules, make, wanted_rate
from rws_hub.names import read_table
from rws_hub.payload import Unread, read_payload
from rws_hub.results import Results
from rws_hub.sources import WeightsLike, canonical_weights, open_weights
from rws_hub.spec import Corruption, Data, SignatureConfig
from rws_hub.trio import Trio


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class RobustWeightSignature:
    """The quantized weight difference that makes one kind of model robust to one corruption.

    Attributes:
        config: everything but the numbers, as in `config.json`.
        tensors: the stored deltas by canonical name.
        data: the bytes of `rws.safetensors`.

    Example:
        >>> fog = RobustWeightSignature.from_pretrained("user/resnet18-fog")
        >>> fog.config.corruption.name
        'fog'
        >>> fog.delta("conv1.weight").shape
        torch.Size([64, 3, 7, 7])
    """

    config: SignatureConfig
    tensors: Mapping[str, Packed]
    data: Data

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        subfolder: str | None = None,
        public_key: str | Path | None = None,
        lock: str | Path | None = None,
    ) -> RobustWeightSignature:
        """Load a signature from a local folder or the Hub, and verify every byte of it.

        The revision is resolved once and all files come from that commit. A local folder makes no
        network call. `public_key` is the PEM file of the key that has to have signed it, `lock` an `rws.lock` that
        has to pin it, byte for byte (docs/SIGNING.md); both are asked before anything is decoded.

        Raises:
            VerificationError: it is not signed with that key, or not what the lock file pins.
            SigningError: the key cannot verify, or `rws-hub[sign]` is not installed.
            NotASignatureError: the folder or repository holds no signature.
            FormatVersionError, CorruptArtifactError: it does not hold what it promises.
            huggingface_hub.errors: whatever the Hub client raises, untouched.
        """
        found = hub.locate(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            subfolder=subfolder,
            public_key=public_key,
            lock=lock,
        )

        def read() -> RobustWeightSignature:
            config = artifact.read_config(found.folder, found.vouched())
            payload = artifact.read_payload_bytes(found.folder, config)
            return cls(config, read_payload(payload, config), payload)

        return artifact.consistently(found.folder, read)

    @classmethod
    def extract(
        cls,
        *,
        standard: WeightsLike,
        robust: WeightsLike,
        pretrained: WeightsLike | None = None,
        corruption: str,
        license: str,
        severity: int | None = None,
        dataset: str | None = None,
        layers: LayerRule = "shallow",
        bits: float | None = None,
        error: float | None = None,
        max_bytes: int | None = None,
        batchnorm: Literal["delta", "none"] = "delta",
        alpha: float = 1.0,
        base_model: str | None = None,
        base_revision: str | None = None,
        example_input: torch.Tensor | None = None,
        table: str | Path | None = None,
        description: str = "",
        progress: bool = False,
    ) -> RobustWeightSignature:
        """Compute a signature from checkpoints (ICML 2023, arXiv 2302.12480; docs/SPEC.md, section 4).

        Args:
            standard: the clean model: a module, a state dict, or a path to (sharded) safetensors.
            robust: its robust twin.
            pretrained: the weights both grew from: the paper's projection is taken. None: the robust
                twin was fine-tuned from the clean one, and the plain difference is taken.
            corruption: what the twin is robust to, one word such as "fog".
            license: licence id of the artifact, such as "apache-2.0".
            severity: 1 to 5.
            dataset: what it was trained on, one word or a Hub id.
            layers: "shallow" (a prefix of the layers, chosen from the measured differences), the number of
                first layers, or a list of shell-style name patterns.
            bits: how many bits a coded weight takes, nearly: 0.1 to 8, such as 1.5; or 32 for plain float32.
                Matrices and kernels are rounded to multiples of a step and entropy-coded, vectors are kept in half
                precision or better. Pass at most one of `bits`, `error` and `max_bytes`.
            error: instead, the relative error ||decoded - delta|| / ||delta|| of all coded weights together, nearly:
                0.001 to 0.9. Where none of the three is given it is 0.5 for kernels and 0.3 for linear layers.
            max_bytes: instead, what config and payload may take on disk together; as fine as fits.
            batchnorm: "delta": affine parameters and statistics are part of the patch; "none": left alone.
            alpha: recommended patch strength, unitless.
            base_model: Hub id of the published clean model, if there is one.
            base_revision: its 40-hex commit.
            example_input: one input batch; only for `layers="shallow"` or a number on a backbone whose
                execution order no name table states and no symbolic trace shows: `standard` is run on it once to
                learn it.
            table: a name table of your own (docs/NAMES.md) for a backbone that the package knows no names of; it
                becomes part of the signature.
            description: free text for the card.
            progress: show a progress bar on stderr.

        Raises:
            CheckpointError, ExtractionError: naming the tensor, what was expected and what was found.
            NameTableError: a table that cannot be read, or that loses or doubles a part of the backbone.
        """
        wanted = wanted_rate(bits, error, max_bytes)
        if batchnorm not in ("delta", "none"):
            raise ExtractionError(f"batchnorm={batchnorm!r}: expected 'delta' or 'none'")
        about = Corruption(corruption, severity, dataset)
        try:
            alpha = strength(alpha, corruption)
            check_labels(license, about, base_model, base_revision)
        except ValueError as error_:
            raise ExtractionError(str(error_).removeprefix("config.json: ")) from error_
        names = None if table is None else read_table(table)
        trio = Trio(
            canonical_weights(open_weights(standard, "standard"), names),
            canonical_weights(open_weights(robust, "robust"), names),
            None if pretrained is None else canonical_weights(open_weights(pretrained, "pretrained"), names),
        )
        statement = Statement(
            description=description,
            license=license,
            corruption=about,
            alpha=alpha,
            backbone=describe_backbone(standard, trio.standard.recognition, base_model, base_revision),
            layers=layers,
            batchnorm=batchnorm,
        )
        executed = executed_modules(standard, example_input, trio.standard)
        config, payload = make(trio, statement, wanted, executed, progress)
        return cls(config, Unread(payload, config), payload)

    def __repr__(self) -> str:
        what = f"{self.config.corruption.name} for {self.config.backbone.architecture}"
        return f"<RobustWeightSignature {what}: {len(self.tensors)} tensors, {self.nbytes:,} bytes>"

    def __eq__(self, other: object) -> bool:
        # The config holds the digest of the payload, so equal configs are equal signatures.
        return isinstance(other, RobustWeightSignature) and self.config == other.config

    def __hash__(self) -> int:
        return hash(self.config.digest)

    def __reduce__(self) -> tuple[object, ...]:
        # Copies and pickles are read from the bytes again, verified, and share no memory.
        return _restore, (self.config, self.payload)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the tensors that the signature changes, in the order of its config."""
        return tuple(self.tensors)

    @property
    def payload(self) -> bytes:
        """The bytes of `rws.safetensors` (a copy)."""
        return bytes(self.data)

    @property
    def nbytes(self) -> int:
        """Bytes on disk of `config.json` and `rws.safetensors` together."""
        return len(self.config.to_text().encode()) + len(self.data)

    def delta(self, name: str) -> torch.Tensor:
        """The decoded delta of one tensor, float32, of the shape it has in the canonical layout.

        For a running variance it is ln(robust / standard), which a patch applies as
        theta * exp(alpha * delta); everything else is added: theta + alpha * delta.

        Raises:
            KeyError: the signature does not touch this tensor.
        """
        return codec.unpack(self.tensors[name], self.config.codec.bits)

    def elements(self, name: str) -> int:
        """Number of elements of one delta."""
        return math.prod(self.config.shape(name))

    def save_pretrained(
        self, save_directory: str | Path, *, results: Results | None = None, sign: str | Path | None = None
    ) -> None:
        """Write config, payload and card (and results) to a folder. No network. Same signature, same bytes.

        A card that is already there keeps what a person wrote in it. Results already there are kept if they
        are of this signature. `sign` is a private key (PEM file): `model.sig` will cover everything but the card.

        Raises:
            ArtifactError: results or a `model.sig` of another signature, or the folder holds something else's
                config.json.
            SigningError: the key cannot sign, or `rws-hub[sign]` is not installed.
            CardError: the card that is there cannot be read.
        """
        contents.write_folder(Path(save_directory), self.config, self.data, results, sign=sign)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload robust weight signature",
        create_pr: bool = False,
        results: Results | None = None,
        sign: str | Path | Literal[False] | None = None,
    ) -> str:
        """Publish as one atomic commit, keeping what a person wrote in the remote card.

        Args:
            repo_id: `namespace/name`; created if it does not exist.
            private: for a repository that is created now; None takes the account's default.
            token: Hub token; None takes the stored login.
            revision: branch to commit to (created if missing), or `refs/pr/N`; None is the main branch.
            commit_message: title of the commit.
            create_pr: open a pull request instead of committing to the branch.
            results: what was measured, for card and `results.json`.
            sign: PEM file of a private key to sign everything but the card with. None: a published `model.sig` stays
                if it covers what is pushed, and the push is refused otherwise. False: publish without a signature.

        Returns:
            URL of the commit, or of the pull request; of the head commit if nothing had changed.

        Raises:
            NotASignatureError: the repository holds another kind of model; it is not overwritten.
            ArtifactError: a `model.sig` would be left beside files that it does not cover.
            SigningError: the key cannot sign, or `rws-hub[sign]` is not installed.
            huggingface_hub.errors: whatever the Hub client raises, untouched; a branch that moved meanwhile
                is an HfHubHTTPError of status 412, and nothing was written.
        """
        content = contents.Contents(self.config, self.data, results, figures={})
        return hub.push(
            repo_id,
            content if sign is None or sign is False else content.signed(sign),
            local_card=None,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            unsigned=sign is False,
        )


def _restore(config: SignatureConfig, payload: bytes) -> RobustWeightSignature:
    data = bytearray(payload)
    return RobustWeightSignature(config, read_payload(data, config), data)
