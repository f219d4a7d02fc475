"""The HTTP routes."""

from serve.routes import (
    answer_records,
    artefacts,
    dataset,
    images,
    keys,
    models,
    predict,
    quarantine,
    retrain,
    statistics,
    status,
    uploads,
)

# The order is the one in the OpenAPI document.
_MODULES = (
    status,
    predict,
    models,
    artefacts,
    dataset,
    images,
    uploads,
    quarantine,
    retrain,
    answer_records,
    keys,
    statistics,
)
ROUTERS = tuple(module.router for module in _MODULES)
