"""What a person sees at the end: tables, the plot and the findings. `report_data` is the same for machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rws_hub.demo.figure import alpha_text
from rws_hub.demo.findings import findings
from rws_hub.demo.records import Score, SeedStory, Spread, TargetStory, Who, spread
from rws_hub.demo.settings import CORRUPTION, SEVERITY, DemoSettings
from rws_hub.jsonio import to_json

_WIDEST_PLOT = 80
_LABELS: dict[Who, str] = {"own": "clean model", "user": "user's model", "stranger": "stranger"}
_SCORES: dict[str, Callable[[TargetStory], Score]] = {
    "before": lambda t: t.before,
    "patched": lambda t: t.patched,
    "two_branch": lambda t: t.two_branch,
    "batchnorm": lambda t: t.batchnorm,
    "after": lambda t: t.after,
}
# Column of the first table -> what stands in it; "after" has a table of its own.
_COLUMNS = {
    "before": "before",
    "patched": "patched",
    "patched, two-branch": "two_branch",
    "batch norm re-estimated": "batchnorm",
}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the demo has to tell.

    Attributes:
        stories: one a seed, at least one.
        settings: what was run.
        out: the folder that was written.
        seconds: total wall time.
    """

    stories: tuple[SeedStory, ...]
    settings: DemoSettings
    out: Path
    seconds: float


def report_data(report: Report, url: str | None) -> dict[str, Any]:
    """The JSON form; `url` is where the signature was published. Fractions from 0 to 1, bytes, seconds."""
    stories = report.stories
    return {
        "out": str(report.out),
        "signature": str(report.out / "signature"),
        "figure": str(report.out / "alpha.png"),
        "url": url,
        "seconds": round(report.seconds, 1),
        "corruption": CORRUPTION,
        "severity": SEVERITY,
        "settings": to_json(report.settings),
        "summary": {
            **{who: {key: _target_data(stories, who, take) for key, take in _SCORES.items()} for who in _LABELS},
            "robust": _data(stories, lambda s: s.robust),
            "two_branch_robust": _data(stories, lambda s: s.two_branch_robust),
        },
        "restored": all(t.restored for s in stories for t in s.targets),
        "findings": list(findings(stories, report.settings.bn_images)),
        "seeds": to_json(stories),
    }


def print_report(report: Report, console: Console) -> None:
    """Print the whole report."""
    stories = report.stories
    for table in (_accuracies(stories), _kinship(stories), _sizes(stories[0])):
        console.print(table)
        console.print()
    width = min(console.width, _WIDEST_PLOT)
    plot = alpha_text(stories, width)
    # The plot is drawn in characters that an old code page may lack; a "?" is better than a crash at the end.
    encoding = console.encoding
    console.print(Text(plot.encode(encoding, "replace").decode(encoding)), no_wrap=True, crop=False)
    for finding in findings(stories, report.settings.bn_images):
        console.print(Text(f"\n{finding}"))
    console.print()
    _print_use(report, console)


def _accuracies(stories: Sequence[SeedStory]) -> Table:
    seeds = "1 seed" if len(stories) == 1 else f"mean ± sd of {len(stories)} seeds"
    table = _table(f"Top-1 accuracy, % ({seeds}, {stories[0].images} test images)")
    table.add_column("model")
    table.add_column("images")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for who, label in _LABELS.items():
        _add_pair(table, label, [_target_cells(stories, who, _SCORES[key]) for key in _COLUMNS.values()])
    _add_pair(table, "robust twin", [_cells(stories, lambda s: s.robust)])
    _add_pair(table, "two-branch twin", [_cells(stories, lambda s: s.two_branch_robust)])
    return table


def _add_pair(table: Table, label: str, pairs: Sequence[tuple[str, str]]) -> None:
    table.add_row(label, "clean", *(clean for clean, _ in pairs))
    table.add_row("", "noisy", *(noisy for _, noisy in pairs), end_section=True)


