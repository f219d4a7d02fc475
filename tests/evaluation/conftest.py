"""Fixtures for reports."""

import pytest

from lesion.evaluation import plots


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of a report's words: its figures, most of the time that a report takes, are not rendered."""
    monkeypatch.setattr(plots, "to_svg", lambda figure, label, name: "<svg></svg>")
