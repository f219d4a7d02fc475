"""The bundle: an immutable folder with everything that serves a model, verified before any of it is used."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lesion.conformal.answer_rules import AnswerRules
from lesion.core.errors import BundleError
from lesion.core.files import file_facts, sync, write_atomically
from lesion.core.validation import complete_class_names
from lesion.domain.domain import Domain
from lesion.domain.trial import DomainTrial
from lesion.evaluation.findings import patients_notes
from lesion.evaluation.probabilities import Calibration
from lesion.evaluation.reliability import AnswerFrequency
from lesion.imaging.limits import Limits
from lesion.imaging.preprocessing import Preprocessing
from lesion.model.bundle_facts import (
    CLASS_NUMBERS,
    FACTS_FILE,
    FORMAT,
    BundleFacts,
    check_facts,
    read_facts,
    version_of,
)
from lesion.model.bundle_files import check_file, check_names, list_files, read_golden
from lesion.model.domain_file import read_domain


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: The folder, absolute, with links resolved.
        facts: The content of ``bundle.json``.

    Examples:
        >>> bundle = Bundle.open(bundle_path)
        >>> bundle.preprocessing.size == bundle.golden()[0].shape[1]
        True
        >>> len(bundle.version), bundle.calibration.temperature > 0
        (12, True)
    """

    path: Path
    facts: BundleFacts

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Verify the bundle in a folder: its facts, the exact set of files, their sizes, hashes and types, its version.

        Raises:
            BundleError: The folder is not a whole, unaltered bundle. The codes are ``bundle_missing``,
                ``bundle_facts_invalid``, ``bundle_format_unknown``, ``bundle_version_mismatch``, ``bundle_link``,
                ``bundle_file_missing``, ``bundle_file_unexpected``, ``bundle_file_altered``, ``bundle_file_invalid``,
                ``bundle_pickle`` and ``bundle_external_data``.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(
                f"There is no bundle at '{folder}': no such folder. Give the folder that holds {FACTS_FILE}.",
                code="bundle_missing",
            )
        folder = folder.resolve()
        facts = read_facts(folder)
        if facts["version"] != version_of(facts):
            raise BundleError(
                f"{FACTS_FILE} has version {facts['version']!r}, but its content hashes to {version_of(facts)!r}: "
                "it was edited after the bundle was sealed. Export the model again.",
                code="bundle_version_mismatch",
            )
        check_names(list_files(folder), facts["files"])
        for name, expected in sorted(facts["files"].items()):
            check_file(folder / name, name, expected)
        bundle = cls(folder, facts)
        bundle.golden()
        bundle.domain()
        return bundle

    @property
    def name(self) -> str:
        """The name of the training, such as ``phantom_mri``."""
        return self.facts["name"]

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the facts."""
        return self.facts["version"]

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the logits."""
        return tuple(self.facts["classes"])

    @property
    def class_names(self) -> dict[str, str]:
        """The name by which each class is shown to persons; everywhere else classes have their own."""
        return complete_class_names("class_names", self.facts.get("class_names", {}), self.classes)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are fitted to the network's input."""
        return Preprocessing.from_dict(self.facts["preprocessing"])

    @property
    def limits(self) -> Limits:
        """The limits of the images that it was trained on; the usual ones if it does not say."""
        config = self.facts.get("config")
        data = config.get("data") if isinstance(config, dict) else None
        return Limits.from_settings(data.get("limits") if isinstance(data, dict) else None)

    @property
    def calibration(self) -> Calibration:
        """How its logits become probabilities."""
        facts = self.facts["calibration"]
        bias, prevalence = (None if (values := facts.get(name)) is None else tuple(values) for name in CLASS_NUMBERS)
        return Calibration(float(facts["temperature"]), bias, prevalence, facts.get("images", 0))

    @property
    def answer_rules(self) -> AnswerRules | None:
        """Its prediction sets and when it abstains; None for bundles of older versions."""
        value = self.facts.get("answer_rules")
        return None if value is None else AnswerRules.from_json(value)

    @property
    def answer_frequencies(self) -> tuple[AnswerFrequency, ...]:
        """How many test images it answered right, by confidence; empty for few images and bundles of older versions."""
        return tuple(map(AnswerFrequency.from_json, self.facts.get("answer_frequencies", ())))

    def notes(self) -> list[str]:
        """Return sentences about what limits its metrics."""
        if "notes" in self.facts:
            return list(self.facts["notes"])
        patients = (self.facts.get("data") or {}).get("patients")
        return patients_notes(1, 0) if patients == 0 else []

    @property
    def onnx(self) -> Path:
        """The exported graph."""
        return self.path / "model.onnx"

    @property
    def weights(self) -> Path:
        """The network's weights, in safetensors."""
        return self.path / "model.safetensors"

    def golden(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the golden images, (G, S, S, 3) uint8, and their expected calibrated probabilities, (G, C)."""
        return read_golden(self.path / "golden.npz", self.preprocessing.size, len(self.classes))

    @property
    def domain_trial(self) -> DomainTrial | None:
        """Which kinds of foreign images it recognizes; None for bundles of older versions."""
        value = self.facts.get("domain_trial")
        return None if value is None else DomainTrial.from_json(value)

    def domain(self) -> Domain:
        """Return the domain of the training images, which tells other images from images like them."""
        return read_domain(self.path / "domain.npz")

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return calibrated probabilities, (B, C), of (B, C) logits."""
        return self.calibration.probabilities(logits)


def seal(folder: Path, facts: Mapping[str, Any]) -> Bundle:
    """Turn a folder of files into a bundle: hash them and write ``bundle.json`` last; return it, opened and verified.

    ``facts`` are the sections of ``bundle.json``; ``format``, ``created``, ``files`` and ``version`` are added here. A
    folder that is a bundle already (``bundle_exists``), or that :meth:`Bundle.open` would refuse, is a BundleError.
    """
    if (folder / FACTS_FILE).exists():
        raise BundleError(
            f"'{folder}' is a bundle already. A bundle is never changed: export to another folder.",
            code="bundle_exists",
        )
    files = {}
    for name in sorted(list_files(folder)):
        path = folder / name
        path.chmod(0o644)  # safetensors creates its file for its owner only, and servers run as another user
        sync(path)
        files[name] = file_facts(path)
    complete = {"created": datetime.now(UTC).isoformat(timespec="seconds")} | dict(facts)
    complete |= {"format": FORMAT, "files": files}
    complete["version"] = version_of(complete)
    check_facts(complete)
    check_names({*files, FACTS_FILE}, files)
    write_atomically(folder / FACTS_FILE, json.dumps(complete, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    (folder / FACTS_FILE).chmod(0o644)
    return Bundle.open(folder)
