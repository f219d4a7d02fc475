"""The HTTP routes."""

from serve.routes import keys, models, predict, quarantine, retrain, status, uploads

# Each module adds its own; the order is the one in the OpenAPI document.
ROUTERS = (
    status.router,
    predict.router,
    models.router,
    uploads.router,
    quarantine.router,
    retrain.router,
    keys.router,
)
