"""Serve a bundle over HTTP.

lesion serve bundle=outputs/bundle port=8000 server.workers=2
lesion serve bundle=outputs/bundle storage=local   # with uploads, retraining and rollback
"""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lesion.core.commands import run_with_hydra


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the server and wait for its end; settings are Hydra's (configs/serve.yaml)."""
    run_with_hydra(_serve, "serve", arguments)
    return 0


def _serve(config: DictConfig) -> None:
    from hydra.utils import instantiate

    from serve.launch import serve

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for name in ("paths", "storage_root"):
        settings.pop(name, None)
    for name in ("storage", "intake"):
        settings[name] = instantiate(config[name])
    raise SystemExit(serve(**settings))
