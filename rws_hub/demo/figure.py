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
_CHARACTERS = {_CLEAN: "x", _NOISY: "o"}
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
    references = (
        ("robust twin of the clean model", "--", spread(stories, lambda s: s.robust.noisy)),
        (
            f"batch norm re-estimated on {bn_images} noisy images",
            ":",
            spread(stories, lambda s: s.target("user").batchnorm.noisy),
        ),
    )
    for name, style, noisy in references:
        label = f"{name}, {CORRUPTION}"
        axes.axhline(100 * noisy.mean, color=_COLOURS[_NOISY], linestyle=style, linewidth=1.2, label=label)
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


def alpha_text(stories: Sequence[SeedStory], width: int) -> str:
    """The same curves in characters, `width` columns wide; plain text, so that a pipe and a terminal show the same."""
    figure = plotext.figure
    figure.clear()
    try:
        figure.plot_size(width, _HEIGHT)
        curves = _curves(stories)
        for name, marker in _CHARACTERS.items():
            signal = figure.signal(_alphas(stories), [100 * c.mean for c in curves[name]], marker=marker)
            signal.lines()
            signal.label(name)
            figure.draw(signal)
        lowest = min(100 * c.mean for curve in curves.values() for c in curve)
        ticks = list(range(10 * min(int(lowest // 10), 9), 101, 10))
        figure.ruler("y").lim(ticks[0], ticks[-1])
        figure.ruler("y").ticks(ticks, [str(t) for t in ticks])
        figure.ruler("x").ticks(_alphas(stories), [f"{a:g}" for a in _alphas(stories)])
        figure.title("Top-1 accuracy of the user's model, %")
        figure.label("patch strength alpha", "x")
        figure.legend(x=_alphas(stories)[-1], y=ticks[0], ha="right", va="bottom", relative=True)
        text = str(plotext.uncolorize(figure.build()))
        return "\n".join(line.rstrip() for line in text.rstrip().splitlines())
    finally:
        figure.clear()


def _alphas(stories: Sequence[SeedStory]) -> list[float]:
    return [alpha for alpha, _ in stories[0].sweep]


def _curves(stories: Sequence[SeedStory]) -> dict[str, list[Spread]]:
    return {
        _CLEAN: _curve(stories, lambda score: score.clean),
        _NOISY: _curve(stories, lambda score: score.noisy),
    }


def _curve(stories: Sequence[SeedStory], side: Callable[[Score], float]) -> list[Spread]:
    def at(i: int) -> Spread:
        return spread(stories, lambda s: side(s.sweep[i][1]))

    return [at(i) for i in range(len(stories[0].sweep))]
