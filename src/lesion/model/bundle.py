"""The bundle: an immutable folder with everything that serves a model, verified before anything in it is used."""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError
from lesion.evaluation.calibration import softmax
from lesion.imaging.preprocessing import Preprocessing
from lesion.model.bundle_files import check_content, check_names, read_golden
from lesion.model.domain import Domain

FORMAT = 2  # 2 came with domain.npz
FACTS_FILE = "bundle.json"
MAX_FACTS_BYTES = 4 * 2**20

# The greatest difference of a probability from torch's in float32 that a faithful engine shows. A half-precision engine
# rounds every activation to 8 (bfloat16) or 11 (float16) bits; on networks that were often unsure, bfloat16 moved a
# probability by up to 0.052 and float32 by 2e-6.
GOLDEN_TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 0.1}


class GoldenOutputs(Protocol):
    """What the golden check needs of an engine's outputs."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """(B, C)."""

    @property
    def features(self) -> NDArray[np.float32]:
        """(B, D)."""


class GoldenEngine(Protocol):
    """What the golden check needs of an engine."""

    @property
    def precision(self) -> str:
        """One of ``f32``, ``f16``, ``bf16``."""

    def __call__(self, images: NDArray[np.uint8]) -> GoldenOutputs:
        """Run (B, S, S, 3) images."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: The folder, absolute, links resolved.
        facts: The parsed ``bundle.json``.
    """

    path: Path
    facts: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Verify a bundle: its facts, the exact set of files, their sizes, hashes and types, and its version.

        Args:
            path: The bundle's folder.

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
        facts = _read_facts(folder)
        _check_facts(facts)
        if facts["version"] != version_of(facts):
            raise BundleError(
                f"{FACTS_FILE} says version {facts['version']!r}, but its content hashes to {version_of(facts)!r}: "
                "it was edited after the bundle was made. Export the model again.",
                code="bundle_version_mismatch",
            )
        files: dict[str, Any] = facts["files"]
        check_names(_listed(folder), files, FACTS_FILE)
        for name, expected in sorted(files.items()):
            _check_file(folder / name, name, expected)
        bundle = cls(folder, facts)
        bundle.golden()
        bundle.domain()
        return bundle

    @property
    def name(self) -> str:
        """The name of what was trained, such as ``phantom_mri``."""
        return str(self.facts["name"])

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the facts."""
        return str(self.facts["version"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the logits."""
        return tuple(self.facts["classes"])

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are fitted to the network's input."""
        return Preprocessing.from_dict(self.facts["preprocessing"])

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax (temperature scaling, Guo et al. 2017)."""
        return float(self.facts["calibration"]["temperature"])

    @property
    def onnx(self) -> Path:
        """The exported graph."""
        return self.path / "model.onnx"

    @property
    def weights(self) -> Path:
        """The network's weights, in safetensors."""
        return self.path / "model.safetensors"

    def golden(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the golden images, (G, S, S, 3) uint8, and the calibrated probabilities they must give, (G, C)."""
        return read_golden(self.path / "golden.npz", self.preprocessing.size, len(self.classes))

    def domain(self) -> Domain:
        """Return what tells how far an image is from the training images."""
        return Domain.read(self.path / "domain.npz")

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return calibrated probabilities, (B, C), of (B, C) logits."""
        return softmax(logits, self.temperature)

    def check_golden(self, engine: GoldenEngine, tolerance: float | None = None) -> float:
        """Compare an engine's answers with the golden ones.

        Args:
            engine: The engine that is about to serve this bundle.
            tolerance: The greatest difference of a probability; what the engine's precision explains when None.

        Returns:
            The greatest difference of a probability.

        Raises:
            BundleError: An answer differs by more (``bundle_golden_mismatch``).
        """
        images, expected = self.golden()
        outputs = engine(images)
        answers = self.probabilities(outputs.logits)
        width = len(self.domain().mean)
        if outputs.features.shape != (len(images), width):
            raise BundleError(
                f"The model gives features of shape {outputs.features.shape}, its domain.npz is for {width} an image.",
                code="bundle_golden_mismatch",
            )
        if answers.shape != expected.shape:
            raise BundleError(
                f"The model gives answers of shape {answers.shape}, its golden answers have {expected.shape}.",
                code="bundle_golden_mismatch",
            )
        difference = float(np.abs(answers - expected).max())
        tolerance = GOLDEN_TOLERANCE[engine.precision] if tolerance is None else tolerance
        if not difference <= tolerance:  # written so that NaN is refused
            raise BundleError(
                f"The model's answers differ from its golden answers by {difference:.3g} in a probability in "
                f"{engine.precision}, and {tolerance:g} is the most that is accepted. "
                "Do not serve it so; try precision f32 to see whether rounding is the cause.",
                code="bundle_golden_mismatch",
            )
        return difference


def seal(folder: Path, facts: Mapping[str, Any]) -> Bundle:
    """Turn a folder of files into a bundle by hashing them and writing ``bundle.json`` last.

    Args:
        folder: The folder with every file of the bundle but ``bundle.json``.
        facts: The sections of ``bundle.json``. ``format``, ``created``, ``files`` and ``version`` are made here.

    Returns:
        The bundle, opened and verified.

    Raises:
        BundleError: The folder is a bundle already (``bundle_exists``), or what :meth:`Bundle.open` would refuse.
    """
    target = folder / FACTS_FILE
    if target.exists():
        raise BundleError(
            f"'{folder}' is a bundle already. A bundle is never changed: export to another folder.",
            code="bundle_exists",
        )
    files = {}
    for name in sorted(_listed(folder)):
        path = folder / name
        path.chmod(0o644)  # safetensors makes its file for its owner alone, and servers run as another user
        _sync(path)
        files[name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    complete = {"created": datetime.now(UTC).isoformat(timespec="seconds")} | dict(facts)
    complete |= {"format": FORMAT, "files": files}
    complete["version"] = version_of(complete)
    _check_facts(complete)
    check_names({*files, FACTS_FILE}, files, FACTS_FILE)
    temporary = folder / f".{FACTS_FILE}.part"
    temporary.write_text(json.dumps(complete, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    _sync(temporary)
    temporary.chmod(0o644)
    temporary.replace(target)
    _sync(folder)
    return Bundle.open(folder)


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, finite numbers.

    Raises:
        BundleError: The value holds NaN, an infinity or something that JSON lacks.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            f"A bundle's facts must be finite JSON values: {error}. Use null for what is not known.",
            code="bundle_facts_invalid",
        ) from error


def version_of(facts: Mapping[str, Any]) -> str:
    """Return the version that facts hash to, ``version`` itself left out."""
    content = {key: value for key, value in facts.items() if key != "version"}
    return hashlib.sha256(canonical_json(content)).hexdigest()[:12]


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS_FILE
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise BundleError(f"{FACTS_FILE} must be a plain file.", code="bundle_link")
    if not path.exists():
        raise BundleError(
            f"'{folder}' is not a bundle, or its export did not finish: it has no {FACTS_FILE}.", code="bundle_missing"
        )
    with path.open("rb") as file:
        text = file.read(MAX_FACTS_BYTES + 1)
    if len(text) > MAX_FACTS_BYTES:
        raise BundleError(f"{FACTS_FILE} is larger than {MAX_FACTS_BYTES} bytes.", code="bundle_facts_invalid")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{FACTS_FILE} is not JSON ({error}): it is truncated or was edited. Export the model again.",
            code="bundle_facts_invalid",
        ) from error
    if not isinstance(facts, dict):
        raise BundleError(f"{FACTS_FILE} must hold a JSON object.", code="bundle_facts_invalid")
    return facts


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts that lack what serving needs, or have it in another form."""
    if facts.get("format") != FORMAT:
        raise BundleError(
            f"The bundle has format {facts.get('format')!r}; this version of Lesion reads format {FORMAT}.",
            code="bundle_format_unknown",
        )
    sections = ("preprocessing", "model", "calibration", "files")
    for key in sections:
        _require(isinstance(facts.get(key), dict), f"'{key}' must be an object")
    _require(isinstance(facts.get("name"), str) and bool(facts["name"]), "'name' must be a text")
    _require(isinstance(facts.get("version"), str), "'version' must be a text")
    classes = facts.get("classes")
    named = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    _require(named and len(set(classes or ())) == len(classes or ()) >= 2, "'classes' must be two or more unique names")
    temperature = facts["calibration"].get("temperature")
    _require(_is_number(temperature) and temperature > 0, "'calibration.temperature' must be a positive number")
    _require(isinstance(facts["model"].get("backbone"), str), "'model.backbone' must be a text")
    for key in ("mean", "std"):
        values = facts["model"].get(key)
        _require(
            isinstance(values, list) and len(values) == 3 and all(map(_is_number, values)),
            f"'model.{key}' must be three numbers",
        )
    try:
        Preprocessing.from_dict(facts["preprocessing"])
    except Exception as error:
        raise BundleError(f"'preprocessing' in {FACTS_FILE}: {error}", code="bundle_facts_invalid") from error


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise BundleError(f"In {FACTS_FILE}, {sentence}.", code="bundle_facts_invalid")


def _is_number(value: object) -> bool:
    # not isfinite, which fails on an integer that no float can hold; NaN is refused too
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _listed(folder: Path) -> set[str]:
    """Return every file under a folder as a relative name; links and special files are refused, not followed."""
    names = set()
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(folder).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    raise BundleError(
                        f"{name!r} is a link or a special file; a bundle holds plain files alone.", code="bundle_link"
                    )
                else:
                    names.add(name)
    return names


def _check_file(path: Path, name: str, expected: object) -> None:
    _require(
        isinstance(expected, dict) and set(expected) == {"sha256", "bytes"},
        f"'files.{name}' must have sha256 and bytes",
    )
    assert isinstance(expected, dict)
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise BundleError(
            f"{name} has {size} bytes instead of {expected['bytes']}: it is truncated or was edited. "
            "Copy or export the bundle again.",
            code="bundle_file_altered",
        )
    if _sha256(path) != expected["sha256"]:
        raise BundleError(
            f"{name} does not have the content it was sealed with. Copy or export the bundle again.",
            code="bundle_file_altered",
        )
    check_content(path, name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Bring a file's or folder's content to the disk, so that a power cut leaves no bundle with holes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
