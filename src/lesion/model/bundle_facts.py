"""The facts of a bundle: the content of ``bundle.json``, its checks, and the version that it hashes to."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, cast

from lesion.conformal.answer_rules import AnswerRules
from lesion.core.errors import BundleError, ConfigError
from lesion.core.files import FileFacts, bytes_sha256
from lesion.core.validation import complete_class_names
from lesion.domain.trial import DomainTrial
from lesion.evaluation.reliability import AnswerFrequency
from lesion.imaging.preprocessing import Preprocessing

# 2 added domain.npz, 3 the bias of the calibration, 4 what domain.npz holds of pictures, 5 how it ranks each measure
FORMAT = 5
READABLE = (2, 3, 4, 5)
CLASS_NUMBERS: tuple[Literal["bias"], Literal["prevalence"]] = ("bias", "prevalence")  # of a calibration
FACTS_FILE = "bundle.json"
MAX_FACTS_BYTES = 4 * 2**20
Read = TypeVar("Read")


class BundleFactsError(BundleError):
    """Facts that lack what serving needs, or are not JSON."""

    default_code = "bundle_facts_invalid"


class InterpolationFacts(TypedDict):
    """How far the weights are from those that the training started from to those that it ended with."""

    share: float  # of the way: above 0, at most 1
    metric: str  # by which the share was chosen, on the validation split
    values: list[float]  # of the metric at the shares 0, 1/n, 2/n … 1
    changed_answers: list[int]  # there: validation images whose answer differs from that of the initial weights


class ModelFacts(TypedDict):
    """What rebuilds the network: a timm name with its arguments, and the pixels' mean and deviation per channel."""

    backbone: str
    mean: list[float]
    std: list[float]
    model_kwargs: NotRequired[dict[str, Any]]
    weights: NotRequired[dict[str, Any]]
    interpolation: NotRequired[InterpolationFacts | None]
    parameters: NotRequired[int]


class CalibrationFacts(TypedDict):
    """What :class:`lesion.evaluation.probabilities.Calibration` needs."""

    temperature: float
    bias: NotRequired[list[float] | None]  # per class
    prevalence: NotRequired[list[float] | None]  # per class
    images: NotRequired[int]


class BundleFacts(TypedDict):
    """The content of ``bundle.json``."""

    format: int
    name: str
    version: str
    created: str
    classes: list[str]
    class_names: NotRequired[dict[str, str]]  # by which each class is shown
    preprocessing: dict[str, Any]  # the fields of :class:`lesion.imaging.preprocessing.Preprocessing`
    model: ModelFacts
    calibration: CalibrationFacts
    files: dict[str, FileFacts]  # every other file of the bundle, by relative name
    metrics: NotRequired[dict[str, float | None]]
    notes: NotRequired[list[str]]  # what limits the metrics, in sentences; bundles of format 2 lack it
    answer_rules: NotRequired[dict[str, Any] | None]  # see :class:`lesion.conformal.answer_rules.AnswerRules`
    answer_frequencies: NotRequired[list[dict[str, Any]]]  # see :class:`lesion.evaluation.reliability.AnswerFrequency`
    domain_trial: NotRequired[dict[str, Any]]  # see :class:`lesion.domain.trial.DomainTrial`
    # The dataset: ``name``, ``fingerprint``, ``policy``, ``images``, ``groups`` and ``patients``.
    data: NotRequired[dict[str, Any]]
    lineage: NotRequired[dict[str, Any]]  # see :func:`lesion.training.provenance.lineage`
    agreement: NotRequired[dict[str, float]]  # how closely the exported graph agrees with torch
    config: NotRequired[dict[str, Any]]


