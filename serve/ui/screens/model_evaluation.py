"""How good a model is: scores with intervals, scores of each class, mistakes, curves and calibration."""

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
import streamlit as st

from lesion.evaluation import findings
from lesion.evaluation.findings import CLASS_TITLES, LOWER_IS_BETTER, TITLES, EvaluationRecord, metric
from serve.ui.charts import model_charts
from serve.ui.components import offer_csv, show_figure
from serve.ui.text import model_findings
from serve.ui.text.model_findings import LOWEST, format_interval
from serve.ui.text.sentences import escape_markdown, select_lowest, selection_note

_CHANCE = "The line through each point shows how far chance alone moves it if confidences are right (95 % of samples)."
_WITH_INTERVAL = ("precision", "recall", "specificity")
_TILES = ("acc", "f1_macro", "roc_auc", "ece")
_CURVES: dict[Literal["roc", "pr"], str] = {"roc": "ROC curves", "pr": "Precision and recall"}


def show(evaluation: EvaluationRecord) -> None:
    """Show everything that was measured."""
    show_headline(evaluation, findings.headline_finding(evaluation))
    for note in evaluation["notes"]:
        st.warning(escape_markdown(note))
    images = {name: sum(row) for name, row in zip(evaluation["classes"], evaluation["confusion_matrix"], strict=True)}
    show_classes(evaluation, images)
    _show_confusion(evaluation)
    if evaluation.get("curves"):
        _show_curves(evaluation)
    else:
        st.info("The evaluation of this model stored no curves; its report contains them.")


def show_headline(evaluation: Mapping[str, Any], sentence: str = "") -> None:
    """Show the scores on the test split, each with its 95 % interval; only ``metrics`` is required."""
    st.header("How good it is")
    scores = {name: score for name in TITLES if (score := metric(evaluation, name)) is not None}
    if not scores:
        st.markdown("This model came without scores.")
        return
    if sentence:
        st.markdown(escape_markdown(sentence))
    with st.container(horizontal=True):
        for name in (name for name in _TILES if name in scores):
            interval = format_interval(evaluation, name) or None
            st.metric(TITLES[name], f"{scores[name]:.3f}", interval, "off", width=165, border=True, delta_arrow="off")
    rows = [
        {
            "Score": TITLES[name],
            "Value": f"{score:.3f}",
            "95 % interval": format_interval(evaluation, name),
            "Per image": "" if (single := metric(evaluation, f"{name}_per_image")) is None else f"{single:.3f}",
            "Better": "lower" if name in LOWER_IS_BETTER else "higher",
            "Meaning": escape_markdown(evaluation.get("definitions", {}).get(name, "")),
        }
        for name, score in scores.items()
    ]
    with st.expander("All scores"):
        st.table(pd.DataFrame(rows).set_index("Score"), alt="All scores with their intervals")


def show_classes(evaluation: Mapping[str, Any], images: Mapping[str, int] | None = None) -> None:
    """Show each class's scores; of too many classes the worst, and all of them as a file."""
    rows = [
        {"Class": name}
        | ({} if images is None else {"Test images": images[name]})
        | {title: metric(evaluation, f"{score}/{name}") for score, title in CLASS_TITLES.items()}
        | {
            f"{CLASS_TITLES[score]}, 95 %": format_interval(evaluation, f"{score}/{name}") or None
            for score in _WITH_INTERVAL
        }
        for name in evaluation["classes"]
    ]
    selected, note = select_lowest(rows, lambda row: model_findings.low_first(row["F1"]), LOWEST)
    scores = pd.DataFrame(selected).dropna(axis="columns", how="all")
    if len(scores.columns) == 1:
        return
    st.subheader("Class by class")
    columns = {title: st.column_config.NumberColumn(format="%.3f") for title in CLASS_TITLES.values()}
    st.dataframe(scores, hide_index=True, column_config=columns, alt="Scores of each class")
    if note:
        st.caption(note)
        offer_csv("Download all as CSV", rows, "classes.csv")


def _show_confusion(evaluation: EvaluationRecord) -> None:
    classes, predicted, matrix, note = model_findings.confusions(evaluation)
    chart = model_charts.confusion(matrix, classes, predicted)
    show_figure(chart, "Confusion matrix", findings.weakest_finding(evaluation), note)
    with st.expander("The same as tables"):
        counts = pd.DataFrame(matrix, index=classes, columns=predicted).rename_axis("Labeled")
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        st.caption("Number of images of each class (rows) by predicted class (columns).")
        st.dataframe(counts, alt="Confusion matrix in images")
        st.caption("The same as shares of the class.")
        percents = {name: st.column_config.NumberColumn(format="percent") for name in predicted}
        st.dataframe(shares, column_config=percents, alt="Confusion matrix in shares")


def _show_curves(evaluation: EvaluationRecord) -> None:
    for column, (kind, title) in zip(st.columns(2, gap="large"), _CURVES.items(), strict=True):
        points = evaluation["curves"][kind]
        worst = model_findings.worst_classes(evaluation, kind, model_charts.MOST_CURVES)
        note = selection_note(len(worst), len(points), "with the worst curves")
        with column:
            show_figure(
                model_charts.curves(points, kind, worst), title, findings.ranking_finding(evaluation, kind), note
            )
    bins = evaluation["curves"]["reliability"]
    has_limits = any(row.get("low") is not None for rows in bins.values() for row in rows)
    chart = model_charts.reliability(bins)
    show_figure(chart, "Reliability", findings.calibration_finding(evaluation), _CHANCE if has_limits else "")
