import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import ConfigError, DataError
from lesion.data.scan import scan_folders
from lesion.phantom import folder
from lesion.phantom.anatomy import Section, brain_surface
from lesion.phantom.folder import generate
from lesion.phantom.lesions import CLASSES
from lesion.phantom.patient import Patient

SMALL: dict[str, Any] = {"patients": 8, "slices": 2, "size": 48, "workers": 1}


def phantom_slice(patient: int, index: int, *, seed: int = 0, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    return Patient.sample(seed, patient).slice(index, **options)


def hashes(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.glob("*/*.png")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("phantom") / "small", seed=3, **SMALL)


def test_layout_is_balanced_and_gives_each_patient_one_class(small):
    assert sorted(p.name for p in small.iterdir()) == [".phantom.json", *CLASSES]
    owners: dict[str, list[str]] = {}
    for path in small.glob("*/*"):
        match = re.fullmatch(r"(patient\d{4})_slice\d{2}\.png", path.name)
        assert match is not None
        owners.setdefault(match[1], []).append(path.parent.name)
    assert len(owners) == 8
    assert all(len(names) == 2 and len(set(names)) == 1 for names in owners.values())
    assert sorted(names[0] for names in owners.values()) == sorted(CLASSES * 2)


def test_files_hold_the_slices_that_the_function_returns(small):
    image, _ = phantom_slice(5, 1, seed=3, slices=2, size=48)
    stored = Image.open(small / "meningioma" / "patient0005_slice01.png")
    assert stored.mode == "L"
    assert np.array_equal(np.asarray(stored), image)


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_the_workers(small, tmp_path):
    again = generate(tmp_path / "again", seed=3, **{**SMALL, "workers": 2})
    assert hashes(again) == hashes(small)


def test_another_seed_changes_every_image(small, tmp_path):
    other = hashes(generate(tmp_path / "other", seed=4, **SMALL))
    first = hashes(small)
    assert other.keys() == first.keys()
    assert not set(other.values()) & set(first.values())


def test_more_patients_leave_the_first_ones_as_they_were(small, tmp_path):
    more = hashes(generate(tmp_path / "more", seed=3, **{**SMALL, "patients": 10}))
    assert len(more) == 20
    assert more.items() > hashes(small).items()


def test_order_of_slices_changes_nothing():
    patient = Patient.sample(0, 2)
    forwards = [patient.slice(i, size=48)[0] for i in range(3)]
    backwards = [patient.slice(i, size=48)[0] for i in reversed(range(3))]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))


def test_patient_zero_and_slice_zero_have_streams_of_their_own():
    # NumPy pads short seeds with zeros: [seed, patient] would be the stream of [seed, patient, 0].
    images = [phantom_slice(p, s, seed=seed, size=48)[0] for seed in (0, 1) for p in (0, 4) for s in (0, 1)]
    assert len({image.tobytes() for image in images}) == 8


def test_an_existing_folder_is_reused_untouched(small):
    marker = small / "glioma" / "patient0000_slice00.png"
    before = marker.stat().st_mtime_ns
    assert generate(small, seed=3, **SMALL) == small
    assert marker.stat().st_mtime_ns == before


def test_other_parameters_for_an_existing_folder_are_refused(small):
    with pytest.raises(DataError, match=r"made with .*'seed': 3.*'seed': 9.* are requested"):
        generate(small, seed=9, **SMALL)