def _kinship(stories: Sequence[SeedStory]) -> Table:
    table = _table("Kinship by the plan; accuracy once the patch is off again, %")
    for name in ("model", "verdict", "similarity", "clean", "noisy", "bit for bit"):
        table.add_column(name, justify="right" if name in ("clean", "noisy") else "left")
    for who, label in _LABELS.items():
        told = [s.target(who) for s in stories]
        after = _target_cells(stories, who, _SCORES["after"])
        table.add_row(label, *_kin(told), *after, "yes" if all(t.restored for t in told) else "NO")
    return table


def _kin(told: Sequence[TargetStory]) -> tuple[str, str]:
    """The plan's verdict, seed by seed if they differ, and the range of its similarities."""
    words = {True: "kin", False: "a stranger", None: "unknown"}
    verdicts = [words[t.kin] for t in told]
    similar = sorted(t.similarity for t in told if t.similarity is not None)
    ends = list(dict.fromkeys(f"{similarity:.2f}" for similarity in (similar[:1] + similar[-1:])))
    return ", ".join(verdicts if len(set(verdicts)) > 1 else verdicts[:1]), " to ".join(ends)


def _sizes(story: SeedStory) -> Table:
    sizes = story.sizes
    table = _table("Bytes on disk")
    table.add_column("what")
    table.add_column("bytes", justify="right")
    table.add_column("of artifact", justify="right")
    rows = {
        f"artifact, {sizes.bits:.2f} bits a weight (config and payload)": sizes.artifact,
        "  of it payload": sizes.payload,
        "the same signature in fp32, likewise": sizes.float32_artifact,
        "the clean model's checkpoint in fp32": sizes.checkpoint,
    }
    for what, size in rows.items():
        table.add_row(what, f"{size:,}", f"{size / sizes.artifact:.2f} x")
    bits = 8 * sizes.artifact / sizes.touched
    table.caption = (
        f"{bits:.2f} bits for each of {sizes.touched:,} touched parameters ({sizes.touched / sizes.body:.0%} of the "
        f"body: {', '.join(sizes.layers)}, {len(sizes.layers)} of {sizes.layers_total} layers)"
    )
    table.caption_justify = "left"
    return table


def _table(title: str) -> Table:
    # No frame: it would cost the columns that keep the numbers on one line in a terminal 80 wide.
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))


def _print_use(report: Report, console: Console) -> None:
    signature = report.out / "signature"
    console.print(Text(f"The signature is in {signature}, the plot in {report.out / 'alpha.png'}."), soft_wrap=True)
    console.print("In Python:\n")
    lines = (
        "from rws_hub import RobustWeightSignature, patch",
        f"signature = RobustWeightSignature.from_pretrained({str(signature)!r})",
        "with patch(model, signature): outputs = model(images)",
    )
    for line in lines:
        console.print(Text(f"    {line}"), soft_wrap=True)
    checkpoint = report.out / "user.safetensors"
    console.print(Text(f"\nOn a file: rws check {signature} {checkpoint}"), soft_wrap=True)
    console.print(f"Total time: {report.seconds:.0f} s")


def _data(stories: Sequence[SeedStory], take: Callable[[SeedStory], Score]) -> dict[str, Any]:
    clean, noisy = _spreads(stories, take)
    return {"clean": to_json(clean), "noisy": to_json(noisy)}


def _target_data(stories: Sequence[SeedStory], who: Who, take: Callable[[TargetStory], Score]) -> dict[str, Any]:
    return _data(stories, lambda s: take(s.target(who)))


def _cells(stories: Sequence[SeedStory], take: Callable[[SeedStory], Score]) -> tuple[str, str]:
    clean, noisy = _spreads(stories, take)
    return _cell(clean), _cell(noisy)


def _target_cells(stories: Sequence[SeedStory], who: Who, take: Callable[[TargetStory], Score]) -> tuple[str, str]:
    return _cells(stories, lambda s: take(s.target(who)))


def _spreads(stories: Sequence[SeedStory], take: Callable[[SeedStory], Score]) -> tuple[Spread, Spread]:
    return spread(stories, lambda s: take(s).clean), spread(stories, lambda s: take(s).noisy)


def _cell(value: Spread) -> str:
    return f"{100 * value.mean:.1f}" + ("" if value.sd is None else f"±{100 * value.sd:.1f}")
