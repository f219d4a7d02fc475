"""The report's figures, as Matplotlib figures without pyplot's global state, rendered to SVG.

In SVG the ink is ``currentColor`` and the background is clear, so that an inline figure has the page's colors, light
or dark. The colors of curves are Okabe and Ito's, which can be distinguished with any color vision.
"""

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lesion.core.palette import PALETTE
from lesion.evaluation.curves import Curve, precision_recall, roc
from lesion.evaluation.probabilities import Floats, Ints
from lesion.evaluation.reliability import Reliability

INK = "#1d2530"  # becomes currentColor in SVG
SHADE = (0.0, 0.447, 0.698)
CURVES = 6  # with more classes than this, the worst ones are drawn in color and the others in gray

_STYLE: Any = {
    "text.parse_math": False,  # a class may be called "$x$"
    "svg.fonttype": "none",
    "svg.hashsalt": "lesion",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has fonts for scripts that Matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def to_svg(figure: Figure, label: str, name: str) -> str:
    """Render a figure for use inside an HTML page; the ``label`` describes it to users who cannot see it.

    ``name`` begins its identifiers, which must differ between the figures of one page.
    """
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1).rstrip()


@_style()
def confusion_matrix(counts: Ints, classes: Sequence[str]) -> Figure:
    """Draw images by labeled (rows) and predicted class, shaded by their share of the row, ``(C, C)``."""
    size = len(classes)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = max(3.4, 1.7 + (0.7 if size <= 12 else 0.34) * size)
    figure = Figure(figsize=(side, side * 0.94))
    axes = figure.add_subplot()
    edges = np.arange(size + 1) - 0.5
    cells = np.empty((size, size, 4))
    cells[...] = (*SHADE, 0.0)
    cells[..., 3] = np.where(shares > 0, 0.06 + 0.94 * shares, 0)
    axes.pcolormesh(edges, edges, cells, edgecolors=(0.5, 0.5, 0.5, 0.25), linewidth=0.5)
    for row, column in np.ndindex(size, size) if size <= 40 else ():
        if counts[row, column] or size <= 12:
            text = f"{counts[row, column]:,}"
            if size <= 12 and totals[row, 0]:
                text += f"\n{shares[row, column]:.0%}"
            color = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8 if size <= 12 else 6)
    names = [_short(name) for name in classes]
    angle = 40 if size <= 12 else 90
    axes.set_xticks(range(size), names, rotation=angle, ha="right", va="center", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set(xlabel="Predicted", ylabel="Labeled", aspect="equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@_style()
def roc_curves(probabilities: Floats, labels: Ints, classes: Sequence[str]) -> Figure:
    """Draw each class's ROC curve against the rest; classes without both kinds of images are left out."""
    figure, axes = _square("False positive rate (1 − specificity)", "True positive rate (sensitivity)", len(classes))
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.35, linewidth=0.8, linestyle=":")
    _draw_curves(axes, roc(probabilities, labels), classes, "Area under the curve", "lower right")
    return figure


@_style()
def pr_curves(probabilities: Floats, labels: Ints, classes: Sequence[str]) -> Figure:
    """Draw each class's precision-recall curve against the rest; classes without images are left out."""
    figure, axes = _square("Recall (sensitivity)", "Precision (positive predictive value)", len(classes))
    curves = precision_recall(probabilities, labels)
    _draw_curves(axes, curves, classes, "Average precision", "lower left", drawstyle="steps-post")
    return figure


@_style()
def reliability_diagram(before: Reliability, after: Reliability, bars: Sequence[tuple[Floats, Floats]] = ()) -> Figure:
    """Draw accuracy against confidence, and the number of images by confidence, before and after calibration.

    ``bars`` are the limits, two ``(B,)`` for each of the two, within which a calibrated model's bins lie; or none.
    """
    figure = Figure(figsize=(7.2, 4.4))
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    width = 1 / len(before.count)
    for column, (title, data) in enumerate((("Before calibration", before), ("After calibration", after))):
        top, bottom = grid[0, column], grid[1, column]
        filled = data.count > 0
        middles = (data.edges[:-1] + data.edges[1:])[filled] / 2
        top.bar(middles, data.accuracy[filled], width * 0.92, color=PALETTE[0], label="Accuracy")
        top.plot(
            data.confidence[filled], data.confidence[filled], "D", color=PALETTE[1], markersize=4, label="Confidence"
        )
        if bars:
            low, high = (limit[filled] for limit in bars[column])
            top.vlines(middles, low, high, color=INK, linewidth=1.2, label="Chance alone")
        top.plot([0, 1], [0, 1], color=INK, alpha=0.5, linewidth=0.8, linestyle=":")
        top.set_title(title, loc="left")
        top.set(xlim=(0, 1), ylim=(0, 1.02))
        bottom.bar(middles, data.count[filled], width * 0.92, color=INK, alpha=0.45)
        bottom.set(xlabel="Confidence of the answer")
    grid[0, 0].set_ylabel("Share correct")
    grid[0, 0].legend(loc="upper left")
    grid[1, 0].set_ylabel("Images")
    return figure


@_style()
def class_distribution(images: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw how many images each class has in each split, from ``{split: {class: images}}``."""
    classes = list(dict.fromkeys(name for split in images.values() for name in split))
    figure = Figure(figsize=(5.2, max(1.8, 0.8 + 0.34 * len(classes))))
    axes = figure.add_subplot()
    left = np.zeros(len(classes))
    for split, color in zip(images, cycle(PALETTE), strict=False):
        counts = np.array([images[split].get(name, 0) for name in classes])
        axes.barh(range(len(classes)), counts, left=left, color=color, height=0.7, label=split, edgecolor="none")
        left += counts
    axes.set_yticks(range(len(classes)), [_short(name) for name in classes])
    axes.invert_yaxis()
    axes.set_xlabel("Images")
    axes.legend(ncols=min(len(images), 5), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, columnspacing=1)
    return figure


def learning_curves(path: Path) -> Figure | None:
    """Draw loss and scores by epoch from the ``metrics.csv`` of Lightning's CSV logger; None if it holds none."""
    series = _series(path)
    panels: list[tuple[str, list[str]]] = [
        ("Loss", [key for key in series if re.fullmatch(r"(train|val)/loss(_epoch)?", key)]),
        ("Validation score", [key for key in ("val/acc", "val/balanced_acc", "val/f1_macro") if key in series]),
    ]
    panels = [(title, keys) for title, keys in panels if keys]
    return _draw_series(series, panels) if panels else None


@_style()
def _draw_series(series: Mapping[str, "pd.Series[float]"], panels: list[tuple[str, list[str]]]) -> Figure:
    figure = Figure(figsize=(3.6 * len(panels), 2.9))
    for axes, (title, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for key, color, marker in zip(keys, PALETTE, "osD^v<", strict=False):
            axes.plot(series[key], color=color, marker=marker, markersize=3.5, label=key)
        axes.set_title(title, loc="left")
        axes.set_xlabel("Epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.2)
        axes.legend()
    return figure


def _series(path: Path) -> dict[str, "pd.Series[float]"]:
    """Return each logged metric by epoch, counted from 1; several values of an epoch are averaged."""
    means = pd.read_csv(path).replace([np.inf, -np.inf], np.nan).groupby("epoch").mean()
    means.index += 1
    series = {key: means[key].dropna() for key in means.columns if "/" in key}
    return {key: values for key, values in series.items() if len(values)}


def _square(xlabel: str, ylabel: str, classes: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 4.2 if classes <= CURVES else 6.1))  # with room for a legend below
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.grid(alpha=0.2)
    return figure, axes


def _draw_curves(
    axes: Axes,
    curves: Mapping[int, Curve],
    classes: Sequence[str],
    title: str,
    corner: Literal["lower left", "lower right"],
    drawstyle: Literal["default", "steps-post"] = "default",
) -> None:
    """Draw up to ``CURVES`` classes in color: all of them, or the worst among the others in gray."""

    def draw(c: int, **style: Any) -> None:  # noqa: ANN401 (Matplotlib's own)
        axes.plot(curves[c].x, curves[c].y, drawstyle=drawstyle, **style)

    worst = sorted(curves, key=lambda c: curves[c].area)
    named = sorted(curves) if len(curves) <= CURVES else worst[:CURVES]
    for c in worst[CURVES:] if len(curves) > CURVES else ():
        draw(c, color=INK, alpha=0.18, linewidth=0.8)
    for c, color, line in zip(named, PALETTE, ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))), strict=False):
        draw(c, color=color, linestyle=line, label=f"{_short(classes[c])}  {curves[c].area:.3f}")
    if len(curves) > CURVES:
        title += f", {CURVES} worst of {len(curves)}"
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), title=title, title_fontsize=8, alignment="left")
    elif named:
        axes.legend(loc=corner, title=title, title_fontsize=8, alignment="left")


def _short(name: str, length: int = 22) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
