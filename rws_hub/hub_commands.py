"""`rws push`, `rws pull`, `rws sign` and `rws lock`: what goes to the Hub and comes from it, signed and pinned."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rws_hub.errors import ArtifactError, CheckpointError
from rws_hub.words import path, word

if TYPE_CHECKING:
    from rws_hub.lock import Pin
    from rws_hub.signature import RobustWeightSignature
    from rws_hub.spec import SignatureConfig

_LOCK = "rws.lock"
_REFUSE = "refuse what this public key did not sign (docs/SIGNING.md)"


def declare_sign(sign: argparse.ArgumentParser) -> None:
    """The arguments of `rws sign`."""
    sign.add_argument("folder", type=path)
    sign.add_argument("key", type=path, metavar="KEY", help="PEM file of a private elliptic curve key")


def declare_push(push: argparse.ArgumentParser) -> None:
    """The arguments of `rws push`."""
    push.add_argument("folder", type=path)
    push.add_argument("repo_id", type=word, help="namespace/name; created if it does not exist")
    push.add_argument("--private", action=argparse.BooleanOptionalAction, default=None, help="for a new repository")
    push.add_argument("--revision", type=word, help="branch to commit to; default: main")
    push.add_argument("--message", type=word, default="Upload robust weight signature", help="title of the commit")
    push.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    signed = push.add_mutually_exclusive_group()
    signed.add_argument("--sign", type=path, metavar="KEY", help="sign with this private key (docs/SIGNING.md)")
    signed.add_argument(
        "--no-sign",
        action="store_true",
        help="delete the model.sig in the repository; a folder that has one is refused",
    )


def declare_pull(pull: argparse.ArgumentParser) -> None:
    """The arguments of `rws pull`."""
    pull.usage = (
        "rws pull [-h] [--json] REPO [-o OUT] [--revision REVISION] [--subfolder SUBFOLDER] [--verify KEY]\n"
        "       rws pull [-h] [--json] --lock FILE [-o OUT] [--verify KEY]"
    )
    pull.set_defaults(usage_error=pull.error)
    pull.add_argument("repo_id", type=word, nargs="?", metavar="REPO", help="namespace/name")
    pull.add_argument(
        "-o",
        "--out",
        type=path,
        help="folder to write; default: the name of the repository; with --lock the one to write namespace/name into",
    )
    pull.add_argument("--revision", type=word, help="branch, tag or commit; default: main")
    pull.add_argument("--subfolder", help="where in the repository the signature is")
    pull.add_argument("--lock", type=path, metavar="FILE", help="fetch all that this lock file pins, and nothing else")
    pull.add_argument("--verify", "--public-key", dest="public_key", type=path, metavar="KEY", help=_REFUSE)


def declare_lock(lock: argparse.ArgumentParser) -> None:
    """The arguments of `rws lock`."""
    lock.add_argument(
        "sources",
        nargs="+",
        type=word,
        metavar="SIGNATURE",
        help="namespace/name[@revision] on the Hub, or a local folder",
    )
    lock.add_argument("--subfolder", help="where in them the signature is")
    lock.add_argument("-o", "--out", type=path, default=Path(_LOCK), help=f"the lock file (default {_LOCK})")
    lock.add_argument("--verify", "--public-key", dest="public_key", type=path, metavar="KEY", help=_REFUSE)


def declare_trust(verb: argparse.ArgumentParser, *spellings: str) -> None:
    """What every command that loads a signature can ask for: who made it, and that it is the pinned one."""
    verb.add_argument("--lock", type=path, metavar="FILE", help="refuse what this lock file does not pin")
    verb.add_argument("--public-key", *spellings, type=path, metavar="KEY", help=_REFUSE)


@dataclass(frozen=True, slots=True)
class Held:
    """A signature's config, and what is known of who made it.

    Attributes:
        config: read and verified.
        signed: whether a signature file is there (None: not known).
        every: whether all files were compared with key and lock file, and not config and payload only; None: with
            neither.
    """

    config: SignatureConfig
    signed: bool | None
    every: bool | None


def hold(arguments: argparse.Namespace) -> Held:
    """Find a signature, and hold every file of it that is here to the key and the lock file that were given."""
    from rws_hub import artifact
    from rws_hub.config import parse_config
    from rws_hub.pending import current
    from rws_hub.spec import CONFIG_FILE, SIGNATURE_FILE

    asked = arguments.public_key is not None or arguments.lock is not None
    if not asked:  # needs no client
        folder = artifact.local_folder(arguments.signature, arguments.revision, arguments.subfolder)
        if folder is not None:
            return Held(artifact.read_verified(folder), current(folder, SIGNATURE_FILE).is_file(), None)
    from rws_hub import hub, pinned
    from rws_hub.places import Place

    found = hub.locate(
        arguments.signature,
        revision=arguments.revision,
        subfolder=arguments.subfolder,
        public_key=arguments.public_key,
        lock=arguments.lock,
    )
    if found.commit is None:
        files = pinned.read_held(str(found.folder), found)
        config = parse_config(files[CONFIG_FILE], f"{found.folder}/{CONFIG_FILE}")
        return Held(config, SIGNATURE_FILE in files, True)
    config = artifact.read_verified(found.folder, found.manifests)
    signed = Place(arguments.signature, arguments.subfolder).is_signed(found.commit)
    return Held(config, signed, False if asked else None)


def load(arguments: argparse.Namespace) -> RobustWeightSignature:
    """The signature that a command is to work with, held to the key and the lock file that were given."""
    from rws_hub.signature import RobustWeightSignature

    return RobustWeightSignature.from_pretrained(
        arguments.signature,
        revision=arguments.revision,
        subfolder=arguments.subfolder,
        public_key=arguments.public_key,
        lock=arguments.lock,
    )


def sign(arguments: argparse.Namespace) -> None:
    """Sign what lies in a local folder."""
    from rws_hub import contents
    from rws_hub.spec import SIGNATURE_FILE

    found = contents.read_contents(arguments.folder)
    contents.write_folder(
        arguments.folder, found.config, found.payload, found.results, found.figures, sign=arguments.key
    )
    made = arguments.folder / SIGNATURE_FILE
    _tell(arguments, {"signature": str(made)}, f"{made} written; it covers everything but the card")


def push(arguments: argparse.Namespace) -> None:
    """Publish a local folder."""
    from rws_hub import contents, hub

    found, card = contents.read_all(arguments.folder)
    if arguments.no_sign and found.signature is not None:
        raise ArtifactError(f"{arguments.folder} is signed; delete its model.sig to publish it without")
    url = hub.push(
        arguments.repo_id,
        found if arguments.sign is None else found.signed(arguments.sign),
        local_card=card,
        private=arguments.private,
        revision=arguments.revision,
        commit_message=arguments.message,
        create_pr=arguments.create_pr,
        unsigned=arguments.no_sign,
    )
    _tell(arguments, {"url": url}, url)


def pull(arguments: argparse.Namespace) -> None:
    """Fetch one signature into a new folder, or all that a lock file pins."""
    if (arguments.repo_id is None) is (arguments.lock is None):
        arguments.usage_error("name a repository, or a lock file with --lock")
    if arguments.lock is not None:
        if arguments.revision is not None or arguments.subfolder is not None:
            arguments.usage_error("--lock says which revision and which subfolder")
        return _pull_pinned(arguments)
    from rws_hub import artifact, hub

    out = arguments.out or Path(arguments.repo_id.rpartition("/")[2])
    if reason := artifact.why_not_new(out):
        raise CheckpointError(f"{out} {reason}; choose another folder with -o")
    commit, files = hub.pull(
        arguments.repo_id, revision=arguments.revision, subfolder=arguments.subfolder, public_key=arguments.public_key
    )
    artifact.write_files(out, files)
    message = f"{out}: {arguments.repo_id} at {commit}, {_size(files)}{_by(arguments)}"
    facts = {"folder": str(out), "revision": commit, "files": sorted(files)}
    _tell(arguments, facts | {"verified": _verified(arguments)}, message)


def _pull_pinned(arguments: argparse.Namespace) -> None:
    from rws_hub import pinned

    told = []
    for pulled in pinned.pull(arguments.lock, arguments.out or Path(), arguments.public_key):
        pin, state = pulled.pin, "written" if pulled.written else "as pinned"
        told.append({"source": pin.label, "revision": pin.revision, "folder": str(pulled.folder), "state": state})
    lines = [f"{t['folder']}: {t['source']}{_at(t['revision'])}, {t['state']}{_by(arguments)}" for t in told]
    facts = {"lock": str(arguments.lock), "signatures": told, "verified": _verified(arguments)}
    _tell(arguments, facts, "\n".join(lines) or f"{arguments.lock} pins nothing")


def lock(arguments: argparse.Namespace) -> None:
    """Pin signatures as they are now."""
    from rws_hub import lock as locks

    file: Path = arguments.out
    if file.exists():
        locks.read_lock(file)  # what is no lock file is refused before anything is fetched
    made = [_pin(source, arguments) for source in arguments.sources]
    if len({p.place for p in made}) < len(made):
        raise ArtifactError("the same signature is named twice")
    before = locks.add_pins(file, made)
    lines = []
    for pin in made:
        old = before.get(pin.place)
        was = "" if old is None or old == pin else f", was{_at(old.revision) or ' other bytes'}"
        lines.append(f"{file}: {pin.label}{_at(pin.revision)}, {len(pin.sha256)} files{was}{_by(arguments)}")
    told = [{"source": p.label, "revision": p.revision, "files": sorted(p.sha256)} for p in made]
    _tell(arguments, {"lock": str(file), "signatures": told, "verified": _verified(arguments)}, "\n".join(lines))


def _pin(source: str, arguments: argparse.Namespace) -> Pin:
    from rws_hub import artifact, hub, lock, pinned

    named, at, revision = source.partition("@")
    if artifact.local_folder(source, None, arguments.subfolder) is None and at:
        if not revision:
            raise ArtifactError(f"{source!r} names no revision after the @")
        source = named
    found = hub.locate(
        source, revision=revision or None, subfolder=arguments.subfolder, public_key=arguments.public_key
    )
    if found.commit is None:
        return lock.pin_folder(Path(source), arguments.subfolder, arguments.out, pinned.read_held(source, found))
    commit, files = hub.pull(
        source, revision=found.commit, subfolder=arguments.subfolder, public_key=arguments.public_key
    )
    return lock.pin_repo(source, commit, arguments.subfolder, files)


def _at(revision: object) -> str:
    return "" if revision is None else f" at {revision}"


def _size(files: Mapping[str, bytes]) -> str:
    return f"{sum(map(len, files.values())):,} bytes"


def _by(arguments: argparse.Namespace) -> str:
    return "" if arguments.public_key is None else f", signature verified with {arguments.public_key}"


def _verified(arguments: argparse.Namespace) -> str | None:
    return None if arguments.public_key is None else str(arguments.public_key)


def _tell(arguments: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    print(json.dumps(data, indent=2) if arguments.json else text)
