"""Make a storage ready for servers and workers: its tables, its API keys and its first model: lesion prepare.

Settings are Hydra's (configs/prepare.yaml); the storage must be the server's: storage=cluster for all. Keys come from
the environment: LESION_ADMIN_KEY (role admin) and LESION_METRICS_KEY (role viewer, for Prometheus).
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from lesion.auth import api_keys
from lesion.catalogue.first_model import import_run
from lesion.core.commands import lesion_command, quote_hydra_value, run_with_hydra
from lesion.core.errors import ConfigError
from lesion.core.roles import Role
from lesion.database.storage import Storage
from lesion.identity.identity_key import open_pseudonyms
from lesion.model.bundle_facts import FACTS_FILE
from lesion.registry.registry import Registry

_ACTOR = "prepare"
_say = partial(print, flush=True)
# The name and role of the key that each environment variable brings. The first key must be an admin's.
_KEYS: Mapping[str, tuple[str, Role]] = {
    "LESION_ADMIN_KEY": ("operator", "admin"),
    "LESION_METRICS_KEY": ("prometheus", "viewer"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the storage and end; see the module's docstring."""
    run_with_hydra(_prepare, "prepare", arguments)
    return 0


def _prepare(config: DictConfig) -> None:
    from hydra.utils import instantiate

    training = FirstTraining(config.first_experiment, Path(config.folder), tuple(config.settings))
    prepare(instantiate(config.storage), training, config.bundle and Path(config.bundle))


@dataclass(frozen=True)
class FirstTraining:
    """The training of a first model, for a storage that has none."""

    experiment: str | None  # the experiment (``configs/experiment``) to train; None to train nothing
    folder: Path  # where it keeps data and the run; a training that was stopped continues there
    settings: tuple[str, ...] = ()  # further settings of ``configs/train.yaml``
    # What trains; it gets the settings as arguments.
    command: Sequence[str] = field(default_factory=lambda: lesion_command("train"))

    def run(self) -> Path:
        """Train, unless it is done already, and return the run's folder.

        Without an experiment (``no_first_model``), and after a training that failed (``training_failed``) and printed
        why, raise a ConfigError.
        """
        if self.experiment is None:
            raise ConfigError(
                "This database has no model yet, and none was given. Is it the right database (LESION_DATABASE)? Then "
                "give one: bundle=outputs/NAME/TIME here, or 'lesion models import' from a machine that has it. To "
                "try Lesion with a model of generated images: first_experiment=phantom_mri.",
                code="no_first_model",
            )
        run = (self.folder / "run").resolve()
        if (run / "bundle" / FACTS_FILE).is_file():
            return run
        parent_death = [sys.executable, "-m", "lesion.core.parent_death", str(os.getpid())]  # it ends with this process
        status = subprocess.run([*parent_death, *self.command, *self._arguments(run)], check=False).returncode
        if status:
            raise ConfigError(
                f"The first model could not be trained (exit status {status}); the lines above say why. Start again to "
                "continue, or give a trained model: bundle=outputs/NAME/TIME.",
                code="training_failed",
            )
        return run

    def _arguments(self, run: Path) -> list[str]:
        settings = {"experiment": self.experiment, "hydra.run.dir": run, "paths.data": self.folder.resolve() / "data"}
        settings["logger"] = "csv"
        checkpoint = run / "checkpoints" / "last.ckpt"
        if checkpoint.is_file():
            settings["resume"] = checkpoint
        return [*(f"{name}={quote_hydra_value(str(value))}" for name, value in settings.items()), *self.settings]


def prepare(
    storage: Storage, training: FirstTraining, bundle: Path | None = None, environment: Mapping[str, str] = os.environ
) -> None:
    """Bring a storage to where servers and workers can start on it, and print what was done.

    Called again, it changes nothing. ``bundle`` is the folder of a run, or of its bundle, to import as the first model;
    ``training`` makes one if there is neither a model nor a bundle. The ``environment`` holds the keys.

    Raises:
        ConfigError: The database or the identity key cannot be used, there is no model and none is to be trained, or
            the training failed.
        KeyRefusedError: A key of the environment is not a key, or contradicts a stored one.
    """
    storage.upgrade()
    _say("The tables are up to date.")
    open_pseudonyms(storage)  # before the training, so that a missing or wrong key is reported at once
    _ensure_keys(storage, environment)
    _ensure_model(storage, training, bundle)


def _ensure_keys(storage: Storage, environment: Mapping[str, str]) -> None:
    for variable, (name, role) in _KEYS.items():
        if text := environment.get(variable):
            key = api_keys.ensure(storage, text, name, role, _ACTOR)
            state = "is kept" if key.revoked_at is None else "WAS REVOKED and stays so; make another one"
            _say(f"The key of {variable} ({key.id}, {key.name}, {key.role}) {state}.")
    if not api_keys.any_usable(storage):
        _say(f"There is NO API KEY: a server will answer its own machine only. Set {next(iter(_KEYS))}.")


def _ensure_model(storage: Storage, training: FirstTraining, bundle: Path | None) -> None:
    champion = Registry(storage).champion()
    if champion is not None:
        ignored = "" if bundle is None else f" '{bundle}' is not imported: 'lesion models import' adds further models."
        _say(f"The champion is {champion.version}.{ignored}")
        return
    if bundle is None:
        if training.experiment is not None:
            _say(
                f"THERE IS NO MODEL YET AND NONE WAS GIVEN: training one now, first_experiment={training.experiment}, "
                "which takes minutes. A model of generated images (phantoms) is only for trying Lesion. To begin with "
                "your own model, stop this and give bundle=outputs/NAME/TIME."
            )
        bundle = training.run()
    imported = import_run(storage, bundle, _ACTOR, "the first model")
    _say(f"Imported {imported['images']:,} images; {imported['version']} is the champion.")
