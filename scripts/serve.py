"""Serve a bundle over HTTP.

python scripts/serve.py bundle=outputs/bundle port=8000 server.workers=2
"""

import sys
from pathlib import Path

# This file's folder would hide the package ``serve`` behind this very file.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import hydra  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402


@hydra.main(version_base="1.3", config_path="../configs", config_name="serve")
def main(config: DictConfig) -> None:
    """Start the server and wait for its end."""
    from serve.main import serve

    settings = OmegaConf.to_container(config, resolve=True)
    sys.exit(serve(**settings))


if __name__ == "__main__":
    main()
