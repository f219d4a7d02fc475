"""The HTTP routes."""

from serve.routes import (
    artefacts,
    dataset,
    images,
    keys,
    models,
    predict,
    prometheus,
    quarantine,
    retrain,
    statistics,
    status,
    uploads,
)

# Each module adds its own; the order is the one in the OpenAPI document.
ROUTERS = (
    status.router,
    predict.router,
    models.router,
    artefacts.router,
    dataset.router,
    images.router,
    uploads.router,
    quarantine.router,
    retrain.router,
    keys.router,
    statistics.router,
    prometheus.router,
)
