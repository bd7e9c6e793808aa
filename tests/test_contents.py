"""Writing and reading a whole artifact in a folder: nothing half, nothing of a person's lost, nothing stale."""

import json
import stat
from pathlib import Path

import pytest
from published import files_of, fog, measured, saved

from rws_hub import (
    ArtifactError,
    CardError,
    CorruptArtifactError,
    FormatVersionError,
    NotASignatureError,
    RobustWeightSignature,
)
from rws_hub.contents import read_contents, write_folder

PICTURE = b"\x89PNG\r\n\x1a\n"
NAMES = ["README.md", "config.json", "rws.safetensors"]


def write(folder: Path, seed: int = 1, **kinds: object) -> None:
    write_folder(folder, fog(seed).config, fog(seed).payload, **{"results": None, **kinds})  # type: ignore[arg-type]


def test_same_signature_same_bytes(tmp_path: Path) -> None:
    first, second = files_of(saved(tmp_path / "a")), files_of(saved(tmp_path / "b" / "c"))
    assert first == second and sorted(first) == NAMES
    saved(tmp_path / "a")
    assert files_of(tmp_path / "a") == first


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "fog", results=measured(fog()), figures={"alpha.png": PICTURE})
    contents = read_contents(tmp_path / "fog")
    assert (contents.config, contents.payload) == (fog().config, fog().payload)
    assert contents.results == measured(fog()) and contents.figures == {"alpha.png": PICTURE}
    loaded = RobustWeightSignature.from_pretrained(tmp_path / "fog")
    loaded.save_pretrained(tmp_path / "fog")
    assert read_contents(tmp_path / "fog") == contents, "results and figures stay"
    assert "(figures/alpha.png)" in (tmp_path / "fog" / "README.md").read_text("utf-8")


def test_text_of_people_stays(tmp_path: Path) -> None:
    card = saved(tmp_path / "fog") / "README.md"
    card.write_bytes(card.read_bytes() + b"\r\nA person's words.\n")
    write(tmp_path / "fog", results=measured(fog()))
    assert "A person's words." in card.read_text("utf-8") and "60.0" in card.read_text("utf-8")
    (tmp_path / "fog" / "notes.txt").write_bytes(b"mine")
    write(tmp_path / "fog", results=measured(fog(), 0.5))
    assert (tmp_path / "fog" / "notes.txt").read_bytes() == b"mine"


def test_modes_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    folder = saved(tmp_path / "fog")

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(folder) == mode(tmp_path / "plain")
    assert {mode(folder / n) for n in NAMES} == {mode(tmp_path / "plain" / "file")}


@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool) -> None:
    folder = tmp_path / "fog"
    if existing:
        saved(folder)
    before = files_of(tmp_path)
    written: list[int] = []

    def fail_at_second(file: int) -> None:
        written.append(file)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("rws_hub.disk.os.fsync", fail_at_second)
    with pytest.raises(OSError, match="No space left"):
        saved(folder, fog(2))
    assert files_of(tmp_path) == before and len(list(tmp_path.iterdir())) == existing
    monkeypatch.undo()
    saved(folder, fog(2))
    assert read_contents(folder).payload == fog(2).payload


@pytest.mark.parametrize("config", ['{"model_type": "vit"}', '{"x": Infinity}', "not json", '{"a": 1, "a": 2}'])
def test_the_config_of_something_else_stays(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ArtifactError, match="holds the config"):
        saved(tmp_path)
    assert files_of(tmp_path) == {"config.json": config.encode()}


def test_a_newer_format_stays_and_a_damaged_signature_is_written_anew(tmp_path: Path) -> None:
    config = saved(tmp_path / "fog") / "config.json"
    data = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps(data | {"format_version": 9}))
    with pytest.raises(FormatVersionError):
        saved(tmp_path / "fog")
    for damaged in (json.dumps(data | {"license": "mit"}), json.dumps(data | {"x": 1}), '{"format": "rws"}'):
        config.write_text(damaged)
        saved(tmp_path / "fog")
        assert config.read_text("utf-8") == fog().config.to_text()


def test_results_and_figures_of_another_signature(tmp_path: Path) -> None:
    folder = tmp_path / "fog"
    with pytest.raises(CorruptArtifactError, match="another signature"):
        write(folder, results=measured(fog(2)))
    assert not folder.exists()
    write(folder, results=measured(fog()), figures={"a.png": PICTURE})
    before = files_of(folder)
    with pytest.raises(ArtifactError, match="was measured on another signature"):
        write(folder, seed=2)
    with pytest.raises(ArtifactError, match=r"a\.png was made for another signature"):
        write(folder, seed=2, results=measured(fog(2)), figures={"b.png": PICTURE})
    assert files_of(folder) == before
    write(folder, seed=2, results=measured(fog(2)), figures={"a.png": PICTURE + b"2"})
    assert read_contents(folder).results == measured(fog(2))
    (folder / "results.json").write_text("damaged")
    write(folder, seed=2, results=measured(fog(2)))
    assert read_contents(folder).results == measured(fog(2))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"---\na: [\n---\n"])
def test_a_card_that_cannot_be_read_stays(tmp_path: Path, content: bytes) -> None:
    card = saved(tmp_path / "fog") / "README.md"
    card.write_bytes(content)
    with pytest.raises(CardError):
        saved(tmp_path / "fog", fog(2))
    assert card.read_bytes() == content
    assert RobustWeightSignature.from_pretrained(tmp_path / "fog").payload == fog().payload


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "fog").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="is a file"):
        saved(tmp_path / "fog")
    with pytest.raises(NotASignatureError):
        read_contents(tmp_path)
