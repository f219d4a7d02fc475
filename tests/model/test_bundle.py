"""Bundles: what seal writes, open accepts; whatever was changed in between is refused with its own code."""

import hashlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lesion.core.errors import BundleError
from lesion.model.bundle import Bundle, seal
from lesion.model.bundle_facts import canonical_json, version_of
from lesion.model.engines import GOLDEN_TOLERANCE, Engine, Outputs, check_golden
from tests.support.bundles.bundle_files import FACTS, GOLDEN, SIZE, write_files


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return seal(write_files(tmp_path / "bundle"), FACTS).path


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert len(caught.value.message) > 20
    return caught.value.code


def reseal(path: Path, **changes: object) -> None:
    """Edit the facts as an attacker would: hashes and version fit again."""
    facts = json.loads((path / "bundle.json").read_text()) | changes
    for name, entry in facts["files"].items():
        if (path / name).is_file():
            data = (path / name).read_bytes()
            entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    facts["version"] = version_of(facts)
    (path / "bundle.json").write_text(json.dumps(facts))


def test_what_is_sealed_is_read_back(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.classes == ("glioma", "notumor", "Läsion")
    assert opened.preprocessing.size == SIZE
    assert opened.preprocessing.interpolation == "bilinear"
    assert opened.calibration.temperature == 2.0
    assert opened.name == "made"
    assert set(opened.facts["files"]) == {
        "model.onnx", "model.safetensors", "golden.npz", "domain.npz", "MODEL_CARD.md", "report/report.html",
    }  # fmt: skip
    images, probabilities = opened.golden()
    assert images.shape == (2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(probabilities, GOLDEN)


def test_the_version_is_the_hash_of_the_canonical_facts(bundle: Path) -> None:
    facts = json.loads((bundle / "bundle.json").read_text())
    version = facts.pop("version")
    text = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    assert version == hashlib.sha256(text).hexdigest()[:12] == Bundle.open(bundle).version


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "ä", None]}) == b'{"a":[1.5,"\\u00e4",null],"b":1}'
    with pytest.raises(BundleError, match="finite"):
        canonical_json({"auc": float("nan")})


def test_probabilities_are_the_softmax_of_logits_over_the_temperature(bundle: Path) -> None:
    logits = np.array([[2.0 * np.log(0.5), 2.0 * np.log(0.25), 2.0 * np.log(0.25)]])
    np.testing.assert_allclose(Bundle.open(bundle).probabilities(logits), [[0.5, 0.25, 0.25]], atol=1e-7)


def test_a_bundle_is_found_through_a_link_and_a_copy_is_the_same(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    shutil.copytree(bundle, tmp_path / "copy")
    version = Bundle.open(bundle).version
    assert Bundle.open(tmp_path / "current").version == version
    assert Bundle.open(tmp_path / "copy").version == version


def test_a_bundle_is_sealed_once(bundle: Path) -> None:
    with pytest.raises(BundleError) as caught:
        seal(bundle, FACTS)
    assert caught.value.code == "bundle_exists"


def test_sealed_files_can_be_read_by_other_users(bundle: Path) -> None:
    assert {oct(path.stat().st_mode & 0o777) for path in bundle.rglob("*") if path.is_file()} == {"0o644"}


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (FACTS | {"metrics": {"auc": float("nan")}}, "bundle_facts_invalid"),
        (FACTS | {"classes": ["one"]}, "bundle_facts_invalid"),
        (FACTS | {"classes": ["one", "one"]}, "bundle_facts_invalid"),
        (FACTS | {"classes": [["one"], ["two"]]}, "bundle_facts_invalid"),
        (FACTS | {"class_names": {"no such class": "One"}}, "bundle_facts_invalid"),
        (FACTS | {"class_names": ["One"]}, "bundle_facts_invalid"),
        (FACTS | {"calibration": {"temperature": 0}}, "bundle_facts_invalid"),
        (FACTS | {"calibration": {"temperature": True}}, "bundle_facts_invalid"),
        (FACTS | {"calibration": {"temperature": 10**400}}, "bundle_facts_invalid"),  # no float can hold it
        (FACTS | {"preprocessing": {"size": SIZE, "fit": "squeeze"}}, "bundle_facts_invalid"),
        (FACTS | {"preprocessing": {"size": 32}}, "bundle_file_invalid"),  # the golden images have another size
        (FACTS | {"classes": ["one", "two"]}, "bundle_file_invalid"),  # the golden answers have three classes
        (FACTS | {"model": {"backbone": "x", "mean": [0, 0], "std": [1, 1]}}, "bundle_facts_invalid"),
    ],
)
def test_seal_refuses_facts_that_cannot_serve(tmp_path: Path, facts: dict[str, object], code: str) -> None:
    with pytest.raises(BundleError) as caught:
        seal(write_files(tmp_path / "bundle"), facts)
    assert caught.value.code == code


