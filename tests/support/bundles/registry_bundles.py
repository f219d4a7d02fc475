"""Bundles for tests of the registry: made in milliseconds, or derived from a real one with other answers."""

import json
import shutil
from pathlib import Path

import numpy as np

from lesion.evaluation.probabilities import softmax
from lesion.model.bundle import Bundle, seal
from lesion.model.bundle_facts import FACTS_FILE
from tests.support.bundles.bundle_files import FACTS, write_files


def sealed(folder: Path, temperature: float = 2.0, **facts: object) -> Path:
    """A bundle that opens but runs nowhere; another temperature gives another version."""
    calibration = {"temperature": temperature, "images": 10}
    write_files(folder)
    return seal(folder, FACTS | {"calibration": calibration} | facts).path


def retempered(bundle: Path, folder: Path, factor: float, *, broken: bool = False) -> Path:
    """A copy of a real bundle whose answers are softer; ``broken`` ones are not the golden answers it promises."""
    opened = Bundle.open(bundle)
    images, golden = opened.golden()
    logits = np.log(np.maximum(golden, 1e-37)) * opened.calibration.temperature
    answers = softmax(logits, opened.calibration.temperature * factor).astype(np.float32)
    shutil.copytree(bundle, folder)
    (folder / FACTS_FILE).unlink()
    np.savez(folder / "golden.npz", images=images, probabilities=answers[:, ::-1] if broken else answers)
    facts = json.loads((bundle / FACTS_FILE).read_text("utf-8"))
    facts["calibration"]["temperature"] *= factor
    return seal(folder, {key: facts[key] for key in facts.keys() - {"format", "files", "version"}}).path
