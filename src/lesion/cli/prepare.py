"""Makes a storage ready for servers and workers: its tables, the keys of its operator and its first model."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesion.auth import api_keys
from lesion.cli.models import import_run
from lesion.core.cli_errors import quoted
from lesion.core.errors import ConfigError
from lesion.database.storage import Storage
from lesion.model.bundle import FACTS_FILE
from lesion.registry.registry import Registry

ACTOR = "prepare"
# Which environment variable brings which key. The first key must be an admin's.
KEYS: Mapping[str, tuple[str, api_keys.Role]] = {
    "LESION_ADMIN_KEY": ("operator", "admin"),
    "LESION_METRICS_KEY": ("prometheus", "viewer"),
}


@dataclass(frozen=True)
class FirstTraining:
    """The training of a first model, for a storage that is given none.

    Attributes:
        script: ``scripts/train.py``.
        experiment: The experiment of its configs; none is trained when None.
        folder: Where it keeps data and the run; one that was stopped goes on there.
        settings: Further settings.
    """

    script: Path
    experiment: str | None
    folder: Path
    settings: tuple[str, ...] = ()

    def run(self) -> Path:
        """Train, unless it is done already, and return the run's folder.

        Raises:
            ConfigError: There is no experiment (``no_first_model``), or the training failed, and its own output says
                why (``training_failed``).
        """
        if self.experiment is None:
            raise ConfigError(
                "This database has no model yet, and none was given. Is it the right database (LESION_DATABASE)? Then "
                "give one: bundle=outputs/NAME/TIME here, or scripts/models.py import from a machine that has it. To "
                "try Lesion with a model of generated images: first_experiment=phantom_mri.",
                code="no_first_model",
            )
        run = (self.folder / "run").resolve()
        if (run / "bundle" / FACTS_FILE).is_file():
            return run
        settings = {
            "experiment": self.experiment,
            "hydra.run.dir": run,
            "paths.data": self.folder.resolve() / "data",
            "logger": "csv",
        }
        checkpoint = run / "checkpoints" / "last.ckpt"
        if checkpoint.is_file():
            settings["resume"] = checkpoint
        given = [f"{name}={quoted(str(value))}" for name, value in settings.items()]
        tether = [sys.executable, "-m", "lesion.core.parent_death", str(os.getpid())]  # it ends with this process
        status = subprocess.run(
            [*tether, sys.executable, str(self.script), *given, *self.settings], check=False
        ).returncode
        if status:
            raise ConfigError(
                f"The first model could not be trained (exit status {status}); the lines above say why. Start again "
                "and it goes on, or give a trained one: bundle=outputs/NAME/TIME.",
                code="training_failed",
            )
        return run


def prepare(
    storage: Storage, training: FirstTraining, bundle: Path | None = None, environment: Mapping[str, str] = os.environ
) -> None:
    """Bring a storage to where servers and workers can start on it, and say what was done; again changes nothing.

    Args:
        storage: The loop's database and files.
        training: How to make a first model when there is neither one nor a bundle.
        bundle: The folder of a run, or its bundle's, to take as the first model.
        environment: What brings the keys that :data:`KEYS` names.

    Raises:
        ConfigError: The database cannot be used, there is no model and none is to be trained, or the training failed.
        KeyRefusedError: A key of the environment is no key, or contradicts one that there is.
        LesionError: What :func:`lesion.cli.models.import_run` refuses.
    """
    storage.upgrade()
    _say("The tables are up to date.")
    _ensure_keys(storage, environment)  # before the training: a wrong key is told at once
    _ensure_model(storage, training, bundle)


def _ensure_keys(storage: Storage, environment: Mapping[str, str]) -> None:
    for variable, (name, role) in KEYS.items():
        if text := environment.get(variable):
            key = api_keys.ensure(storage, text, name, role, ACTOR)
            state = "is kept" if key.revoked_at is None else "WAS REVOKED and stays so; make another one"
            _say(f"The key of {variable} ({key.id}, {key.name}, {key.role}) {state}.")
    if not api_keys.any_usable(storage):
        _say(f"There is NO API KEY: a server will answer its own machine alone. Give {next(iter(KEYS))}.")


def _ensure_model(storage: Storage, training: FirstTraining, bundle: Path | None) -> None:
    champion = Registry(storage).champion()
    if champion is not None:
        given = "" if bundle is None else f" '{bundle}' is left aside: scripts/models.py imports further models."
        _say(f"The champion is {champion.version}.{given}")
        return
    if bundle is None:
        if training.experiment is not None:
            _announce(training.experiment)
        bundle = training.run()
    facts = import_run(storage, bundle, ACTOR, "the first model")
    _say(f"Imported {facts['images']:,} images; {facts['version']} is the champion.")


def _announce(experiment: str) -> None:
    _say(
        f"THERE IS NO MODEL YET AND NONE WAS GIVEN: training one now, first_experiment={experiment}, which takes "
        "minutes. A model of generated images (phantoms) is good for trying Lesion and for nothing else. To begin with "
        "your own, stop this and give bundle=outputs/NAME/TIME."
    )


def _say(words: str) -> None:
    print(words, flush=True)