def _truncate(path: Path) -> None:
    data = (path / "model.onnx").read_bytes()
    (path / "model.onnx").write_bytes(data[:-2])


def _edit(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def _edit_facts(path: Path) -> None:
    text = (path / "bundle.json").read_text()
    (path / "bundle.json").write_text(text.replace('"test/acc": 0.9', '"test/acc": 0.99'))


def _truncate_facts(path: Path) -> None:
    data = (path / "bundle.json").read_bytes()
    (path / "bundle.json").write_bytes(data[: len(data) // 2])


def _link(path: Path) -> None:
    shutil.move(path / "model.onnx", path.parent / "elsewhere.onnx")
    (path / "model.onnx").symlink_to(path.parent / "elsewhere.onnx")


def _linked_folder(path: Path) -> None:
    shutil.move(path / "report", path.parent / "elsewhere")
    (path / "report").symlink_to(path.parent / "elsewhere")


def _list_a_pickle(path: Path) -> None:
    (path / "model.pt").write_bytes(pickle.dumps({"weight": 1}))
    files = json.loads((path / "bundle.json").read_text())["files"]
    reseal(path, files=files | {"model.pt": {"sha256": "", "bytes": 0}})


def _list_a_way_out(path: Path) -> None:
    files = json.loads((path / "bundle.json").read_text())["files"]
    reseal(path, files=files | {"../elsewhere.onnx": {"sha256": "", "bytes": 0}})


def _pickled_golden(path: Path) -> None:
    objects = np.array([{"code": "runs"}], dtype=object)
    np.savez(path / "golden.npz", images=objects, probabilities=GOLDEN)
    reseal(path)


def _write_domain(path: Path, **changes: object) -> None:
    with np.load(path / "domain.npz") as arrays:
        np.savez(path / "domain.npz", **(dict(arrays) | changes))
    reseal(path)


def _pickled_domain(path: Path) -> None:
    _write_domain(path, mean=np.array([{"code": "runs"}], dtype=object))


def _domain_of_no_distance(path: Path) -> None:
    _write_domain(path, scalars=np.array([1.0, np.nan]))


def _domain_that_does_not_fit(path: Path) -> None:
    _write_domain(path, mean=np.zeros(3, np.float32))


def _raw_pickle_as_golden(path: Path) -> None:
    (path / "golden.npz").write_bytes(pickle.dumps([1, 2, 3]))
    reseal(path)


def _pickle_as_weights(path: Path) -> None:
    (path / "model.safetensors").write_bytes(pickle.dumps({"weight": list(range(100))}))
    reseal(path)


def _torch_archive_as_model(path: Path) -> None:
    with zipfile.ZipFile(path / "model.onnx", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    reseal(path)


def _hash_left_out(path: Path) -> None:
    facts = json.loads((path / "bundle.json").read_text())
    del facts["files"]["model.onnx"]["sha256"]
    facts["version"] = version_of(facts)
    (path / "bundle.json").write_text(json.dumps(facts))


def _data_outside(path: Path) -> None:
    # a graph with an initializer with external_data, in which the key "location" is
    (path / "model.onnx").write_bytes(b"\x3a\x0e\x2a\x0c\x6a\x0a\x0a\x08location")
    reseal(path)


def _bomb_as_golden(path: Path) -> None:
    with zipfile.ZipFile(path / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(300 * 2**20))
    reseal(path)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_truncate, "bundle_file_altered"),
        (_edit, "bundle_file_altered"),
        (_edit_facts, "bundle_version_mismatch"),
        (_truncate_facts, "bundle_facts_invalid"),
        (lambda path: (path / "bundle.json").unlink(), "bundle_missing"),
        (lambda path: (path / "bundle.json").write_text("[]"), "bundle_facts_invalid"),
        (lambda path: (path / "bundle.json").write_text("[" * 100_000), "bundle_facts_invalid"),
        (lambda path: (path / "bundle.json").write_bytes(b" " * 5_000_000), "bundle_facts_invalid"),
        (shutil.rmtree, "bundle_missing"),
        (lambda path: (path / "MODEL_CARD.md").unlink(), "bundle_file_missing"),
        (lambda path: (path / "notes.txt").write_text("hello"), "bundle_file_unexpected"),
        (lambda path: (path / "report" / "extra.html").write_text("hello"), "bundle_file_unexpected"),
        (lambda path: (path / "model.pt").write_bytes(pickle.dumps({})), "bundle_pickle"),
        (_link, "bundle_link"),
        (_linked_folder, "bundle_link"),
        (lambda path: os.mkfifo(path / "pipe"), "bundle_link"),
        (_list_a_pickle, "bundle_pickle"),
        (_list_a_way_out, "bundle_file_unexpected"),
        (_pickled_golden, "bundle_pickle"),
        (_raw_pickle_as_golden, "bundle_file_invalid"),
        (_pickle_as_weights, "bundle_pickle"),
        (_torch_archive_as_model, "bundle_pickle"),
        (_data_outside, "bundle_external_data"),
        (_bomb_as_golden, "bundle_file_invalid"),
        (lambda path: (path / "domain.npz").unlink(), "bundle_file_missing"),
        (_pickled_domain, "bundle_pickle"),
        (_domain_of_no_distance, "bundle_file_invalid"),
        (_domain_that_does_not_fit, "bundle_file_invalid"),
        (lambda path: reseal(path, format=1), "bundle_format_unknown"),
        (lambda path: reseal(path, files={}), "bundle_file_unexpected"),
        (_hash_left_out, "bundle_facts_invalid"),
        (lambda path: reseal(path, classes="glioma"), "bundle_facts_invalid"),
    ],
)
def test_a_damaged_bundle_is_refused(bundle: Path, damage: Callable[[Path], object], code: str) -> None:
    damage(bundle)
    assert refusal(bundle) == code


def answering(probabilities: np.ndarray, precision: str, features: int = 4) -> Engine:
    class FixedEngine:
        def __init__(self) -> None:
            self.name, self.precision = "fixed", precision

        def __call__(self, images: np.ndarray) -> Outputs:
            logits = 2.0 * np.log(probabilities)  # 2 is the temperature
            count, classes = logits.shape
            cams = np.zeros((count, classes, 1, 1), np.float32)
            return Outputs(logits, np.zeros((len(images), features), np.float32), cams)

    return FixedEngine()


@pytest.mark.parametrize("precision", sorted(GOLDEN_TOLERANCE))
def test_golden_answers_are_held_to_what_the_precision_allows(bundle: Path, precision: str) -> None:
    tolerance = GOLDEN_TOLERANCE[precision]
    shift = np.array([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    opened = Bundle.open(bundle)
    difference = check_golden(opened, answering(GOLDEN + 0.9 * tolerance * shift, precision))
    assert difference == pytest.approx(0.9 * tolerance, rel=1e-3)
    for wrong in (GOLDEN + 1.1 * tolerance * shift, GOLDEN * np.nan, GOLDEN[:, :2]):
        with pytest.raises(BundleError) as caught:
            check_golden(opened, answering(wrong, precision))
        assert caught.value.code == "bundle_golden_mismatch"


def test_a_domain_of_another_network_is_found_before_it_serves(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"domain\.npz") as caught:
        check_golden(Bundle.open(bundle), answering(GOLDEN, "f32", features=5))
    assert caught.value.code == "bundle_golden_mismatch"