def canonical_json(value: object) -> bytes:
    """Return the canonical JSON text of a value: sorted keys, no spaces, ASCII. NaN has none: a BundleFactsError."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleFactsError(
            f"A bundle's facts must be finite JSON values: {error}. Use null for unknown values."
        ) from error


def version_of(facts: Mapping[str, Any]) -> str:
    """Return the version that facts hash to, without ``version`` itself: 12 hexadecimal digits of SHA-256."""
    return bytes_sha256(canonical_json({key: value for key, value in facts.items() if key != "version"}))[:12]


def read_facts(folder: Path) -> BundleFacts:
    """Read and check the facts of a bundle's folder; raise a BundleError if they are missing or cannot serve."""
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
        raise BundleFactsError(f"{FACTS_FILE} is larger than {MAX_FACTS_BYTES} bytes.")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleFactsError(
            f"{FACTS_FILE} is not JSON ({error}): it is truncated or was edited. Export the model again."
        ) from error
    if not isinstance(facts, dict):
        raise BundleFactsError(f"{FACTS_FILE} must hold a JSON object.")
    return check_facts(facts)


def check_facts(facts: Mapping[str, Any]) -> BundleFacts:
    """Return facts that have everything that serving needs, in the right form and format; or raise a BundleError."""
    if facts.get("format") not in READABLE:
        raise BundleError(
            f"The bundle has format {facts.get('format')!r}; this version of Lesion reads formats "
            f"{' and '.join(map(str, READABLE))}.",
            code="bundle_format_unknown",
        )
    for key in ("preprocessing", "model", "calibration", "files"):
        _require(isinstance(facts.get(key), dict), f"'{key}' must be an object")
    classes, model, temperature = facts.get("classes"), facts["model"], facts["calibration"].get("temperature")
    _require(isinstance(facts.get("name"), str) and bool(facts["name"]), "'name' must be a text")
    _require(isinstance(facts.get("version"), str), "'version' must be a text")
    names = classes if isinstance(classes, list) else []
    texts = all(isinstance(name, str) and name for name in names)
    _require(texts and len(set(names)) == len(names) >= 2, "'classes' must be two or more unique names")
    _require(_is_number(temperature) and temperature > 0, "'calibration.temperature' must be a positive number")
    for key in CLASS_NUMBERS:
        values = facts["calibration"].get(key)
        fits = values is None or (
            isinstance(values, list) and len(values) == len(names) and all(map(_is_number, values))
        )
        _require(fits, f"'calibration.{key}' must be null or a number for each class")
    _require(isinstance(model.get("backbone"), str), "'model.backbone' must be a text")
    for key in ("mean", "std"):
        numbers = model.get(key)
        three = isinstance(numbers, list) and len(numbers) == 3 and all(map(_is_number, numbers))
        _require(three, f"'model.{key}' must be three numbers")
    for name, entry in facts["files"].items():
        _require(
            isinstance(entry, dict) and set(entry) == {"sha256", "bytes"}, f"'files.{name}' needs sha256 and bytes"
        )
    shown = facts.get("class_names", {})
    _read_fact("class_names", lambda: complete_class_names("class_names", shown, names))
    if (stored := facts.get("answer_rules")) is not None:
        rules = _read_fact("answer_rules", lambda: AnswerRules.from_json(stored))
        _require(len(rules.sets.groups) == len(names), "'answer_rules' must be for the bundle's classes")
    frequencies = facts.get("answer_frequencies", [])
    _read_fact("answer_frequencies", lambda: [AnswerFrequency.from_json(each) for each in frequencies])
    if (trial := facts.get("domain_trial")) is not None:
        _read_fact("domain_trial", lambda: DomainTrial.from_json(trial))
    try:
        Preprocessing.from_dict(facts["preprocessing"])
    except Exception as error:
        raise BundleFactsError(f"'preprocessing' in {FACTS_FILE}: {error}") from error
    return cast(BundleFacts, facts)


def _read_fact(name: str, read: Callable[[], Read]) -> Read:
    """Return what ``read`` makes of a fact; what it cannot read is a BundleFactsError."""
    try:
        return read()
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise BundleFactsError(f"'{name}' in {FACTS_FILE} cannot be read: {error!r}") from error


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise BundleFactsError(f"In {FACTS_FILE}, {sentence}.")


def _is_number(value: object) -> bool:
    # not isfinite, which fails on an integer that no float can hold; NaN is refused too
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
