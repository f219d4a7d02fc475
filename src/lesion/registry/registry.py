"""The model registry: the registered versions, their bundles, and the ledger of champions."""

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
from lesion.model.bundle import Bundle
from lesion.model.bundle_facts import FACTS_FILE
from lesion.registry import deployments
from lesion.registry.bundle_cache import BundleCache
from lesion.registry.deployments import ChampionChangedError, RegistryError


class Registry:
    """Model versions and the ledger of champions, in a database and an object store.

    A bundle never changes, so a version is registered once. Every change of champion is a row that follows the row
    before it; if two changes are made at the same time, the second is refused. Each row is also in the audit log.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._cache = BundleCache(storage)

    def register(
        self,
        bundle_path: Path,
        *,
        parent: str | None = None,
        snapshot_id: str | None = None,
        job_id: str | None = None,
        actor: str = "registry",
    ) -> str:
        """Save a bundle's files in the store and its facts in the database; a second call changes nothing.

        Args:
            bundle_path: The bundle's folder.
            parent: The version whose weights the training started from.
            snapshot_id: The snapshot that it was trained on.
            job_id: The retraining that made it; a second call for the same job returns the version of the first.
            actor: Who registers it, for the audit log.

        Returns:
            The version.

        Raises:
            BundleError: The bundle is not complete.
            StoreError: The store does not answer.
        """
        bundle = Bundle.open(bundle_path)
        if existing := self._registered(bundle.version, job_id):
            return existing
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
            existing = self._registered(bundle.version, job_id)  # another process was first
            if existing is None:
                raise
            return existing
        return bundle.version

    def champion(self) -> Deployment | None:
        """Return the last row of the ledger, which names the served version; None if no model was deployed yet."""
        with self.storage.reading() as session:
            return deployments.last_row(session)

    def deploy_first(self, version: str, actor: str, reason: str) -> Deployment:
        """Make a version the first champion; a second call changes nothing.

        If the first champion is another version, raise a RegistryError (``ledger_not_empty``).
        """
        with self._ledger() as session:
            deployments.get_version(session, version)
            first = session.scalar(select(Deployment).where(Deployment.follows == 0))
            if first is not None and first.version != version:
                raise RegistryError(
                    f"The first champion is {first.version}, so {version} cannot be. Promote it, or use another "
                    "storage.",
                    code="ledger_not_empty",
                )
            return first or deployments.append(session, None, version, deployments.FIRST, actor, reason)

    def promote(
        self, version: str, actor: str, reason: str, *, job_id: str | None = None, expected: int | None = None
    ) -> Deployment:
        """Make a registered version the champion.

        Args:
            version: The version.
            actor: Who promotes it.
            reason: Why, for the ledger.
            job_id: The retraining that promotes it; a second call for the same job returns the row of the first.
            expected: The id of the ledger's row that the decision was made against.

        Raises:
            UnknownVersionError: There is no such version.
            ChampionChangedError: The champion is not the ``expected`` one.
            RegistryError: There is no first champion yet (``ledger_empty``), it is the champion already
                (``already_champion``), or its classes differ from the champion's (``classes_differ``).
        """
        with self._ledger() as session:
            if job_id and (existing := session.scalar(select(Deployment).where(Deployment.job_id == job_id))):
                return existing
            deployments.get_version(session, version)
            last = deployments.champion_row(session, expected)
            if last.version == version:
                raise RegistryError(f"{version} is the champion already.", code="already_champion")
            deployments.check_classes(session, version, last.version)
            return deployments.append(session, last, version, deployments.PROMOTE, actor, reason, job_id)

    def rollback(self, actor: str, reason: str, *, expected: int | None = None) -> Deployment:
        """Make the version before the champion the champion again; a second rollback returns to an older version.

        The arguments are those of :meth:`promote`.

        Raises:
            ChampionChangedError: The champion is not the ``expected`` one.
            RegistryError: There is no version before the champion (``nothing_before``).
        """
        with self._ledger() as session:
            last = deployments.champion_row(session, expected)
            version = deployments.previous(deployments.all_rows(session, last))
            if version is None:
                raise RegistryError(f"There is no version before {last.version} to return to.", code="nothing_before")
            return deployments.append(session, last, version, deployments.ROLLBACK, actor, reason)

    def refuse(self, deployment_id: int, actor: str, reason: str) -> Deployment | None:
        """Return to an older version if the champion's bundle does not load.

        Return the new row; None if that deployment is no longer the champion. If no other version was the champion
        before without being refused, raise a RegistryError (``nothing_before``).
        """
        try:
            with self._ledger() as session:
                last = deployments.champion_row(session)
                if last.id != deployment_id:
                    return None
                version = deployments.fallback(deployments.all_rows(session, last))
                if version is None:
                    raise RegistryError(
                        f"{last.version} does not load, and there is no other version to return to: {reason}",
                        code="nothing_before",
                    )
                sentence = f"{last.version} was refused: {reason}"[: deployments.MAX_REASON]
                return deployments.append(session, last, version, deployments.REFUSED, actor, sentence)
        except ChampionChangedError:
            return None

    def history(self) -> list[Deployment]:
        """Return the whole ledger, the oldest row first."""
        with self.storage.reading() as session:
            return list(deployments.all_rows(session))

    def models(self) -> list[ModelVersion]:
        """Return all registered versions, the oldest first."""
        with self.storage.reading() as session:
            return list(session.scalars(select(ModelVersion).order_by(ModelVersion.created_at, ModelVersion.version)))

    def model(self, version: str) -> ModelVersion:
        """Return a registered version, or raise an UnknownVersionError."""
        with self.storage.reading() as session:
            return deployments.get_version(session, version)

    def fetch(self, version: str) -> Path:
        """Copy a version's bundle to this machine's cache, verify it and return its folder.

        A damaged copy is fetched again.

        Raises:
            UnknownVersionError: There is no such version.
            BundleError: The bundle in the store is damaged or not complete.
            StoreError: The store does not answer, or belongs to another database (``store_foreign``).
        """
        return self._cache.fetch(version, [str(name) for name in self.model(version).files])

    def folder(self, version: str) -> Path:
        """Do the same as :meth:`fetch`, but verify the bundle again only if a file changed since the last time."""
        return self._cache.unchanged(version) or self.fetch(version)

    def cached(self, version: str) -> Path:
        """Return the folder in this machine's cache that a version's bundle is fetched to."""
        return self._cache.path(version)

    def _registered(self, version: str, job_id: str | None) -> str | None:
        with self.storage.session() as session:
            if job_id and (model := session.scalar(select(ModelVersion).where(ModelVersion.job_id == job_id))):
                return model.version
            return version if session.get(ModelVersion, version) else None

    @contextmanager
    def _ledger(self) -> Iterator[Session]:
        """Open a transaction that writes a row; ``follows`` is unique, so one of two simultaneous changes fails."""
        try:
            with self.storage.session() as session:
                yield session
        except IntegrityError as error:
            raise ChampionChangedError(
                "The champion changed meanwhile: another change was made at the same time. Look at the new champion "
                "and decide again."
            ) from error
