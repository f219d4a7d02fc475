"""A version's data sheet and checklist have what the catalogue and the bundle know, and name what they do not."""

from pathlib import Path

import pytest

from lesion.catalogue.import_run import import_manifest
from lesion.cli.storage.models import main
from lesion.data.manifest import Manifest
from lesion.database.audit import LABEL_CORRECTED, record
from lesion.database.storage import Storage
from lesion.registry.deployments import UnknownVersionError
from lesion.registry.model_documents import CARD, CHECKLIST, DATA_SHEET, write_documents
from lesion.registry.registry import Registry
from tests.support.bundles.lamp_bundles import CLASSES, lamp, lamp_pictures
from tests.support.images.loop_images import new_storage

CONFIG = {"callbacks": {"checkpoint": {"monitor": "val/loss"}}, "explain": {"methods": ["gradcam"]}}
METRICS = {"test/acc": 0.9, "test/acc_low": 0.85, "test/acc_high": 0.94, "test/recall/bright": 0.8}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path / "loop")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return lamp_pictures(tmp_path / "pictures", 10)


@pytest.fixture
def version(storage: Storage, manifest: Manifest, tmp_path: Path) -> str:
    """A version with two classes and the pictures of ``manifest``."""
    snapshot = import_manifest(storage, manifest, progress=False)
    bundle = lamp(tmp_path / "bundle", 0.05, metrics=METRICS, name="my | model", config=CONFIG)
    return Registry(storage).register(bundle, parent="0123456789ab", snapshot_id=snapshot)


def test_the_data_sheet_counts_the_images(storage: Storage, manifest: Manifest, version: str, tmp_path: Path) -> None:
    used = manifest.used()
    with storage.session() as session:
        record(session, "ann", LABEL_CORRECTED, used["sha256"].iloc[0], before="bright", after="dark")
        record(session, "ann", LABEL_CORRECTED, used["sha256"].iloc[0], before="dark", after="bright")
        record(session, "ann", LABEL_CORRECTED, "0" * 64, before="bright", after="dark")  # an image of another version
    paths = write_documents(Registry(storage), version, tmp_path / "documents")
    assert [path.name for path in paths] == [CARD, DATA_SHEET, CHECKLIST]
    assert paths[0].read_text("utf-8") == "# lamp\n"
    sheet = paths[1].read_text("utf-8")
    assert sheet.startswith(f"# Data sheet of my \\| model, version {version}\n")
    assert f"- {len(used)} images, each with one label, in {used['group'].nunique()} groups" in sheet
    assert "- Patients: *not known*; no image names one." in sheet
    assert "- Labels that a person corrected later: 1." in sheet
    lines = sheet.splitlines()
    header = next(line for line in lines if line.startswith("| class |"))
    splits = [cell.strip() for cell in header.split("|")[2:-1]]
    assert sorted(splits) == ["calibration", "test", "train", "val"]
    for label in CLASSES:
        counts = [str(int(((used["split"] == split) & (used["label"] == label)).sum())) for split in splits]
        assert f"| {label} | {' | '.join(counts)} | " in lines
    assert "started from the weights of version 0123456789ab" in sheet
    assert "Versions that were retrained from it: none so far." in sheet
    assert "- License and limits of sharing: *not known*." in sheet


def test_the_checklist_has_scores_and_names_what_is_not_known(storage: Storage, version: str, tmp_path: Path) -> None:
    *_, path = write_documents(Registry(storage), version, tmp_path)
    checklist = path.read_text("utf-8")
    assert "| accuracy | 0.900 (0.850 – 0.940) |" in checklist
    assert "| macro-F1 | *not known* |" in checklist
    assert "| sensitivity, specificity of bright | 0.800, *not known* |" in checklist
    assert "| initial weights | those of version 0123456789ab |" in checklist
    assert "| choice of the final weights | the epoch with the best `val/loss`" in checklist
    assert "| explainability | heat maps by gradcam, measured in the report |" in checklist
    assert "| who annotated, with which qualification and tools | *not known* |" in checklist
    rows = [line for line in checklist.splitlines() if line.startswith("| ")]
    assert all(line.count("|") == 3 and not line.endswith("|  |") for line in rows), rows


def test_a_version_that_is_not_there_has_no_documents(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(UnknownVersionError):
        write_documents(Registry(storage), "0" * 12, tmp_path / "documents")
    assert not (tmp_path / "documents").exists()


def test_the_command_names_the_files(
    storage: Storage, version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"storage.{name}='{getattr(storage, name)}'" for name in ("database", "files", "cache")]
    assert main(["documents", version, "--folder", str(tmp_path / "out"), *places]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == ["file", *(str(tmp_path / "out" / name) for name in (CARD, DATA_SHEET, CHECKLIST))]
