"""How good a model is: its scores with intervals, class by class, its mistakes, its curves and its calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from serve.ui import model_charts, model_findings
from serve.ui.blocks import figure
from serve.ui.words import plain

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
_CURVES = {"roc": "ROC curves", "pr": "Precision and recall"}


def show(evaluation: Mapping[str, Any]) -> None:
    """Show everything that was measured."""
    show_headline(evaluation["metrics"], evaluation["definitions"], model_findings.headline(evaluation))
    for note in evaluation["notes"]:
        st.warning(plain(note))
    images = {name: sum(row) for name, row in zip(evaluation["classes"], evaluation["confusion_matrix"], strict=True)}
    show_classes(evaluation["metrics"], evaluation["classes"], images)
    _show_confusion(evaluation)
    if evaluation.get("curves"):
        _show_curves(evaluation)
    else:
        st.info("This model's evaluation kept no curves; its report has them drawn.")


def show_headline(metrics: Mapping[str, Any], definitions: Mapping[str, str] | None = None, sentence: str = "") -> None:
    """Show the headline scores on the test split, each with its 95 % interval."""
    st.header("How good it is")
    known = [name for name in _HEADLINE if metrics.get(f"test/{name}") is not None]
    if not known:
        st.markdown("This model came without scores.")
        return
    if sentence:
        st.markdown(plain(sentence))
    with st.container(horizontal=True):
        for name in (name for name in _TILES if name in known):
            title, value, around = _HEADLINE[name][0], _score(metrics, name), _interval(metrics, name)
            st.metric(title, value, around or None, "off", width=165, border=True, delta_arrow="off")
    rows = [
        {
            "Score": _HEADLINE[name][0],
            "Value": _score(metrics, name),
            "95 % interval": _interval(metrics, name),
            "Better": "higher" if _HEADLINE[name][1] else "lower",
            "Meaning": plain((definitions or {}).get(name, "")),
        }
        for name in known
    ]
    with st.expander("All scores"):
        st.table(pd.DataFrame(rows).set_index("Score"), alt="All scores with their intervals")


def show_classes(metrics: Mapping[str, Any], classes: Sequence[str], images: Mapping[str, int] | None = None) -> None:
    """Show each class's scores."""
    rows = [
        {"Class": name}
        | ({} if images is None else {"Test images": images[name]})
        | {words: metrics.get(f"test/{key}/{name}") for key, words in _PER_CLASS.items()}
        for name in classes
    ]
    table = pd.DataFrame(rows).dropna(axis="columns", how="all")
    if len(table.columns) == 1:
        return
    st.subheader("Class by class")
    shown = {words: st.column_config.NumberColumn(format="%.3f") for words in _PER_CLASS.values()}
    st.dataframe(table, hide_index=True, column_config=shown, alt="Scores of each class")


def _show_confusion(evaluation: Mapping[str, Any]) -> None:
    """Show what was taken for what, as counts and as shares of the class."""
    classes, matrix = evaluation["classes"], evaluation["confusion_matrix"]
    figure(model_charts.confusion(matrix, classes), "Confusion matrix", model_findings.weakest(evaluation))
    with st.expander("The same as tables"):
        counts = pd.DataFrame(matrix, index=classes, columns=classes).rename_axis("Labelled")
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        st.caption("Images of each class (rows) by the class that was predicted (columns).")
        st.dataframe(counts, alt="Confusion matrix in images")
        st.caption("The same as shares of the class.")
        percents = {name: st.column_config.NumberColumn(format="percent") for name in classes}
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


def _score(metrics: Mapping[str, Any], name: str) -> str:
    return f"{metrics[f'test/{name}']:.3f}"


def _interval(metrics: Mapping[str, Any], name: str) -> str:
    low, high = metrics.get(f"test/{name}_low"), metrics.get(f"test/{name}_high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
