"""What the API answers, with its classes under the names by which they are shown."""

from serve.ui.text.class_names import name_evaluation, name_prediction, name_statistics

NAMES = {"notumor": "No tumor", "a": "A", "a_low": "Lower A"}


def test_an_answer_names_its_classes_everywhere() -> None:
    prediction = {
        "predicted_class": "notumor",
        "confidence": 0.7,
        "probabilities": {"notumor": 0.7, "a": 0.2, "earlier": 0.1},
        "prediction_set": ["notumor", "a"],
    }
    assert name_prediction(prediction, NAMES) == {
        "predicted_class": "No tumor",
        "confidence": 0.7,
        "probabilities": {"No tumor": 0.7, "A": 0.2, "earlier": 0.1},
        "prediction_set": ["No tumor", "A"],
    }
    assert name_prediction(prediction | {"prediction_set": None}, NAMES)["prediction_set"] is None


def test_the_metrics_of_a_class_are_found_under_its_name() -> None:
    curve = {"x": [0.0, 1.0], "y": [0.0, 1.0]}
    evaluation = {
        "classes": ["notumor", "a", "a_low"],
        "metrics": {
            "test/acc": 0.9, "test/acc_low": 0.8, "test/f1/notumor": 0.7, "test/f1/notumor_low": 0.6,
            "test/f1/notumor_high": 0.8, "test/f1/a": 0.5, "test/f1/a_low": 0.4, "test/f1/a_low_low": 0.3,
        },
        "curves": {"roc": {"notumor": curve}, "pr": {"a": curve}, "reliability": {"after": []}},
    }  # fmt: skip
    named = name_evaluation(evaluation, NAMES)
    assert named["classes"] == ["No tumor", "A", "Lower A"]
    assert named["metrics"] == {
        "test/acc": 0.9, "test/acc_low": 0.8, "test/f1/No tumor": 0.7, "test/f1/No tumor_low": 0.6,
        "test/f1/No tumor_high": 0.8, "test/f1/A": 0.5, "test/f1/Lower A": 0.4, "test/f1/Lower A_low": 0.3,
    }  # fmt: skip
    assert named["curves"] == {"roc": {"No tumor": curve}, "pr": {"A": curve}, "reliability": {"after": []}}
    assert name_evaluation({"classes": ["a"], "metrics": {}}, NAMES) == {"classes": ["A"], "metrics": {}}


def test_statistics_name_classes_in_rows_and_counts() -> None:
    stats = {
        "images": 3,
        "classes": [{"label": "notumor", "images": 3}],
        "brightness": [{"label": "a", "median": 5.0}],
        "duplicates": {"groups": 1, "classes": {"a": 2}},
        "leakage": {"test_images": 1, "per_class": {"a": {"leaked": 0, "test": 1}}},
    }
    assert name_statistics(stats, NAMES) == {
        "images": 3,
        "classes": [{"label": "No tumor", "images": 3}],
        "brightness": [{"label": "A", "median": 5.0}],
        "duplicates": {"groups": 1, "classes": {"A": 2}},
        "leakage": {"test_images": 1, "per_class": {"A": {"leaked": 0, "test": 1}}},
    }
    assert name_statistics(stats | {"leakage": None}, NAMES)["leakage"] is None
