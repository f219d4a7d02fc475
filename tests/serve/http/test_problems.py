"""The HTTP status of each error: one table by class, and every code keeps the status that clients know it by."""

import pickle

import pytest

from lesion.auth.api_keys import KeyConflictError, KeyNotFoundError, KeyRefusedError
from lesion.catalogue.images import CatalogueError
from lesion.core.errors import (
    BundleError,
    ConfigError,
    ConflictError,
    DataError,
    ImageError,
    InvalidValueError,
    LesionError,
    NotFoundError,
    TooLargeError,
    UnsupportedTypeError,
)
from lesion.database.object_store import ObjectNotFoundError, StoreContentError, StoreError, StoreFullError
from lesion.download.archives import ArchiveRefusedError
from lesion.imaging.refusals import EmptyImageError, ImageTooLargeError, ImageTypeError, UnreadableFileError
from lesion.registry.deployments import ChampionChangedError, InvalidReasonError, RegistryError, UnknownVersionError
from lesion.retraining.jobs import JobError, JobNotFoundError, JobRunningError, RequestInvalidError
from lesion.retraining.leases import JobCancelledError
from serve.http.problems import ForbiddenError, TooManyRequestsError, UnauthorizedError, problem_of, status_of
from serve.request_errors import BodyTimeoutError, BusyError, RequestError
from serve.routes.artefacts import ArtefactMissingError

# The class of each code that an HTTP response can have, and its status. A class with a single code has it by default.
RESPONSES: list[tuple[int, type[LesionError], tuple[str, ...]]] = [
    (400, ConfigError, ("config_invalid", "database_newer", "database_unreachable", "store_unusable")),
    (400, EmptyImageError, ("image_empty",)),
    (400, RequestError, ("file_missing",)),
    (400, UnreadableFileError, ("image_not_a_file", "image_unreadable")),
    (401, UnauthorizedError, ("key_missing", "key_unknown")),
    (403, ForbiddenError, ("not_local", "origin_foreign", "role_insufficient")),
    (404, ArtefactMissingError, ("artefact_missing",)),
    (404, JobNotFoundError, ("job_unknown", "report_missing")),
    (404, KeyNotFoundError, ("key_not_found",)),
    (
        404,
        NotFoundError,
        ("change_unknown", "class_empty", "image_deleted", "image_unknown", "no_storage", "snapshot_unknown"),
    ),
    (404, ObjectNotFoundError, ("file_gone",)),
    (404, UnknownVersionError, ("model_unknown",)),
    (408, BodyTimeoutError, ("body_timeout",)),
    (409, CatalogueError, ("accepted_otherwise", "catalogue_empty", "decision_changed", "not_quarantined")),
    (409, CatalogueError, ("nothing_to_undo", "picture_deleted", "undo_too_late")),
    (409, ChampionChangedError, ("champion_changed",)),
    (409, ConflictError, ("conflict", "image_contested")),
    (409, JobCancelledError, ("job_cancelled",)),
    (409, JobError, ("job_over", "no_champion")),
    (409, KeyConflictError, ("first_key_must_be_admin", "key_differs", "last_admin_key")),
    (409, RegistryError, ("already_champion", "classes_differ", "ledger_empty", "ledger_not_empty", "nothing_before")),
    (413, ImageTooLargeError, ("image_too_many_bytes", "image_too_many_pixels")),
    (413, TooLargeError, ("body_too_large", "too_large")),
    (415, ImageTypeError, ("image_not_recognised", "image_type_not_supported")),
    (
        415,
        UnsupportedTypeError,
        ("charset_not_supported", "encoding_not_supported", "media_type_not_supported", "type_not_supported"),
    ),
    (422, ArchiveRefusedError, ("archive_refused",)),
    (422, DataError, ("class_missing", "data_invalid", "label_ambiguous")),
    (422, ImageError, ("image_animated", "image_corrupt", "image_mode_not_supported", "image_too_small")),
    (422, ImageError, ("image_truncated",)),
    (422, InvalidReasonError, ("reason_missing",)),
    (422, KeyRefusedError, ("key_invalid",)),
    (422, InvalidValueError, ("reason_missing", "value_invalid")),
    (422, InvalidValueError, ("archive_not_alone", "class_unknown", "class_without_explain", "field_invalid")),
    (422, InvalidValueError, ("field_repeated", "label_missing", "label_unknown", "layers_without_explain")),
    (422, RequestInvalidError, ("idempotency_key_invalid", "idempotency_key_reused", "retrain_invalid")),
    (429, TooManyRequestsError, ("quota_spent", "rate_limited")),
    (500, LesionError, ("inference_failed",)),
    (503, BundleError, ("bundle_external_data", "bundle_facts_invalid", "bundle_file_altered", "bundle_file_invalid")),
    (503, BundleError, ("bundle_file_missing", "bundle_file_unexpected", "bundle_format_unknown", "bundle_refused")),
    (503, BundleError, ("bundle_golden_mismatch", "bundle_link", "bundle_missing", "bundle_pickle")),
    (503, BundleError, ("bundle_exists", "bundle_version_mismatch", "domain_unfit")),
    (503, BusyError, ("no_worker_ready", "queue_full", "server_busy", "shutting_down", "timed_out", "worker_died")),
    (503, StoreContentError, ("store_foreign", "store_wrong")),
    (503, StoreError, ("store_failed",)),
    (503, StoreError, ("store_slow", "store_unmounted")),
    (507, StoreFullError, ("storage_full",)),
]
CASES = [(status, kind, code) for status, kind, codes in RESPONSES for code in codes]
ONE_CODE = [(kind, codes[0]) for _, kind, codes in RESPONSES if len(codes) == 1 and codes[0] != "image_truncated"]


@pytest.mark.parametrize(("status", "kind", "code"), CASES)
def test_every_code_keeps_its_status(status: int, kind: type[LesionError], code: str) -> None:
    error = kind("It is so.", code=code)
    assert (status_of(error), error.code) == (status, code)
    response = problem_of({}, error)
    assert (response.status_code, response.media_type) == (status, "application/problem+json")


@pytest.mark.parametrize(("kind", "code"), ONE_CODE)
def test_a_class_with_one_code_has_it_by_default(kind: type[LesionError], code: str) -> None:
    if kind not in (LesionError, RequestError):
        assert kind("It is so.").code == code


def test_a_running_job_is_a_conflict() -> None:
    error = JobRunningError("0" * 32)
    assert (status_of(error), error.code) == (409, "job_running")


def test_the_kind_decides_before_the_subject() -> None:
    class MissingBundleError(NotFoundError, BundleError):
        """Of a kind and a subject."""

    class SpecialBundleError(BundleError):
        """Of a subject alone."""

    assert (status_of(MissingBundleError("no")), status_of(SpecialBundleError("no"))) == (404, 503)
    assert status_of(LesionError("no")) == 500


@pytest.mark.parametrize(
    "error", [ImageTooLargeError("Too large.", code="image_too_many_bytes"), InvalidValueError("No.")]
)
def test_an_error_of_an_inference_worker_arrives_as_it_was_raised(error: LesionError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), arrived.message, arrived.code) == (type(error), error.message, error.code)
    assert status_of(arrived) == status_of(error)
