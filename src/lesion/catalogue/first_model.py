"""The import of a training run: its images become the first snapshot and its bundle a version, perhaps the champion."""

from pathlib import Path
from typing import TypedDict

from lesion.core.errors import ConfigError
from lesion.database.storage import Storage
from lesion.model.bundle import Bundle
from lesion.model.bundle_facts import FACTS_FILE
from lesion.registry.registry import Registry


class ImportedRun(TypedDict):
    """What an import brought: the version, its snapshot, the number of images, and whether it is the champion."""

    version: str
    snapshot_id: str
    images: int
    champion: bool


def import_run(storage: Storage, run: Path, actor: str, reason: str) -> ImportedRun:
    """Import a training run: its images as the first snapshot, its bundle as a version; the first one is the champion.

    ``run`` is the run's folder or that of its bundle, ``reason`` is for the ledger. Called again it changes nothing; an
    import that was interrupted continues. A SignatureError tells that the bundle was signed by none of the storage's
    signers, where it has any. A ConfigError tells that the folder is not a complete run, or that its bundle
    was trained on other data than its manifest lists; see :func:`lesion.catalogue.import_run.import_manifest` too.
    """
    from lesion.catalogue.import_run import import_manifest  # needs pandas, which a server does without
    from lesion.data.manifest import Manifest

    run = run.resolve().parent if (run / FACTS_FILE).is_file() else run
    bundle = Bundle.open(run / "bundle")
    if storage.signers:
        from lesion.registry import bundle_signatures

        bundle_signatures.verify(bundle, [Path(signer) for signer in storage.signers])
    if not (run / "manifest.parquet").is_file():
        raise ConfigError(
            f"'{run}' has a bundle and no manifest.parquet, but retraining needs the data that the bundle was trained "
            "on. Import the folder of the whole run, as 'lesion train' wrote it.",
            code="manifest_missing",
        )
    manifest = Manifest.load(run / "manifest.parquet")
    if bundle.facts.get("data", {}).get("fingerprint") != manifest.fingerprint:
        raise ConfigError(
            f"The bundle in '{run}' was trained on other data than its manifest.parquet lists.", code="manifest_differs"
        )
    if tuple(manifest.classes) != bundle.classes:
        raise ConfigError(f"The bundle in '{run}' has other classes than its manifest.", code="manifest_differs")
    snapshot = import_manifest(storage, manifest)
    registry = Registry(storage)
    version = registry.register(bundle.path, snapshot_id=snapshot, actor=actor)
    champion = registry.champion() or registry.deploy_first(version, actor, reason)
    is_champion = champion.version == version
    return ImportedRun(version=version, snapshot_id=snapshot, images=len(manifest.table), champion=is_champion)
