"""`rws compare`: tables at any width, JSON, the ranking in words, and two pictures."""

import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import tiny_signature
from hub import Hub
from keys import key_pair
from published import saved
from rich.console import Console
from test_cli import Run, alice, failed, rws

from rws_hub import compare, identify
from rws_hub.compare_plots import cosine_png, profile_png
from rws_hub.compare_tables import print_comparison, print_identification
from rws_hub.comparison import Comparison, Identification, LayerComparison, Match, Similarity

__all__ = ["alice", "rws"]  # fixtures

NAMES = (
    "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness "
    "contrast elastic_transform pixelate jpeg_compression speckle_noise gaussian_blur spatter saturate"
).split()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with three signatures of one backbone."""
    out = tmp_path_factory.mktemp("compare")
    seeds = {"fog": 1, "snow": 2, "rain": 3}
    return [saved(out / c, tiny_signature(corruption=c, seed=s, severity=None)) for c, s in seeds.items()]


def made_up(count: int) -> Comparison:
    """A comparison of so many signatures, with every kind of number in it."""
    labels = tuple(NAMES[:count])
    steps = [[1.0 if i == j else 0.99 - 0.1 * abs(i - j) for j in range(count)] for i in range(count)]
    steps[0][1] = steps[1][0] = None  # type: ignore[call-overload]
    overall = Similarity(1, 1234567, tuple(tuple(max(-1.0, c) if c is not None else None for c in r) for r in steps))
    changed = [0.0, 0.0012, 0.0399, 0.5, 1.0, 12.5]
    layers = tuple(
        LayerComparison(f"layer{k}", overall if k < 2 else None, tuple([x] * (count - 1) + [None]), (k < 2,) * count)
        for k, x in enumerate(changed)
    )
    return Comparison(labels, overall, layers)


def printed(comparison: Comparison, width: int, **options: object) -> str:
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=width, **options))  # type: ignore[arg-type]
    return file.getvalue()


def shown(cosine: float | None) -> str:
    assert cosine is not None
    return "0.00" if abs(cosine) < 0.005 else f"{cosine:.2f}"


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and png[12:16] == b"IHDR"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_tables(rws: Run, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = rws("compare", *folders)
    found = compare([tiny_signature(corruption=f.name, seed=s) for s, f in enumerate(folders, 1)])
    assert code == 0 and err == "" and "\x1b" not in out and max(map(len, out.splitlines())) <= 80
    shared = f"{found.overall.tensors} tensors, {found.overall.parameters:,} parameters"
    assert out.startswith(f"Cosines over what all 3 signatures change: {shared}\n")
    for i, (label, row) in enumerate(zip(found.labels, found.overall.cosine, strict=True), 1):
        assert re.search(rf"^{i} {label} +" + " +".join(shown(c) for c in row) + "$", out, re.M)
    stem = found.layers[0]
    assert stem.similarity is not None
    percent = [f"{100 * (d or 0):.1f}" for d in stem.relative_difference]
    assert re.search(rf"^stem +{shown(stem.similarity.mean)} +" + " \\S+ +".join(percent) + r" \S+ *$", out, re.M)
    assert re.search(r"^layer4\.0 +- +\d", out, re.M)


@pytest.mark.parametrize("count", [2, 19])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_keep_to_the_width(count: int, width: int) -> None:
    comparison = made_up(count)
    text = printed(comparison, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width and "1 tensor, 1,234,567 parameters" in " ".join(text.split())
    for name in comparison.labels:
        assert name in text
    assert all(f" {number}" in text for number in ("0.12", "3.99", "50.0", " 100", "1250", "-"))
    assert len(re.findall(r" 1\.00", text)) == count
    blocks = [line for line in lines if line.lstrip().startswith("signature")]
    assert count == 2 or len(blocks) == {60: 4, 80: 2, 200: 1}[width]


def test_colours_are_only_for_terminals_and_add_nothing() -> None:
    plain = printed(made_up(19), 80)
    coloured = printed(made_up(19), 80, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured and re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_an_old_code_page_has_no_bars() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="cp1252")
    print_comparison(made_up(19), Console(file=file, width=80))
    file.flush()
    assert b"12.5" not in raw.getvalue() and b"50.0" in raw.getvalue()


def test_what_a_stranger_wrote_does_not_steer_the_terminal() -> None:
    layer = LayerComparison("[red]a\x1b[2J$\\frac$", None, (0.1, 0.2), (True, False))
    hostile = Comparison(("[bold]x", "y\x07"), made_up(2).overall, (layer,))
    text = printed(hostile, 80)
    assert "[bold]x" in text and "[red]a" in text and "\x1b" not in text and "\x07" not in text
    assert size(profile_png(hostile)) > (500, 200)


def test_json(rws: Run, folders: list[Path]) -> None:
    code, out, err = rws("compare", *folders[:2], "--identify", folders[2], "--json")
    data = json.loads(out)
    assert code == 0 and err == "" and data["signatures"] == [str(f) for f in folders[:2]] and data["plots"] == []
    assert data["labels"] == ["fog", "snow"] and data["overall"]["cosine"][1][1] == 1
    assert data["overall"].keys() == {"tensors", "parameters", "cosine"}
    assert data["layers"][0].keys() == {"label", "similarity", "relative_difference", "touched"}
    assert data["layers"][-1]["similarity"] is None
    assert {m["label"] for m in data["identification"]["ranking"]} == {"fog", "snow"}
    assert data["identification"]["margin"] >= 0
    assert json.loads(rws("compare", *folders, "--json")[1])["identification"] is None


def test_identify_in_words(rws: Run, folders: list[Path]) -> None:
    code, out, _ = rws("compare", *folders, "--identify", folders[1])
    words = " ".join(out.split())
    signatures = [tiny_signature(corruption=f.name, seed=s) for s, f in enumerate(folders, 1)]
    found = identify(signatures[1], signatures)
    rival = found.ranking[1]
    assert rival.cosine is not None and found.margin is not None
    ahead = f"{found.margin:.2f} ahead of {rival.label} ({rival.cosine:.2f}), the next of another corruption"
    assert code == 0 and f"nearest to snow (cosine 1.00), {ahead}. Compared over {found.tensors} tensors" in words
    assert re.search(r"^ +1\. snow +1\.00", out, re.M) and re.search(rf"^ +2\. {rival.label} ", out, re.M)


@pytest.mark.parametrize(
    ("ranking", "said"),
    [
        ([Match("fog 5", "fog", 0.5), Match("fog 1", "fog", 0.4)], "no reference of another corruption"),
        ([Match("fog", "fog", None), Match("snow", "snow", None)], "none is nearer than another"),
    ],
)
def test_identify_without_a_rival(ranking: list[Match], said: str) -> None:
    file = io.StringIO()
    print_identification(Identification(tuple(ranking), None, None, 2, 1), "x", Console(file=file, width=200))
    assert said in file.getvalue() and "2 tensors, 1 parameter." in file.getvalue()


def test_signatures_of_the_hub(rws: Run, alice: Hub, folders: list[Path]) -> None:
    assert rws("push", folders[0], "alice/fog")[0] == 0
    code, out, _ = rws("compare", "alice/fog", folders[1], "--identify", "alice/fog")
    assert code == 0 and "alice/fog: nearest to fog (cosine 1.00)" in " ".join(out.split())


def test_only_what_is_signed_and_pinned(rws: Run, folders: list[Path], tmp_path: Path) -> None:
    (private, public), hers = key_pair(tmp_path), key_pair(tmp_path, "mallory")[1]
    fog, snow, rain = (Path(shutil.copytree(f, tmp_path / f.name)) for f in folders)
    lock = tmp_path / "rws.lock"
    for folder in (fog, snow):
        assert rws("sign", folder, private)[0] == 0
    assert rws("lock", fog, snow, "-o", lock)[0] == 0
    assert rws("compare", fog, snow, "--identify", fog, "--verify", public, "--lock", lock)[0] == 0
    assert rws("compare", fog, snow, "--public-key", public)[0] == 0
    assert "it names another key" in failed(rws("compare", fog, snow, "--verify", hers))
    for words in ((fog, rain), (fog, snow, "--identify", rain)):
        assert f"{rain} is not signed" in failed(rws("compare", *words, "--verify", public))
        assert "rain" in failed(rws("compare", *words, "--lock", lock))


def test_what_does_not_work(rws: Run, folders: list[Path], tmp_path: Path) -> None:
    vit = saved(tmp_path / "vit", tiny_signature("vit", "haze"))
    assert "only signatures of one backbone" in failed(rws("compare", *folders, vit))
    assert "only signatures of one backbone" in failed(rws("compare", *folders, "--identify", vit))
    assert failed(rws("compare", folders[0], tmp_path))
    for wrong in ([], [folders[0]], [folders[0], ""]):
        code, out, err = rws("compare", *wrong)
        assert code == 2 and out == "" and err.startswith("usage: rws compare")
    code, out, _ = rws("compare", "--help")
    assert code == 0 and "SIG SIG [SIG ...]" in " ".join(out.split())


def test_plots_are_written_once(rws: Run, folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "plots"
    code, text, _ = rws("compare", *folders, "--plots", out)
    assert code == 0 and text.endswith(f"{out / 'cosine.png'}: written\n{out / 'profile.png'}: written\n")
    assert sorted(f.name for f in out.iterdir()) == ["cosine.png", "profile.png"]
    for file in out.iterdir():
        assert all(300 < side < 2000 for side in size(file.read_bytes()))
    (out / "cosine.png").unlink()
    assert "profile.png exists already" in failed(rws("compare", *folders, "--plots", out))
    assert not (out / "cosine.png").exists()
    assert "is a file" in failed(rws("compare", *folders, "--plots", folders[0] / "config.json"))


@pytest.mark.parametrize("count", [2, 19])
def test_plots_of_few_and_of_many(count: int) -> None:
    comparison = made_up(count)
    for png in (cosine_png(comparison), profile_png(comparison)):
        assert all(250 < side < 2400 for side in size(png)) and len(png) < 600_000


def test_without_matplotlib(rws: Run, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else find(name))
    message = failed(rws("compare", *folders, "--plots", tmp_path / "plots"))
    assert "needs matplotlib: pip install 'rws-hub[demo]'" in message and not (tmp_path / "plots").exists()
    assert rws("compare", *folders)[0] == 0


def test_tables_need_no_matplotlib_and_the_room_is_light(folders: list[Path]) -> None:
    code = (
        "import sys, rws_hub.compare_command; assert not {'rich', 'torch'} & set(sys.modules); "
        f"from rws_hub.cli import main; main(['compare', {str(folders[0])!r}, {str(folders[1])!r}]); "
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
