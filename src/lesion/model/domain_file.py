"""The file of a bundle that holds the domain of its training images: arrays, without pickles."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.domain.appearance import NUMBERS, AppearanceDistance
from lesion.domain.domain import Domain
from lesion.domain.feature_distance import FeatureDistance
from lesion.domain.turned_pictures import TURNS, WIDTH, OrientationDiscriminant
from lesion.model.bundle_files import BundleFileError, read_arrays

_FEATURES = ("mean", "axes", "variances", "scalars")  # all that formats 2 and 3 have, with the border in scalars
_PICTURES = ("center", "scale", "references", "turns")
_SCALED = ("middles", "spreads", "scores")  # of format 4
_KNOWN = ("known_features", "known_appearance", "known_orientation")
_FLOAT64 = ("scalars", "shares", *_SCALED, *_KNOWN)
_OF_FORMATS = ((*_FEATURES, *_PICTURES, *_KNOWN, "shares"), (*_FEATURES, *_PICTURES, *_SCALED), _FEATURES)
Arrays = dict[str, NDArray[Any]]


def save_domain(domain: Domain, path: Path) -> None:
    """Write a domain as an ``.npz`` file; one of an older bundle cannot be written."""
    assert domain.pictures is not None
    appearance, orientation = domain.pictures
    known: dict[str, Any] = dict(zip(_KNOWN, domain.known, strict=True))
    np.savez(
        path,
        mean=domain.features.mean,
        axes=domain.features.axes,
        variances=domain.features.variances,
        scalars=np.array([domain.features.rest, float(domain.strays)]),
        center=appearance.center,
        scale=appearance.scale,
        references=appearance.references,
        turns=orientation.weights,
        shares=np.array(domain.shares),
        **known,
    )


def read_domain(path: Path) -> Domain:
    """Read a domain that :func:`save_domain` wrote, or that of a bundle of format 2 to 4; another is a BundleError."""
    arrays = read_arrays(path, *_OF_FORMATS)
    float64 = all(array.dtype == (np.float64 if name in _FLOAT64 else np.float32) for name, array in arrays.items())
    if not float64 or not _shapes_fit(arrays):
        raise BundleFileError(f"{path.name} does not hold the arrays of a domain.")
    if not _numbers_fit(arrays):
        raise BundleFileError(f"{path.name} holds numbers that do not define a distance.")
    rest, last = arrays["scalars"].tolist()
    features = FeatureDistance(arrays["mean"], arrays["axes"], arrays["variances"], rest)
    if "turns" not in arrays:
        return Domain(features, None, (np.log([last]),), (1.0,))
    pictures = (
        AppearanceDistance(arrays["center"], arrays["scale"], arrays["references"]),
        OrientationDiscriminant(arrays["turns"]),
    )
    if "scores" in arrays:
        scale = arrays["middles"], arrays["spreads"]
        return Domain(features, pictures, (arrays["scores"],), (1.0,), int(last), scale)
    known = tuple(arrays[name] for name in _KNOWN)
    return Domain(features, pictures, known, tuple(arrays["shares"].tolist()), int(last))


def _shapes_fit(arrays: Arrays) -> bool:
    mean, variances = arrays["mean"], arrays["variances"]
    features = mean.ndim == 1 and variances.ndim == 1 and arrays["axes"].shape == (len(variances), len(mean))
    if not features or not len(variances) or arrays["scalars"].shape != (2,):
        return False
    if "turns" not in arrays:
        return True
    shapes = {"center": (NUMBERS,), "scale": (NUMBERS,), "turns": (WIDTH, len(TURNS))}
    shapes |= dict.fromkeys(("middles", "spreads", "shares"), (len(_KNOWN),))
    if any(arrays[name].shape != shape for name, shape in shapes.items() if name in arrays):
        return False
    references, lists = arrays["references"], [arrays[name] for name in (*_KNOWN, "scores") if name in arrays]
    several = all(values.ndim == 1 and len(values) for values in lists)
    return several and references.ndim == 2 and references.shape[1] == NUMBERS and len(references) > 0


def _numbers_fit(arrays: Arrays) -> bool:
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return False
    rest, last = arrays["scalars"]
    if not (arrays["variances"] > 0).all() or rest <= 0:
        return False
    if "turns" not in arrays:
        return bool(last > 0)
    ascending = all((np.diff(arrays[name]) >= 0).all() for name in (*_KNOWN, "scores") if name in arrays)
    positive = all((arrays[name] > 0).all() for name in ("scale", "spreads", "shares") if name in arrays)
    whole = "shares" not in arrays or abs(float(arrays["shares"].sum()) - 1) < 1e-9
    return ascending and positive and whole and bool(last >= 0)
