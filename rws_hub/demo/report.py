"""What a person sees at the end: tables, the plot and the findings. `report_data` is the same for machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rws_hub.demo.figure import alpha_text
from rws_hub.demo.findings import NAMES, findings
from rws_hub.demo.records import Score, SeedStory, Spread, TargetStory, Who, spread
from rws_hub.demo.settings import CORRUPTION, SEVERITY, DemoSettings
from rws_hub.jsonio import to_json

_WIDEST_PLOT = 80
_COLUMNS: dict[str, Callable[[TargetStory], Score]] = {
    "before": lambda t: t.before,
    "patched": lambda t: t.patched,
    "patched, two-branch": lambda t: t.two_branch,
    "batch norm re-estimated": lambda t: t.batchnorm,
}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the demo has to tell.

    Attributes:
        stories: one a seed, at least one.
        settings: what was run.
        out: the folder that was written.
        url: where the signature was published, if it was.
        seconds: total wall time.
    """

    stories: tuple[SeedStory, ...]
    settings: DemoSettings
    out: Path
    url: str | None
    seconds: float


def report_data(report: Report) -> dict[str, Any]:
    """The JSON form. Accuracies are fractions from 0 to 1, sizes bytes, times seconds."""
    stories = report.stories
    summary = {
        who: {
            key: _both(stories, lambda s, who=who, key=key: getattr(s.target(who), key))  # type: ignore[misc]
            for key in ("before", "patched", "two_branch", "batchnorm", "after")
        }
        for who in NAMES
    }
    return {
        "out": str(report.out),
        "signature": str(report.out / "signature"),
        "figure": str(report.out / "alpha.png"),
        "url": report.url,
        "seconds": round(report.seconds, 1),
        "corruption": CORRUPTION,
        "severity": SEVERITY,
        "settings": to_json(report.settings),
        "summary": summary
        | {
            "robust": _both(stories, lambda s: s.robust),
            "two_branch_robust": _both(stories, lambda s: s.two_branch_robust),
        },
        "restored": all(t.restored for s in stories for t in s.targets),
        "findings": list(findings(stories, report.settings.bn_images)),
        "seeds": to_json(stories),
    }


def print_report(report: Report, console: Console) -> None:
    """Print the whole report."""
    stories = report.stories
    console.print(_accuracies(stories))
    console.print(_kinship(stories))
    console.print(_sizes(stories[0]))
    width = min(console.width, _WIDEST_PLOT)
    plot = alpha_text(stories, width, colour=console.is_terminal and not console.no_color)
    # The plot is drawn in characters that an old code page may lack; a "?" is better than a crash at the end.
    encoding = console.encoding
    console.print(Text.from_ansi(plot.encode(encoding, "replace").decode(encoding)), no_wrap=True, crop=False)
    for finding in findings(stories, report.settings.bn_images):
        console.print(Text(f"\n{finding}"))
    console.print()
    _print_use(report, console)


def _accuracies(stories: Sequence[SeedStory]) -> Table:
    seeds = "1 seed" if len(stories) == 1 else f"mean ± sd of {len(stories)} seeds"
    table = Table(title=f"Top-1 accuracy, % ({seeds}, {stories[0].images} test images)", title_justify="left")
    table.add_column("model")
    table.add_column("images")
    for name in _COLUMNS:
        table.add_column(name, justify="right", min_width=8)
    for who, label in NAMES.items():
        for i, side in enumerate(("clean", "noisy")):
            cells = [
                _cell(spread(stories, lambda s, take=take: getattr(take(s.target(who)), side)))  # type: ignore[misc]  # noqa: B023
                for take in _COLUMNS.values()
            ]
            table.add_row("" if i else label, side, *cells, end_section=bool(i))
    twins: dict[str, Callable[[SeedStory], Score]] = {
        "robust twin": lambda s: s.robust,
        "two-branch twin": lambda s: s.two_branch_robust,
    }
    for label, take_twin in twins.items():
        for i, side in enumerate(("clean", "noisy")):
            cell = _cell(spread(stories, lambda s: getattr(take_twin(s), side)))  # noqa: B023
            table.add_row("" if i else label, side, cell, end_section=bool(i))
    return table


def _kinship(stories: Sequence[SeedStory]) -> Table:
    table = Table(title="The plan's verdict, and what taking the patch off left behind", title_justify="left")
    for name in ("model", "kinship, by the plan", "noisy after", "restored"):
        table.add_column(name, justify="right" if name == "noisy after" else "left")
    for who, label in NAMES.items():
        told = [s.target(who) for s in stories]
        after = spread(stories, lambda s, who=who: s.target(who).after.noisy)  # type: ignore[misc]
        restored = "bit for bit: yes" if all(t.restored for t in told) else "bit for bit: NO"
        table.add_row(label, _verdict(told), _cell(after), restored)
    return table


def _verdict(told: Sequence[TargetStory]) -> str:
    """The plan's words where all seeds agree, with the range of their similarities."""
    similar = [t.similarity for t in told if t.similarity is not None]
    if len({t.kin for t in told}) > 1 or not similar:
        return "; ".join(t.kinship for t in told)
    low, high = f"{min(similar):.2f}", f"{max(similar):.2f}"
    found = low if low == high else f"{low} to {high}"
    return f"{'kin' if told[0].kin else 'a stranger: do not expect it to help'} (similarity {found})"


def _sizes(story: SeedStory) -> Table:
    sizes = story.sizes
    table = Table(title="Bytes on disk", title_justify="left")
    table.add_column("what")
    table.add_column("bytes", justify="right")
    table.add_column("of artifact", justify="right")
    rows = {
        f"artifact, {sizes.bits} bits (config and payload)": sizes.artifact,
        "  of it payload": sizes.payload,
        "the same signature's payload in fp32": sizes.float32_payload,
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


def _print_use(report: Report, console: Console) -> None:
    signature = report.out / "signature"
    console.print(Text(f"The signature is in {signature}, the plot in {report.out / 'alpha.png'}."), soft_wrap=True)
    if report.url is not None:
        console.print(Text(f"Published: {report.url}"), soft_wrap=True)
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


def _both(stories: Sequence[SeedStory], take: Callable[[SeedStory], Score]) -> dict[str, Any]:
    return {
        "clean": to_json(spread(stories, lambda s: take(s).clean)),
        "noisy": to_json(spread(stories, lambda s: take(s).noisy)),
    }


def _cell(value: Spread) -> str:
    return f"{100 * value.mean:.1f}" + ("" if value.sd is None else f"±{100 * value.sd:.1f}")
