"""Serve a bundle over HTTP.

python scripts/serve.py bundle=outputs/bundle port=8000 server.workers=2
python scripts/serve.py bundle=outputs/bundle storage=local   # with uploads, retraining and rollback
"""

import sys
from pathlib import Path

# This file's folder would hide the package ``serve`` behind this very file.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import hydra  # noqa: E402
from hydra.utils import instantiate  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402


@hydra.main(version_base="1.3", config_path="../configs", config_name="serve")
def main(config: DictConfig) -> None:
    """Start the server and wait for its end."""
    from lesion.core.cli_errors import cli_errors
    from serve.launch import serve

    with cli_errors():
        settings = OmegaConf.to_container(config, resolve=True)
        for name in ("paths", "storage_root"):
            settings.pop(name, None)
        for name in ("storage", "intake"):
            settings[name] = instantiate(config[name])
    sys.exit(serve(**settings))


if __name__ == "__main__":
    main()
