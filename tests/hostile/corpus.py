"""Attacks by hand: each a folder of files, the way it is opened, and its verdict.

They are made when they are tried: half of them are pipes, links, holes of a terabyte or thousands of names, which no
repository should hold, and every one is made from the published artifacts of every format, so that a new format meets
all of them. A verdict is the class of the error and a piece of its message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mutants import Origin, origins

from rws_hub import RobustWeightSignature, plan_patch
from rws_hub.artifact import read_card
from rws_hub.beside import read_results_file
from rws_hub.contents import read_contents
from rws_hub.errors import CorruptArtifactError, RWSError
from rws_hub.names import read_table
from rws_hub.spec import CARD_FILE, CONFIG_FILE, PAYLOAD_FILE, RESULTS_FILE

FIXTURES = Path(__file__).parent.parent / "fixtures"
# No message is longer, whatever an artifact holds.
LONGEST = 1_000


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: of its own.
        target: what reads it: config, payload, frame, folder, card, results, table or checkpoint.
        make: writes its files into an empty folder.
        enter: opens it there, as a person would.
        error, message: the verdict.
        claims: what a small file claims to be or to need, if that is the attack.
    """

    name: str
    target: str
    make: Callable[[Path], None]
    enter: Callable[[Path], object]
    error: type[RWSError]
    message: str
    claims: str = ""

    def allows(self, found: object) -> bool:
        """Whether it was refused as it should be, in words that fit a line of a terminal and cannot steer it."""
        text = str(found)
        plain = text.replace("\n", "").isprintable() and len(text) <= LONGEST
        return type(found) is self.error and self.message in text and plain


def attempt(attack: Attack, folder: Path) -> object:
    """What comes of an attack: our error, or what was read. Any other exception goes through."""
    if not any(folder.iterdir()):
        attack.make(folder)
    try:
        return attack.enter(folder)
    except RWSError as error:
        return error


@cache
def bases() -> dict[str, Origin]:
    """An honest artifact of each format version, of each scheme, and of what there is in it, by what it is."""
    found: dict[str, Origin] = {}
    for origin in sorted(origins(FIXTURES), key=lambda o: len(o.text)):
        version, scheme = origin.config.format_version, origin.config.codec.scheme
        bare = " without symbols" if scheme == "entropy" and not origin.stream else ""
        found.setdefault(f"format {version}, {scheme}{bare}", origin)
    return found


def load(folder: Path) -> object:
    """As `from_pretrained` of a local folder."""
    return RobustWeightSignature.from_pretrained(folder)


def whole(folder: Path) -> object:
    """Everything, as `rws push` and `rws card` read it."""
    return read_contents(folder), read_card(folder)


def save(folder: Path) -> object:
    """A signature of one's own, saved into the folder: its card is merged into what is there."""
    return next(iter(_signatures())).save_pretrained(folder)


def results(folder: Path) -> object:
    """As `rws card --results`."""
    return read_results_file(folder / RESULTS_FILE)


def table(folder: Path) -> object:
    """As `--table`."""
    return read_table(folder / "own.map")


def checkpoint(folder: Path) -> object:
    """As `rws check` and `rws apply` open a checkpoint."""
    return plan_patch(folder, next(iter(_signatures())))


@cache
def _signatures() -> tuple[RobustWeightSignature, ...]:
    from forge import small_signature

    return (small_signature(),)


def artifact(text: str | bytes, payload: bytes, **others: bytes) -> Callable[[Path], None]:
    """Writes config and payload, and a card or results beside them."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    names = {"card": CARD_FILE, "results": RESULTS_FILE}

    def make(folder: Path) -> None:
        (folder / CONFIG_FILE).write_bytes(raw)
        (folder / PAYLOAD_FILE).write_bytes(payload)
        for name, data in others.items():
            (folder / names[name]).write_bytes(data)

    return make


def refused(
    name: str,
    target: str,
    make: Callable[[Path], None],
    message: str,
    claims: str = "",
    error: type[RWSError] | None = None,
) -> Attack:
    """An attack on loading."""
    return Attack(name, target, make, load, error or CorruptArtifactError, message, claims)


def attacks() -> Iterator[Attack]:
    """All of them."""
    import attacks_beside
    import attacks_config
    import attacks_factors
    import attacks_names
    import attacks_payload

    for module in (attacks_config, attacks_payload, attacks_factors, attacks_beside, attacks_names):
        yield from module.attacks()
