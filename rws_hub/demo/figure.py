"""The alpha sweep as a picture: PNG for the artifact, characters for the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import plotext
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rws_hub.demo.records import Score, SeedStory, Spread, spread
from rws_hub.demo.settings import CORRUPTION, SEVERITY

_NOISY, _CLEAN = f"{CORRUPTION}, severity {SEVERITY}", "clean"
# Blue and vermilion: far apart for colour-blind eyes, and in grey too.
_COLOURS = {_CLEAN: "#0072B2", _NOISY: "#D55E00"}
_TERMINAL_COLOURS = {_CLEAN: "blue+", _NOISY: "orange+"}
_MARKERS = {_CLEAN: "o", _NOISY: "s"}
_HEIGHT = 16


def alpha_png(stories: Sequence[SeedStory], bn_images: int) -> bytes:
    """Accuracy of the user's model against patch strength, mean and standard deviation over seeds."""
    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    alphas = _alphas(stories)
    for name, curve in _curves(stories).items():
        means = [100 * c.mean for c in curve]
        axes.plot(alphas, means, color=_COLOURS[name], marker=_MARKERS[name], label=f"patched, {name}")
        if len(stories) > 1:
            low, high = zip(*((100 * (c.mean - (c.sd or 0)), 100 * (c.mean + (c.sd or 0))) for c in curve), strict=True)
            axes.fill_between(alphas, low, high, color=_COLOURS[name], alpha=0.15, linewidth=0)
    references: dict[str, tuple[str, Callable[[SeedStory], Score]]] = {
        "robust twin of the clean model": ("--", lambda s: s.robust),
        f"batch norm re-estimated on {bn_images} noisy images": (":", lambda s: s.target("user").batchnorm),
    }
    for name, (style, take) in references.items():
        noisy = 100 * spread(stories, lambda s, take=take: take(s).noisy).mean  # type: ignore[misc]
        axes.axhline(noisy, color=_COLOURS[_NOISY], linestyle=style, linewidth=1.2, label=f"{name}, {CORRUPTION}")
    axes.set_xlabel("patch strength alpha (0: the user's model as it is)")
    axes.set_ylabel("top-1 accuracy on the test images, %")
    axes.set_xticks(alphas)
    axes.set_ylim(top=101)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    seeds = "1 seed" if len(stories) == 1 else f"mean ± standard deviation of {len(stories)} seeds"
    axes.set_title(f"The user's model, patched ({seeds})", fontsize=11)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def alpha_text(stories: Sequence[SeedStory], width: int, colour: bool) -> str:
    """The same curves in characters, `width` columns wide."""
    plotext.clear_figure()
    try:
        plotext.plotsize(width, _HEIGHT)
        plotext.theme("clear")
        for marker, (name, curve) in zip("x*", _curves(stories).items(), strict=True):
            # A line of dots, and a letter where something was measured: readable without colours too.
            points = _alphas(stories), [100 * c.mean for c in curve]
            plotext.plot(*points, marker="dot", color=_TERMINAL_COLOURS[name])
            plotext.scatter(*points, marker=marker, color=_TERMINAL_COLOURS[name], label=name)
        plotext.xticks(_alphas(stories), [f"{a:g}" for a in _alphas(stories)])
        plotext.title("top-1 accuracy of the user's model, %")
        plotext.xlabel("patch strength alpha")
        text: str = plotext.build()
        return text if colour else str(plotext.uncolorize(text))
    finally:
        plotext.clear_figure()


def _alphas(stories: Sequence[SeedStory]) -> list[float]:
    return [alpha for alpha, _ in stories[0].sweep]


def _curves(stories: Sequence[SeedStory]) -> dict[str, list[Spread]]:
    def curve(take: Callable[[Score], float]) -> list[Spread]:
        points = range(len(stories[0].sweep))
        return [spread(stories, lambda s, i=i: take(s.sweep[i][1])) for i in points]  # type: ignore[misc]

    return {_CLEAN: curve(lambda score: score.clean), _NOISY: curve(lambda score: score.noisy)}
