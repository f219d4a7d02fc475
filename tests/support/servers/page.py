"""Running screens of the page without a browser, reading what they show, and servers with models for them."""

import json
import shutil
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from lesion.catalogue.import_run import import_manifest
from lesion.client import Client
from lesion.database.storage import Storage
from lesion.database.tables import Job, now
from lesion.model.bundle import seal
from lesion.registry.registry import Registry
from tests.support.bundles.lamp_bundles import CLASSES, lamp, lamp_pictures
from tests.support.images.hostile import encode
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import ServerProcess
from tests.support.training_subprocess import CONFIG

UI = REPOSITORY / "serve" / "ui"
OpenScreen = Callable[..., AppTest]


def open_screen(name: str = "", call: str = "show(connect())", client: Client | None = None) -> AppTest:
    """Run a module of ``serve.ui.screens`` as a new session would; the whole page without a name.

    Args:
        name: The module, such as ``admin`` or ``predict.page``.
        call: What of it is called.
        client: The session's client, for example with a key; by default one for the address in the environment.
    """
    if not name:
        return AppTest.from_file(UI / "app.py", default_timeout=30).run()
    script = (
        f"import serve.ui.screens.{name} as screen\nfrom serve.ui.error_messages import error_boundary\n"
        f"from serve.ui.session import connect\nwith error_boundary():\n    screen.{call}\n"
    )
    page = AppTest.from_string(script, default_timeout=30)
    if client is not None:
        page.session_state["client"] = client
    return page.run()


def photo(seed: int, base: int = 150, spread: float = 0.4) -> bytes:
    """A picture file that the model was not made with, whose brightness is about ``base`` and more."""
    return encode((picture(1000 + seed) * spread + base).astype(np.uint8))


def buttons(page: AppTest) -> dict[str, bool]:
    """Every button's label, and whether it can be pressed."""
    return {button.label: not button.disabled for button in page.button}


def press(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if button.label == label).click().run()


def select(page: AppTest, label: str, value: str) -> AppTest:
    return next(box for box in page.selectbox if box.label == label).select(value).run()


def drop_files(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    return page.file_uploader[0].set_value([(name, data, "application/octet-stream") for name, data in files]).run()


METRICS = {
    "test/acc": 0.9, "test/acc_low": 0.8, "test/acc_high": 0.95, "test/f1_macro": 0.89, "test/ece": 0.04,
    "test/ece_uncalibrated": 0.07, "test/f1/bright": 0.91, "test/f1/dark": 0.87, "test/roc_auc/bright": 0.97,
    "test/roc_auc/dark": 0.96, "test/pr_auc/bright": 0.95, "test/pr_auc/dark": 0.94,
}  # fmt: skip


CURVE = {name: {"x": [0.0, 0.1, 1.0], "y": [0.0, 0.9, 1.0]} for name in CLASSES}


BIN = [{"confidence": 0.9, "accuracy": 0.85, "images": 20}]


MEASURED = {
    "split": "test", "classes": CLASSES, "images": 20, "groups": 20, "temperature": 1.3, "calibration_images": 10,
    "metrics": METRICS, "confusion_matrix": [[9, 1], [1, 9]], "definitions": {"acc": "share of right answers"},
    "notes": ["These are stand-ins for numbers."],
    "curves": {"roc": CURVE, "pr": CURVE, "reliability": {"before": BIN, "after": BIN}},
    "leakage": {"test_images": 10, "leaked": 4, "per_class": {"bright": {"test": 10, "leaked": 4}}},
}  # fmt: skip


def evaluated(folder: Path, gain: float) -> Path:
    """A lamp that came with an evaluation, a report and facts of its data."""
    facts = json.loads((lamp(folder / "bare", gain, config=CONFIG) / "bundle.json").read_text())
    shutil.copytree(folder / "bare", folder / "whole", ignore=shutil.ignore_patterns("bundle.json"))
    (folder / "whole" / "report").mkdir()
    (folder / "whole" / "report" / "metrics.json").write_text(json.dumps(MEASURED))
    (folder / "whole" / "report" / "report.html").write_text("<h1>The run</h1>")
    made = {name: value for name, value in facts.items() if name not in ("format", "files", "version", "created")}
    data = {"name": "lamps", "policy": "grouped", "images": {"train": {"bright": 12, "dark": 11}}, "groups": 23}
    return seal(folder / "whole", made | {"metrics": METRICS, "data": data, "lineage": {"lesion": "0.1.0"}}).path


def two_models(root: Path, versions: list[Path]) -> Storage:
    """A loop whose first model was followed by another, and that knows a judged retraining."""
    made = new_storage(root / "loop")
    snapshot = import_manifest(made, lamp_pictures(root / "pictures", 20), progress=False)
    registry = Registry(made)
    first, second = (registry.register(path, snapshot_id=snapshot) for path in versions)
    registry.deploy_first(first, "ann", "the first")
    registry.promote(second, "bob", "by hand")
    with made.session() as session:
        session.add(judged_job(first, second))
    return made


def judged_job(champion: str, challenger: str) -> Job:
    scores = {"accuracy": 0.9, "f1_macro": 0.88, "ece": 0.05}
    recall = {"label": "bright", "images": 10, "champion": 0.8, "challenger": 0.9}
    comparison = {
        "generation": 1, "images": 20, "champion": scores, "challenger": scores | {"f1_macro": 0.93}, "gained": 3,
        "lost": 1, "difference": 0.05, "lower_bound": 0.01, "confidence": 0.95, "recalls": [recall],
    }  # fmt: skip
    check = {"name": "ece", "passed": True, "sentence": "The calibration error is not above what is allowed."}
    verdict = {"comparisons": [comparison], "checks": [check]}
    return Job(
        id="1" * 32, state="promoted", stage="promoted", progress=1.0, epoch=3, metrics=[], request={"epochs": 3},
        requested_by="ann", reason="It is better.", parent=champion, version=challenger, verdict=verdict,
        started_at=now(), finished_at=now(),
    )  # fmt: skip


def page_text(page: AppTest) -> str:
    """All words on a page."""
    kinds = (page.title, page.header, page.subheader, page.markdown, page.caption)
    boxes = (page.info, page.warning, page.error, page.success)
    assert not page.exception, [each.value for each in page.exception]
    return "\n".join(str(each.value) for kind in (*kinds, *boxes) for each in kind).replace("\\", "")


def tables(page: AppTest) -> list[list[dict[Hashable, Any]]]:
    return [table.value.reset_index().to_dict("records") for table in page.table]


def version_of(path: Path) -> str:
    return str(json.loads((path / "bundle.json").read_text())["version"])


def going_back(server: ServerProcess) -> str:
    """The call that asks for the reason to roll back, as a click on the button would."""
    ledger = server.client.get("/deployments").json()
    back = next(row for row in ledger if row["version"] == ledger[-1]["rollback_to"])
    return f"roll_back(connect(), {ledger[-1]}, {back})"


def error_titles(page: AppTest) -> list[str]:
    """The titles of the errors on a page."""
    return [error.proto.title for error in page.error]


def download_labels(page: AppTest) -> list[str]:
    return [button.proto.label for button in page.get("download_button")]
