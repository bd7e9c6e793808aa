"""The demo in miniature: what it writes and measures, and what it refuses."""

import importlib.util
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub import Hub

from rws_hub import ArtifactError, RobustWeightSignature, RWSError, cli, plan_patch
from rws_hub.artifact import read_results
from rws_hub.demo import DemoSettings, run_demo, story
from rws_hub.demo.data import add_noise, load_splits, shift
from rws_hub.demo.findings import findings
from rws_hub.demo.records import Score, SeedStory, Sizes, TargetStory, Who
from rws_hub.demo.settings import Schedule
from rws_hub.demo.training import build_model, one_thread, reestimate_batchnorm, same_bits, train
from rws_hub.hub import pull

ONCE = Schedule(1, 0.05)
MINIATURE = DemoSettings(
    side=12,
    base_images=60,
    user_images=40,
    test_images=40,
    channels=(8, 8, 16, 16),
    batch=20,
    ancestor=ONCE,
    clean=ONCE,
    robust=ONCE,
    two_branch=ONCE,
    user=ONCE,
    bn_images=16,
    alphas=(0.0, 1.0),
)


def told(who: Who, *, noisy: tuple[float, float] = (0.6, 0.9), **changes: Any) -> TargetStory:
    """A fabricated target whose accuracy on noisy images goes from `noisy[0]` to `noisy[1]`."""
    before = Score(0.99, noisy[0])
    facts = {
        "similarity": 0.0 if who == "stranger" else 1.0,
        "kinship": "in words",
        "kin": who != "stranger",
        "before": before,
        "patched": Score(0.98, noisy[1]),
        "two_branch": Score(0.95, 0.85),
        "batchnorm": Score(0.9, 0.8),
        "after": before,
        "restored": True,
    }
    return TargetStory(who=who, **(facts | changes))


def seed_story(
    own: TargetStory | None = None, user: TargetStory | None = None, stranger: TargetStory | None = None, seed: int = 0
) -> SeedStory:
    """A fabricated seed."""
    return SeedStory(
        seed=seed,
        images=40,
        payload_sha256="0" * 64,
        targets=(
            own or told("own"),
            user or told("user"),
            stranger or told("stranger", noisy=(0.6, 0.7)),
        ),
        robust=Score(0.985, 0.95),
        two_branch_robust=Score(0.94, 0.96),
        sweep=((0.0, Score(0.99, 0.6)), (1.0, Score(0.98, 0.9)), (1.5, Score(0.97, 0.9))),
        sizes=Sizes(1000, 9000, 60000, 240000, 15000, 60000, 4, ("stem", "layer1.0"), 5),
    )


def text_of(*stories: SeedStory) -> str:
    return "\n".join(findings(stories or (seed_story(),), 64))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a miniature run over two seeds, and its JSON."""
    out = tmp_path_factory.mktemp("demo") / "new" / "out"
    with pytest.MonkeyPatch.context() as patching:
        stdout = io.StringIO()
        patching.setattr("sys.stdout", stdout)
        run_demo(out, seeds=2, as_json=True, settings=MINIATURE)
    return out, json.loads(stdout.getvalue())


def test_what_is_written(ran: tuple[Path, dict[str, Any]]) -> None:
    out, data = ran
    assert sorted(p.name for p in out.iterdir()) == ["alpha.png", "clean.safetensors", "signature", "user.safetensors"]
    signature = RobustWeightSignature.from_pretrained(out / "signature")
    assert signature.config.extraction.recipe == "from-clean" and signature.config.codec.bits == 4
    figure = (out / "alpha.png").read_bytes()
    assert figure.startswith(b"\x89PNG") and (out / "signature" / "figures" / "alpha.png").read_bytes() == figure
    card = (out / "signature" / "README.md").read_text("utf-8")
    assert "figures/alpha.png" in card and "rws demo --seeds 2" in card
    for name in ("clean", "user"):
        assert plan_patch(out / f"{name}.safetensors", signature).ok
    sizes = data["seeds"][0]["sizes"]
    assert sizes["checkpoint"] == (out / "clean.safetensors").stat().st_size
    assert sizes["config"] + sizes["payload"] == signature.nbytes


def test_results_are_those_of_the_first_seed(ran: tuple[Path, dict[str, Any]]) -> None:
    out, data = ran
    results = read_results(out / "signature")
    assert results is not None
    assert results.payload_sha256 == RobustWeightSignature.from_pretrained(out / "signature").config.payload.sha256
    assert results.evaluations[0].target == "standard" and len(results.evaluations) == 3
    for evaluation, target in zip(results.evaluations, data["seeds"][0]["targets"], strict=True):
        assert (evaluation.images, evaluation.seed, evaluation.severity) == (40, 0, 5)
        assert evaluation.clean.unpatched == target["before"]["clean"]
        assert evaluation.corrupted.patched == target["patched"]["noisy"]
        assert evaluation.corrupted.robust == data["seeds"][0]["robust"]["noisy"]


def test_what_is_measured(ran: tuple[Path, dict[str, Any]]) -> None:
    _, data = ran
    assert data["restored"] is True and data["url"] is None and len(data["seeds"]) == 2
    for seed in data["seeds"]:
        assert [t["who"] for t in seed["targets"]] == ["own", "user", "stranger"]
        assert [t["kin"] for t in seed["targets"]] == [True, True, False]
        assert all(t["after"] == t["before"] and t["restored"] for t in seed["targets"])
        own, user, _ = seed["targets"]
        assert seed["sweep"] == [[0.0, user["before"]], [1.0, user["patched"]]]
        assert own["similarity"] == pytest.approx(1, abs=0.01)
    noisy = [s["targets"][1]["patched"]["noisy"] for s in data["seeds"]]
    summary = data["summary"]["user"]["patched"]["noisy"]
    assert summary["mean"] == pytest.approx(sum(noisy) / 2)
    assert summary["sd"] == pytest.approx(abs(noisy[0] - noisy[1]) / math.sqrt(2))


def test_same_seed_same_numbers(ran: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    out, data = ran
    torch.manual_seed(5)
    np.random.seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    state = np.random.get_state()[1].tolist()
    run_demo(tmp_path / "again", seeds=1, settings=MINIATURE)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert np.random.get_state()[1].tolist() == state
    for name in ("signature/rws.safetensors", "signature/config.json", "user.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    shown = capsys.readouterr()
    assert f"from_pretrained({str(tmp_path / 'again' / 'signature')!r})" in shown.out
    assert "1 seed" in shown.out and "±" not in shown.out and "%|" not in shown.out
    assert "seed 1/1, training the clean model" in shown.err
    assert f"{100 * data['seeds'][0]['targets'][1]['patched']['noisy']:.1f}" in shown.out


def test_published_with_its_figure(
    hub: Hub, hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.alice)
    options = ["--seeds", "1", "--push", "alice/digits", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("rws_hub.demo.DemoSettings", lambda: MINIATURE)
    assert cli.main(["demo", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Published: {hub.url}/alice/digits/commit/")
    local = tmp_path / "out" / "signature"
    found = RobustWeightSignature.from_pretrained("alice/digits")
    assert found.config == RobustWeightSignature.from_pretrained(local).config
    _, files = pull("alice/digits")
    assert files["figures/alpha.png"] == (local / "figures" / "alpha.png").read_bytes()
    assert files["results.json"] == (local / "results.json").read_bytes()


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as a seed begins."""

    def refuse(*_: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(story, "run_seed", refuse)


def test_refuses_an_existing_folder(tmp_path: Path, no_training: None, capsys: Any) -> None:
    with pytest.raises(ArtifactError, match="exists already; choose another folder"):
        run_demo(tmp_path)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["timm", "sklearn", "matplotlib", "plotext"])
