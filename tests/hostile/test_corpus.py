"""Every attack by hand has its verdict; `corpus.py` says how they are made."""

import sys
from pathlib import Path

import pytest
from corpus import attacks, attempt, bases
from forge import load as read

from rws_hub.spec import FORMAT_VERSION

ATTACKS = list(attacks())
# So many in one test: thousands of single tests take longer to collect than to run.
CHUNK = 100


@pytest.mark.skipif(sys.platform != "linux", reason="pipes, devices and holes as Linux has them")
@pytest.mark.parametrize("start", range(0, len(ATTACKS), CHUNK))
def test_every_attack_is_refused(start: int, tmp_path: Path) -> None:
    wrong = []
    for i, attack in enumerate(ATTACKS[start : start + CHUNK]):
        folder = tmp_path / str(i)
        folder.mkdir()
        found = attempt(attack, folder)
        if not attack.allows(found):
            wrong.append(f"{attack.name}: expected {attack.error.__name__}({attack.message}), found {found!r}")
    assert not wrong


def test_the_corpus_is_large_and_of_every_format() -> None:
    assert len(ATTACKS) >= 5_000 and len({a.name for a in ATTACKS}) == len(ATTACKS)
    assert {o.config.format_version for o in bases().values()} == set(range(1, FORMAT_VERSION + 1))
    assert {a.target for a in ATTACKS} == {
        "config",
        "payload",
        "frame",
        "folder",
        "card",
        "results",
        "table",
        "checkpoint",
    }


@pytest.mark.parametrize("name", bases())
def test_what_is_attacked_is_sound_itself(name: str) -> None:
    origin = bases()[name]
    assert read(origin.text, origin.payload).config == origin.config
