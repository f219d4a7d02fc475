"""The model registry: which versions there are, where their bundles lie, and which one is the champion."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.database.audit import record
from lesion.database.object_store import bundle_key
from lesion.database.storage import Storage
from lesion.database.tables import Deployment, ModelVersion
from lesion.model.bundle import FACTS_FILE, Bundle
from lesion.registry import deployments
from lesion.registry.bundle_cache import BundleCache
from lesion.registry.deployments import RegistryError


class Registry:
    """Model versions and the ledger of champions, over a database and an object store.

    A bundle never changes, so a version is registered once. Every change of champion is a row that follows the row
    before it; of two changes at once the second is refused. Each row is also in the audit log.

    Args:
        storage: The loop's database and files.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._shelf = BundleCache(storage)

    def register(
        self,
        bundle_path: Path,
        *,
        parent: str | None = None,
        snapshot_id: str | None = None,
        job_id: str | None = None,
        actor: str = "registry",
    ) -> str:
        """Keep a bundle's files in the store and its facts in the database; again changes nothing.

        Args:
            bundle_path: The bundle's folder.
            parent: The version whose weights it started from.
            snapshot_id: What it was trained on.
            job_id: The retraining that made it; a job that comes again gets the version it registered first.
            actor: Who registers it, for the audit log.

        Returns:
            The version.

        Raises:
            BundleError: The bundle is not whole.
            StoreError: The store does not answer.
        """
        bundle = Bundle.open(bundle_path)
        if known := self._registered(bundle.version, job_id):
            return known
        names = [*bundle.facts["files"], FACTS_FILE]
        self.storage.store.put_folder(bundle_key(bundle.version), bundle.path, names)
        row = ModelVersion(
            version=bundle.version,
            name=bundle.name,
            parent=parent,
            snapshot_id=snapshot_id,
            job_id=job_id,
            facts=bundle.facts,
            files=names,
        )
        try:
            with self.storage.session() as session:
                session.add(row)
                session.flush()
                record(session, actor, "model.registered", bundle.version, job_id=job_id, snapshot_id=snapshot_id)
        except IntegrityError:
            known = self._registered(bundle.version, job_id)  # another process was first
            if known is None:
                raise
            return known
        return bundle.version

    def champion(self) -> Deployment | None:
        """Return the last row of the ledger, which says what is served; None while no model was deployed."""
        with self.storage.session() as session:
            return deployments.last_row(session)

    def deploy_first(self, version: str, actor: str, reason: str) -> Deployment:
        """Make a version the first champion; again changes nothing.

        Raises:
            RegistryError: The ledger began with another version (``ledger_not_empty``).
        """
        with self._ledger() as session:
            deployments.model_row(session, version)
            first = session.scalar(select(Deployment).where(Deployment.follows == 0))
            if first is not None and first.version != version:
                raise RegistryError(
                    f"The ledger began with {first.version}, so {version} cannot be the first champion. Promote it, "
                    "or use another storage.",
                    code="ledger_not_empty",
                )
            return first or deployments.append(session, None, version, deployments.FIRST, actor, reason)

    def promote(
        self, version: str, actor: str, reason: str, *, job_id: str | None = None, expected: int | None = None
    ) -> Deployment:
        """Make a version the champion.

        Args:
            version: A registered version.
            actor: Who promotes it.
            reason: Why.
            job_id: The retraining that promotes it; a job that comes again gets the row it wrote first.
            expected: The id of the ledger's row that the decision was made against.

        Raises:
            RegistryError: No such version (``model_unknown``), no first champion (``ledger_empty``), it is the champion
                already (``already_champion``), the champion changed meanwhile (``champion_changed``), or it has other
                classes than the champion (``classes_differ``).
        """
        with self._ledger() as session:
            if job_id and (done := session.scalar(select(Deployment).where(Deployment.job_id == job_id))):
                return done
            deployments.model_row(session, version)
            last = deployments.champion_row(session, expected)
            if last.version == version:
                raise RegistryError(f"{version} is the champion already.", code="already_champion")
            deployments.check_classes(session, version, last.version)
            return deployments.append(session, last, version, deployments.PROMOTE, actor, reason, job_id)

    def rollback(self, actor: str, reason: str, *, expected: int | None = None) -> Deployment:
        """Make the version before the champion the champion again; a second rollback goes further back.

        Args:
            actor: Who goes back.
            reason: Why.
            expected: The id of the ledger's row that the decision was made against.

        Raises:
            RegistryError: There is none before it (``nothing_before``), or the champion changed meanwhile
                (``champion_changed``).
        """
        with self._ledger() as session:
            last = deployments.champion_row(session, expected)
            version = deployments.previous(deployments.all_rows(session, last))
            if version is None:
                raise RegistryError(f"There is no version before {last.version} to go back to.", code="nothing_before")
            return deployments.append(session, last, version, deployments.ROLLBACK, actor, reason)

    def refuse(self, deployment_id: int, actor: str, reason: str) -> Deployment | None:
        """Go back from a champion whose bundle does not load, if it still is the champion.

        Returns:
            The row that was written; None when another one had followed already.

        Raises:
            RegistryError: No version was served before it that was not refused (``nothing_before``).
        """
        try:
            with self._ledger() as session:
                last = deployments.champion_row(session)
                if last.id != deployment_id:
                    return None
                version = deployments.fallback(deployments.all_rows(session, last))
                if version is None:
                    raise RegistryError(
                        f"{last.version} does not load, and there is no other version to go back to: {reason}",
                        code="nothing_before",
                    )
                sentence = f"{last.version} was refused: {reason}"[: deployments.MAX_REASON]
                return deployments.append(session, last, version, deployments.REFUSED, actor, sentence)
        except RegistryError as error:
            if error.code == "champion_changed":
                return None
            raise

    def history(self) -> list[Deployment]:
        """Return the whole ledger, the oldest row first."""
        with self.storage.session() as session:
            return list(deployments.all_rows(session))

    def models(self) -> list[ModelVersion]:
        """Return every registered version, the oldest first."""
        with self.storage.session() as session:
            return list(session.scalars(select(ModelVersion).order_by(ModelVersion.created_at, ModelVersion.version)))

    def model(self, version: str) -> ModelVersion:
        """Return one version.

        Raises:
            RegistryError: There is none (``model_unknown``).
        """
        with self.storage.session() as session:
            return deployments.model_row(session, version)

    def fetch(self, version: str) -> Path:
        """Bring a version's bundle to this machine, once, and verify it.

        A copy that is damaged is fetched again; only when the store's own is damaged is the bundle refused.

        Returns:
            The bundle's folder.

        Raises:
            RegistryError: There is no such version (``model_unknown``).
            BundleError: The bundle in the store is not whole.
            StoreError: The store does not answer, or is another one than the database's (``store_foreign``).
        """
        return self._shelf.fetch(version, [str(name) for name in self.model(version).files])

    def folder(self, version: str) -> Path:
        """Return what ``fetch`` does; a bundle that this registry verified is verified again only if a file changed."""
        return self._shelf.unchanged(version) or self.fetch(version)

    def cached(self, version: str) -> Path:
        """Return where this machine keeps a version's bundle once it was fetched."""
        return self._shelf.place(version)

    def _registered(self, version: str, job_id: str | None) -> str | None:
        with self.storage.session() as session:
            if job_id and (known := session.scalar(select(ModelVersion).where(ModelVersion.job_id == job_id))):
                return known.version
            return version if session.get(ModelVersion, version) else None

    @contextmanager
    def _ledger(self) -> Iterator[Session]:
        """One transaction that writes a row; ``follows`` is unique, so that one of two at once fails."""
        try:
            with self.storage.session() as session:
                yield session
        except IntegrityError as error:
            raise deployments.changed("Another change came first.") from error
