"""The file of a bundle that holds the domain of its training images: arrays, without pickles."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.domain.appearance import NUMBERS, AppearanceDistance
from lesion.domain.domain import MEASURES, Domain
from lesion.domain.feature_distance import FeatureDistance
from lesion.domain.turned_pictures import TURNS, WIDTH, OrientationDiscriminant
from lesion.model.bundle_files import BundleFileError, read_arrays

_OLD = ("mean", "axes", "variances", "scalars")  # of formats 2 and 3: the features alone, and the border
_PICTURES = ("center", "scale", "references", "turns")
_RANKS = ("middles", "spreads", "scores")
_NAMES = (*_OLD, *_PICTURES, *_RANKS)
_FLOAT64 = ("scalars", *_RANKS)
Arrays = dict[str, NDArray[Any]]


def save_domain(domain: Domain, path: Path) -> None:
    """Write a domain as an ``.npz`` file; one of an older bundle cannot be written."""
    assert domain.pictures is not None
    appearance, orientation = domain.pictures
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
        middles=domain.middles,
        spreads=domain.spreads,
        scores=domain.scores,
    )


def read_domain(path: Path) -> Domain:
    """Read a domain that :func:`save_domain` wrote, or that of a bundle of format 2 or 3; another is a BundleError."""
    arrays = read_arrays(path, _NAMES, _OLD)
    float64 = all(array.dtype == (np.float64 if name in _FLOAT64 else np.float32) for name, array in arrays.items())
    if not float64 or not _shapes_fit(arrays):
        raise BundleFileError(f"{path.name} does not hold the arrays of a domain.")
    if not _numbers_fit(arrays):
        raise BundleFileError(f"{path.name} holds numbers that do not define a distance.")
    rest, last = arrays["scalars"].tolist()
    features = FeatureDistance(arrays["mean"], arrays["axes"], arrays["variances"], rest)
    if "scores" not in arrays:
        return Domain(features, None, np.zeros(1), np.ones(1), np.log([last]))
    pictures = (
        AppearanceDistance(arrays["center"], arrays["scale"], arrays["references"]),
        OrientationDiscriminant(arrays["turns"]),
    )
    return Domain(features, pictures, arrays["middles"], arrays["spreads"], arrays["scores"], int(last))


def _shapes_fit(arrays: Arrays) -> bool:
    mean, variances = arrays["mean"], arrays["variances"]
    features = mean.ndim == 1 and variances.ndim == 1 and arrays["axes"].shape == (len(variances), len(mean))
    if not features or not len(variances) or arrays["scalars"].shape != (2,):
        return False
    if "scores" not in arrays:
        return True
    references, scores = arrays["references"], arrays["scores"]
    shapes = {
        "center": (NUMBERS,),
        "scale": (NUMBERS,),
        "references": (len(references), NUMBERS) if references.ndim == 2 and len(references) else (),
        "turns": (WIDTH, len(TURNS)),
        "middles": (MEASURES,),
        "spreads": (MEASURES,),
        "scores": (len(scores),) if scores.ndim == 1 and len(scores) else (),
    }
    return all(arrays[name].shape == shape and shape for name, shape in shapes.items())


def _numbers_fit(arrays: Arrays) -> bool:
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return False
    rest, last = arrays["scalars"]
    if not (arrays["variances"] > 0).all() or rest <= 0:
        return False
    if "scores" not in arrays:
        return bool(last > 0)
    ascending = bool((np.diff(arrays["scores"]) >= 0).all())
    return ascending and last >= 0 and bool((arrays["scale"] > 0).all() and (arrays["spreads"] > 0).all())