def test_a_folder_with_other_things_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="something other than phantoms"):
        generate(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(hashes(generate(tmp_path / "empty", **SMALL))) == 16


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, monkeypatch, error):
    write = folder._write_patient

    def fail(*arguments):
        if arguments[-1] == 5:  # the patient's number
            raise error
        write(*arguments)

    monkeypatch.setattr(folder, "_write_patient", fail)
    with pytest.raises(type(error)):
        generate(tmp_path / "data", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_low_field_scanner_sees_the_same_heads_darker_and_with_more_noise():
    usual, low = Patient.sample(0, 3), Patient.sample(0, 3, low_field=True)
    assert repr((usual.head, usual.lesion)) == repr((low.head, low.lesion))
    assert low.scanner.noise == pytest.approx(3 * usual.scanner.noise)
    assert low.slice(1)[0].mean() < 0.9 * usual.slice(1)[0].mean()


def test_low_field_phantoms_do_not_pass_for_usual_ones(tmp_path):
    generate(tmp_path / "data", **SMALL, low_field=True)
    assert generate(tmp_path / "data", **SMALL, low_field=True) == tmp_path / "data"
    with pytest.raises(DataError, match="low_field"):
        generate(tmp_path / "data", **SMALL)


def test_losing_a_race_takes_the_winner(tmp_path, monkeypatch):
    write_all = folder._write_all

    def slower(root, *arguments):
        monkeypatch.setattr(folder, "_write_all", write_all)
        generate(tmp_path / "data", **SMALL)
        write_all(root, *arguments)

    monkeypatch.setattr(folder, "_write_all", slower)
    assert len(hashes(generate(tmp_path / "data", **SMALL))) == 16
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_parameters_are_stored_beside_the_classes(small):
    made = json.loads((small / ".phantom.json").read_text())
    assert made == {"version": folder.VERSION, "patients": 8, "slices": 2, "size": 48, "seed": 3}


@pytest.mark.parametrize(
    ("name", "value"),
    [("patients", 3), ("patients", 10_000), ("slices", 0), ("size", 8), ("size", 4096), ("seed", -1), ("workers", 0)],
)
def test_bad_parameters_are_refused_before_anything_is_written(tmp_path, name, value):
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        generate(tmp_path / "data", **{**SMALL, name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(-1, 0), (0, 5), (0, -1)])
def test_a_slice_that_does_not_exist_is_refused(arguments):
    with pytest.raises(ConfigError):
        phantom_slice(*arguments)


@pytest.mark.parametrize("label", CLASSES)
def test_the_lesion_changes_the_picture_where_the_mask_says(label):
    for patient in (CLASSES.index(label), CLASSES.index(label) + 8):
        ill, mask = phantom_slice(patient, 2, size=112)
        healthy, nothing = phantom_slice(patient, 2, size=112, healthy=True)
        change = np.abs(ill.astype(float) - healthy)
        assert not nothing.any()
        if label == "notumor":
            assert not mask.any()
            assert not change.any()
        else:
            assert 0.003 < mask.mean() < 0.1
            assert change[mask].mean() > 5 * change[~mask].mean()


def section_of(patient: Patient, size: int = 112) -> tuple[Section, np.ndarray]:
    """The middle slice's tumour mask with the place of each of its pixels in the head."""
    _, mask = patient.slice(0, slices=1, size=size)
    section = Section.cut(patient.head, *patient.scanner.grid(size), patient.lesion.z)
    return section, mask


def test_meningiomas_grow_on_the_dura_of_the_vault_the_falx_or_the_sphenoid():
    for number in range(1, 121, 4):
        patient = Patient.sample(1, number)
        section, mask = section_of(patient)
        below_dura = (section.depth - brain_surface(patient.head, section.z))[mask].min()
        assert below_dura < 0.04 or np.abs(section.u[mask]).min() < 0.06 or section.z < 0.25


def test_gliomas_grow_inside_the_brain():
    for number in range(0, 120, 4):
        patient = Patient.sample(1, number)
        section, mask = section_of(patient)
        depth = section.depth[mask].mean() - brain_surface(patient.head, section.z)
        assert depth > 0.4 * patient.lesion.radius


def test_pituitary_tumours_grow_in_the_midline_of_the_skull_base():
    for number in range(3, 123, 4):
        patient = Patient.sample(1, number)
        section, mask = section_of(patient)
        assert section.z <= 0.2
        assert abs(section.u[mask].mean()) < 0.1
        assert section.v[mask].mean() - patient.head.base_shift == pytest.approx(-0.15, abs=0.1)


def test_the_level_alone_does_not_give_the_class_away():
    base: dict[str, int] = dict.fromkeys(CLASSES, 0)
    for number in range(400):
        patient = Patient.sample(0, number)
        base[patient.label] += patient.lesion.z < 0.25
    assert base["pituitary"] == 100
    assert all(30 <= base[label] <= 60 for label in CLASSES if label != "pituitary")


def test_pixels_are_computed_in_single_precision():
    patient = Patient.sample(0, 0)
    section = Section.cut(patient.head, *patient.scanner.grid(48), patient.lesion.z)
    assert {plane.dtype.name for plane in (section.x, section.u, section.v, section.depth)} == {"float32"}


def test_slices_of_one_patient_share_the_anatomy_and_patients_do_not():
    def correlation(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    first, second = (phantom_slice(2, i, size=96)[0].astype(float) for i in (1, 2))
    others = [phantom_slice(p, 1, size=96)[0].astype(float) for p in (6, 10, 14)]
    assert correlation(first, second) > 0.8
    assert correlation(first, second) > 0.1 + max(correlation(first, other) for other in others)


@pytest.mark.slow
def test_a_linear_model_on_pixels_fails():
    """On unseen patients; a quarter would be chance, and a small convolutional network passes 0.9."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def table(numbers):
        slices = [(phantom_slice(n, i, slices=2, size=64)[0], n % 4) for n in numbers for i in range(2)]
        images = np.stack([image for image, _ in slices]).astype(float)
        return images.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(-1, 32 * 32), [label for _, label in slices]

    train, test = table(range(160)), table(range(160, 240))
    scores = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=200)).fit(*train).score(*test)
        for c in (1e-4, 1e-2, 1)
    ]
    assert max(scores) <= 0.60


def test_masks_lie_beside_the_classes_and_belong_to_their_images(tmp_path):
    root = generate(tmp_path / "marked", seed=3, masks=True, **SMALL)
    assert hashes(root) == hashes(generate(tmp_path / "plain", seed=3, **SMALL))
    masks = scan_folders(root).attrs["masks"]
    assert len(masks) == 6 * SMALL["slices"]  # a patient in four has no tumor
    for image, [mask] in masks.items():
        number, index = map(int, re.findall(r"\d+", image))
        expected = phantom_slice(number, index, seed=3, slices=2, size=48)[1]
        np.testing.assert_array_equal(np.asarray(Image.open(root / mask)) > 0, expected)
        assert mask == f"masks/{image}"
    with pytest.raises(DataError, match="choose another folder"):
        generate(tmp_path / "plain", seed=3, masks=True, **SMALL)
