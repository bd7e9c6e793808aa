"""Several files of a folder, replaced at once; what comes between two steps is in `test_faults.py`."""

from pathlib import Path

import pytest
from forge import small_signature
from published import measured

from rws_hub import RobustWeightSignature, pending
from rws_hub.artifact import read_card, read_verified
from rws_hub.contents import read_contents
from rws_hub.errors import ArtifactError, CorruptArtifactError
from rws_hub.pending import PENDING
from rws_hub.spec import CARD_FILE, CONFIG_FILE, PAYLOAD_FILE

OLD, NEW = small_signature(seed=3), small_signature(seed=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    OLD.save_pretrained(tmp_path / "fog")
    return tmp_path / "fog"


def prepared(folder: Path) -> None:
    """As a kill leaves it before `config.json` is in its place."""
    NEW.save_pretrained(folder / PENDING, results=measured(NEW))


def begun(folder: Path) -> None:
    """As a kill leaves it right behind that."""
    prepared(folder)
    (folder / PENDING / CONFIG_FILE).replace(folder / CONFIG_FILE)


def test_what_was_only_prepared_does_not_count(folder: Path) -> None:
    before = read_card(folder)
    prepared(folder)
    assert RobustWeightSignature.from_pretrained(folder) == OLD and read_card(folder) == before
    assert read_contents(folder).results is None
    pending.settle(folder)
    assert not (folder / PENDING).exists() and read_verified(folder) == OLD.config
    assert sorted(p.name for p in folder.iterdir()) == [CARD_FILE, CONFIG_FILE, PAYLOAD_FILE]


def test_what_was_begun_counts_and_is_finished(folder: Path) -> None:
    begun(folder)
    assert (folder / PAYLOAD_FILE).read_bytes() == OLD.payload
    loaded = RobustWeightSignature.from_pretrained(folder)
    assert loaded == NEW and loaded.payload == NEW.payload
    assert read_contents(folder).results == measured(NEW)
    loaded.save_pretrained(folder)  # the next writer
    assert not (folder / PENDING).exists() and (folder / PAYLOAD_FILE).read_bytes() == NEW.payload
    assert read_contents(folder).results == measured(NEW)


def test_another_payload_than_the_one_that_the_config_vouches_for_is_none(folder: Path) -> None:
    begun(folder)
    (folder / PENDING / PAYLOAD_FILE).write_bytes(small_signature(seed=5).payload)
    with pytest.raises(CorruptArtifactError):
        RobustWeightSignature.from_pretrained(folder)


def test_nothing_is_put_in_place_through_a_link(folder: Path, tmp_path: Path) -> None:
    begun(folder)
    (folder / PENDING / "figures").mkdir()
    (folder / PENDING / "figures" / "a.png").write_bytes(b"png")
    (tmp_path / "elsewhere").mkdir()
    (folder / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a link; delete what is not meant to be there"):
        pending.settle(folder)
    assert not list((tmp_path / "elsewhere").iterdir())