def test_names_what_is_not_installed(
    module: str, tmp_path: Path, no_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(RWSError, match=re.escape("pip install 'rws-hub[demo]'")):
        run_demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("seeds", "push_to"), [(0, None), (-1, None), (1, "digits"), (1, "a/../b")])
def test_refuses_before_training(seeds: int, push_to: str | None, tmp_path: Path, no_training: None) -> None:
    with pytest.raises(RWSError, match=r"at least 1|not a Hub id"):
        run_demo(tmp_path / "out", seeds=seeds, push_to=push_to)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, no_training: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run_demo(tmp_path / "file" / "out")


def test_failure_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(story, "run_seed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", settings=MINIATURE)
    assert not (tmp_path / "out").exists()


def test_importing_is_light() -> None:
    heavy = {"torch", "numpy", "timm", "sklearn", "matplotlib", "plotext", "rich", "tqdm"}
    code = "import sys, rws_hub.demo; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not heavy & {name.partition(".")[0] for name in loaded.split()}


def test_helps() -> None:
    text = text_of()
    assert "On the user's model the patch raises noisy accuracy from 60.0 to 90.0% (+30.0 points)" in text
    assert "lowers clean accuracy from 99.0 to 98.0% (-1.0 points)" in text
    assert "only 33% of what the user's model gains: a signature is for kin" in text
    assert "does not help" not in text and "one seed, so no spread is known" in text
    assert "bit for bit, on 3 of 3 models" in text
    assert "alpha 1 is best on noisy images" in text
    assert "24.0 times smaller than the checkpoint" in text


def test_splits_are_disjoint_and_even() -> None:
    settings = DemoSettings(side=8)
    splits = load_splits(settings, 3)
    assert [len(s) for s in (splits.base, splits.user, splits.test)] == [700, 500, 597]
    for part in (splits.base, splits.user, splits.test):
        counts = np.bincount(part.labels)
        assert len(counts) == 10 and counts.max() - counts.min() <= 0.1 * counts.mean()
    everything = np.concatenate([s.pixels.reshape(len(s), -1) for s in (splits.base, splits.user, splits.test)])
    assert len(np.unique(everything, axis=0)) == len(everything) == 1797


def test_noise_and_shift() -> None:
    grey = np.full((50, 24, 24), 128, np.uint8)
    noise = add_noise(grey, np.random.default_rng(0)) / 255
    assert noise.min() == 0 and noise.max() == 1 and abs(noise.mean() - 0.5) < 0.01
    dot = np.zeros((200, 9, 9), np.uint8)
    dot[:, 4, 4] = 255
    places = {tuple(np.argwhere(picture)[0]) for picture in shift(dot, 2, np.random.default_rng(0))}
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}


def test_training_leaves_its_start_alone() -> None:
    model = build_model(MINIATURE, 0)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    images = load_splits(MINIATURE, 0).base
    steps: list[None] = []
    with one_thread():
        trained = train(
            model, images, ONCE, MINIATURE, np.random.default_rng(0), lambda: steps.append(None), noisy_share=0.5
        )
        adapted = reestimate_batchnorm(trained, images.pixels[:16])
    assert len(steps) == 1 and not trained.training and not adapted.training
    assert same_bits(before, model.state_dict()) and not same_bits(before, trained.state_dict())
    changed = {n for n, t in trained.state_dict().items() if not torch.equal(t, adapted.state_dict()[n])}
    assert changed and all("running_" in n or "num_batches" in n for n in changed)


def test_same_bits_is_strict() -> None:
    assert same_bits({"a": torch.tensor([math.nan])}, {"a": torch.tensor([math.nan])})
    assert not same_bits({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])})
    assert not same_bits({"a": torch.tensor([0.0])}, {"b": torch.tensor([0.0])})
