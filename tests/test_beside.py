"""What stands beside config and payload: no more of it is read than it can have to say, and nothing through links."""

from pathlib import Path

import pytest
from published import fog, measured, saved

from rws_hub.artifact import read_card, read_results
from rws_hub.beside import MAX_CARD_BYTES, read_beside, read_figures, read_file, read_results_file, require_beside
from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import CARD_FILE, PAYLOAD_FILE, RESULTS_FILE

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 5) == b"12345" and read_file(tmp_path / "b", 5) is None
    with pytest.raises(CorruptArtifactError, match="a: 5 bytes; at most 4 are allowed"):
        read_file(tmp_path / "a", 4)
    with pytest.raises(CorruptArtifactError, match=r"is no file; expected at most 5 bytes of one\. Remove it"):
        read_file(tmp_path, 5)


def test_what_is_in_a_folder_is_read_from_that_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "fog")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.png").write_bytes(PNG)
    (folder / RESULTS_FILE).write_text(measured(fog()).to_text(), "utf-8")
    assert read_results(folder) == measured(fog()) == read_results_file(folder / RESULTS_FILE)
    assert read_figures(folder) == {"a.png": PNG}
    card = read_card(folder)
    assert card is not None and card.startswith("---\n")
    (tmp_path / "secret").write_text(card, "utf-8")
    (folder / CARD_FILE).unlink()
    assert read_card(folder) is None
    (folder / CARD_FILE).symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptArtifactError, match=r"README\.md: is a link; .* Put a copy in its place, or remove it"):
        read_card(folder)


def test_a_folder_may_be_reached_through_a_link(tmp_path: Path) -> None:
    saved(tmp_path / "fog")
    (tmp_path / "link").symlink_to(tmp_path / "fog")
    assert read_card(tmp_path / "link") == read_card(tmp_path / "fog")


def test_files_of_a_cache_are_links_and_are_read(tmp_path: Path) -> None:
    blobs = {"README.md": b"# Mine", "figures/a.png": PNG, RESULTS_FILE: measured(fog()).to_text().encode()}
    paths = {}
    for i, (name, data) in enumerate(blobs.items()):
        (tmp_path / str(i)).write_bytes(data)
        paths[name] = tmp_path / f"link{i}"
        paths[name].symlink_to(tmp_path / str(i))
    assert read_beside({**paths, PAYLOAD_FILE: tmp_path / "none"}) == blobs
    require_beside(blobs, fog().config, "alice/fog")
    with pytest.raises(CorruptArtifactError, match="these numbers are of another signature"):
        require_beside(blobs, fog(2).config, "alice/fog")
    with pytest.raises(CorruptArtifactError, match=r"alice/fog/figures/a\.png: is no PNG"):
        require_beside(blobs | {"figures/a.png": b"<svg/>"}, fog().config, "alice/fog")
    (tmp_path / "0").write_bytes(bytes(MAX_CARD_BYTES + 1))
    with pytest.raises(CorruptArtifactError, match="at most 1,048,576 are allowed"):
        read_beside(paths)
