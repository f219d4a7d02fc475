"""Checks of settings: the names by which classes are shown."""

import pytest

from lesion.core.errors import ConfigError
from lesion.core.validation import complete_class_names

CLASSES = ("glioma", "notumor", "pituitary")


def test_a_class_without_another_name_is_shown_by_its_own() -> None:
    names = complete_class_names("data.class_names", {"notumor": " No tumor "}, CLASSES)
    assert names == {"glioma": "glioma", "notumor": "No tumor", "pituitary": "pituitary"}
    assert list(names) == list(CLASSES)


def test_names_may_change_places() -> None:
    names = complete_class_names("x", {"glioma": "notumor", "notumor": "glioma"}, CLASSES)
    assert names["glioma"] == "notumor"


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"tumor": "Tumor"}, "x names 'tumor', which is not a class. The classes are glioma, notumor, pituitary."),
        ({"glioma": ""}, "x.glioma must be a line of 1 to 80 characters, not ''."),
        ({"glioma": "  "}, "x.glioma must be a line of 1 to 80 characters, not '  '."),
        ({"glioma": "two\nlines"}, "x.glioma must be a line of 1 to 80 characters, not 'two\\nlines'."),
        ({"glioma": 81 * "g"}, f"x.glioma must be a line of 1 to 80 characters, not '{81 * 'g'}'."),
        ({"glioma": None}, "x.glioma must be a line of 1 to 80 characters, not None."),
        ({"glioma": "notumor"}, "x shows two classes by the same name: notumor, notumor, pituitary."),
    ],
)
def test_names_that_cannot_be_shown_are_refused(names: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        complete_class_names("x", names, CLASSES)
    assert caught.value.message == sentence
