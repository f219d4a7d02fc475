"""How good a model is: its scores with intervals, class by class, its mistakes, its curves and its calibration."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from serve.ui.charts import model_charts
from serve.ui.components import figure
from serve.ui.screens.predict import table
from serve.ui.text import model_findings
from serve.ui.text.model_findings import metric, written_interval
from serve.ui.text.sentences import plain, spreadsheet

# Title, and whether more is better.
_HEADLINE = {
    "acc": ("Accuracy", True),
    "balanced_acc": ("Balanced accuracy", True),
    "precision_macro": ("Precision, macro", True),
    "recall_macro": ("Recall, macro", True),
    "f1_macro": ("F1, macro", True),
    "roc_auc": ("ROC-AUC, macro", True),
    "pr_auc": ("PR-AUC, macro", True),
    "nll": ("Log-loss", False),
    "brier": ("Brier score", False),
    "ece": ("Calibration error", False),
}
_TILES = ("acc", "f1_macro", "roc_auc", "ece")
_PER_CLASS = {"precision": "Precision", "recall": "Recall", "f1": "F1", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
_LOWEST = "with the lowest F1"
_CURVES = {"roc": "ROC curves", "pr": "Precision and recall"}


def show(evaluation: Mapping[str, Any]) -> None:
    """Show everything that was measured."""
    show_headline(evaluation, model_findings.headline(evaluation))
    for note in evaluation["notes"]:
        st.warning(plain(note))
    images = {name: sum(row) for name, row in zip(evaluation["classes"], evaluation["confusion_matrix"], strict=True)}
    show_classes(evaluation, images)
    _show_confusion(evaluation)
    if evaluation.get("curves"):
        _show_curves(evaluation)
    else:
        st.info("This model's evaluation kept no curves; its report has them drawn.")


def show_headline(evaluation: Mapping[str, Any], sentence: str = "") -> None:
    """Show the headline scores on the test split, each with its 95 % interval; ``metrics`` alone are enough."""
    st.header("How good it is")
    scores = {name: score for name in _HEADLINE if (score := metric(evaluation, name)) is not None}
    if not scores:
        st.markdown("This model came without scores.")
        return
    if sentence:
        st.markdown(plain(sentence))
    with st.container(horizontal=True):
        for name in (name for name in _TILES if name in scores):
            title, value, around = _HEADLINE[name][0], f"{scores[name]:.3f}", written_interval(evaluation, name)
            st.metric(title, value, around or None, "off", width=165, border=True, delta_arrow="off")
    rows = [
        {
            "Score": _HEADLINE[name][0],
            "Value": f"{score:.3f}",
            "95 % interval": written_interval(evaluation, name),
            "Better": "higher" if _HEADLINE[name][1] else "lower",
            "Meaning": plain(evaluation.get("definitions", {}).get(name, "")),
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
        | {words: metric(evaluation, f"{key}/{name}") for key, words in _PER_CLASS.items()}
        for name in evaluation["classes"]
    ]
    shown = table.first(rows, lambda row: model_findings.lowest(row["F1"]))
    scores = pd.DataFrame(shown).dropna(axis="columns", how="all")
    if len(scores.columns) == 1:
        return
    st.subheader("Class by class")
    columns = {words: st.column_config.NumberColumn(format="%.3f") for words in _PER_CLASS.values()}
    st.dataframe(scores, hide_index=True, column_config=columns, alt="Scores of each class")
    if len(shown) < len(rows):
        st.caption(table.cut(len(shown), len(rows), _LOWEST))
        st.download_button("Download all as CSV", spreadsheet(rows), "classes.csv", "text/csv", on_click="ignore")


def _show_confusion(evaluation: Mapping[str, Any]) -> None:
    """Show what was taken for what, as counts and as shares of the class."""
    classes, answers, matrix = model_findings.confusions(evaluation)
    note = table.cut(len(classes), len(evaluation["classes"]), _LOWEST)
    chart = model_charts.confusion(matrix, classes, answers)
    figure(chart, "Confusion matrix", model_findings.weakest(evaluation), note)
    with st.expander("The same as tables"):
        counts = pd.DataFrame(matrix, index=classes, columns=answers).rename_axis("Labelled")
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        st.caption("Images of each class (rows) by the class that was predicted (columns).")
        st.dataframe(counts, alt="Confusion matrix in images")
        st.caption("The same as shares of the class.")
        percents = {name: st.column_config.NumberColumn(format="percent") for name in answers}
        st.dataframe(shares, column_config=percents, alt="Confusion matrix in shares")


def _show_curves(evaluation: Mapping[str, Any]) -> None:
    places = st.columns(2, gap="large")
    for place, (kind, title) in zip(places, _CURVES.items(), strict=True):
        found = evaluation["curves"][kind]
        shown = model_findings.worst_classes(evaluation, kind, model_charts.MOST_CURVES)
        with place:
            figure(model_charts.curves(found, kind, shown), title, model_findings.ranking(evaluation, kind))
            if len(shown) < len(found):
                st.caption(f"The {len(shown)} classes that fare worst, of {len(found)}.")
    chart = model_charts.reliability(evaluation["curves"]["reliability"])
    figure(chart, "Reliability", model_findings.calibration(evaluation))
