"""Uploads as the server takes them, without HTTP: each image is judged by the product's intake and stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track
from sqlalchemy import select

from lesion.catalogue.first_model import import_run
from lesion.core.errors import ImageError
from lesion.data.inspection import examine_received
from lesion.database.storage import Storage
from lesion.database.tables import Image
from lesion.intake.intake import Intake
from lesion.intake.rules import IntakeSettings
from lesion.intake.uploads import ModelOpinion, Upload
from lesion.model.predictor import Prediction, Predictor
from lesion.registry.registry import Registry
from lesion.retraining.label_check.doubtful_labels import check_labels

_JOB = "bench"  # the retraining for which the labels are checked


@dataclass(frozen=True)
class PlayedUploads:
    """Uploads, judged and checked. ``table`` has one row per uploaded file.

    Its columns are the true ``label``, the ``uploaded`` one and the ``predicted`` one; ``status``, ``reason_code``,
    ``split`` and ``doubt`` of the stored image, which are empty if it was rejected; and whether it was accepted at its
    upload (``accepted_first``).
    """

    table: pd.DataFrame

    @property
    def wrong(self) -> "pd.Series[bool]":
        """Whether the uploaded label is wrong."""
        return self.table["label"] != self.table["uploaded"]

    def queue(self) -> pd.DataFrame:
        """Return the stored uploads in the order of a review: those in quarantine and the most doubtful first."""
        stored = self.table[self.table["status"] != ""]
        waits = stored["status"] == "quarantined"
        return stored.assign(waits=waits).sort_values(["waits", "doubt"], ascending=False, kind="stable")


def play_uploads(run: Path, rows: pd.DataFrame, root: Path, uploaded: Sequence[str], folder: Path) -> PlayedUploads:
    """Import a run as the first model of an empty storage, upload images under labels, and check the labels.

    ``rows`` are of a manifest, with paths below ``root``; ``uploaded`` are their labels as they are sent; ``folder``
    must be new.
    """
    storage = Storage(f"sqlite:///{folder}/lesion.db", str(folder / "files"), folder / "cache")
    storage.upgrade()
    version = import_run(storage, run, "bench", "the first model")["version"]
    champion = Registry(storage).fetch(version)
    predictor = Predictor.load(champion, device="cpu", threads=2)
    intake = Intake(storage, predictor.bundle.classes, IntakeSettings())
    sent = [
        _send(intake, predictor, (root / path).read_bytes(), label)
        for path, label in track(list(zip(rows["path"], uploaded, strict=True)), "Uploading")
    ]
    accepted_first = _stored(storage, "status")
    check_labels(storage, _JOB, champion, lambda: None)
    table = pd.DataFrame({"label": list(rows["label"]), "uploaded": list(uploaded)})
    table["sha256"], table["predicted"] = ([each[place] for each in sent] for place in (0, 1))
    for column in ("status", "reason_code", "split", "doubt"):
        table[column] = table["sha256"].map(_stored(storage, column)).fillna(0.0 if column == "doubt" else "")
    table["accepted_first"] = [accepted_first.get(sha256) == "accepted" for sha256 in table["sha256"]]
    return PlayedUploads(table)


def _send(intake: Intake, predictor: Predictor, data: bytes, label: str) -> tuple[str, str]:
    """Upload one file; return its hash, empty if it was not stored, and what the champion predicts."""
    received, record = examine_received(data, predictor.limits, intake.pseudonyms)
    [prediction] = predictor.predict([data])
    assert not isinstance(prediction, ImageError), prediction
    decision = intake.process(Upload(record, label, "bench", _opinion(prediction)), received.data)
    return record.sha256 if decision.split else "", prediction.predicted_class


def _opinion(prediction: Prediction) -> ModelOpinion:
    known = prediction.in_domain, prediction.domain_distance, prediction.model_version
    return ModelOpinion(prediction.probabilities, *known)


def _stored(storage: Storage, column: str) -> dict[str, Any]:
    """Return a column of the uploaded images by their hash."""
    with storage.reading() as session:
        rows = session.execute(select(Image.sha256, getattr(Image, column)).where(Image.source == "upload"))
        return dict(rows.tuples().all())


def flip_labels(labels: Sequence[str], share: float, seed: int) -> list[str]:
    """Replace about this share of the labels by other ones, drawn evenly."""
    rng = np.random.default_rng(seed)
    classes, wrong = sorted(set(labels)), rng.random(len(labels)) < share
    others = [[other for other in classes if other != label] for label in labels]
    return [
        str(rng.choice(choices)) if flip else label for label, choices, flip in zip(labels, others, wrong, strict=True)
    ]
