"""Classes under the names by which they are shown: what the API answers, with its classes named for persons.

``names`` are the ``class_names`` of ``/info``. A class that they lack, such as one of an earlier model, keeps its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")


def shown_name(label: str, names: Mapping[str, str]) -> str:
    """Return the name by which a class is shown."""
    return names.get(label, label)


def name_keys(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """Return values by class."""
    return {shown_name(label, names): value for label, value in values.items()}


def name_rows(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows whose ``label`` is a class."""
    return [{**row, "label": shown_name(row["label"], names)} for row in rows]


def name_prediction(prediction: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return an answer of ``/predict``."""
    members = prediction["prediction_set"]
    return {
        **prediction,
        "predicted_class": shown_name(prediction["predicted_class"], names),
        "probabilities": name_keys(prediction["probabilities"], names),
        "prediction_set": None if members is None else [shown_name(label, names) for label in members],
    }


def name_evaluation(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return an evaluation or a model's facts: the classes, the metrics of each, and the curves of each."""
    named = dict(evaluation)
    named["classes"] = [shown_name(label, names) for label in evaluation["classes"]]
    endings = {
        f"{label}{limit}": f"{shown_name(label, names)}{limit}"
        for limit in ("_low", "_high", "")  # so that a class whose own name ends like that comes last
        for label in evaluation["classes"]
    }
    named["metrics"] = {_name_metric(key, endings): value for key, value in evaluation.get("metrics", {}).items()}
    if curves := evaluation.get("curves"):
        named["curves"] = {**curves, **{kind: name_keys(curves[kind], names) for kind in ("roc", "pr")}}
    return named


def _name_metric(key: str, endings: Mapping[str, str]) -> str:
    """Return the key of a metric, such as ``test/f1/glioma_low``."""
    *first, ending = key.split("/", 2)
    return "/".join([*first, endings.get(ending, ending)]) if len(first) > 1 else key


def name_statistics(stats: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the answer of ``/dataset/stats``."""
    groups, leakage = stats["duplicates"], stats["leakage"]
    return {
        **stats,
        "classes": name_rows(stats["classes"], names),
        "brightness": name_rows(stats["brightness"], names),
        "duplicates": {**groups, "classes": name_keys(groups["classes"], names)},
        "leakage": None if leakage is None else {**leakage, "per_class": name_keys(leakage["per_class"], names)},
    }
