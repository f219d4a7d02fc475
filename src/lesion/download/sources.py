"""The sources of the two reference datasets: Kaggle, the Hugging Face hub, or a plain archive.

They could not be tried where this was written, which had no network. How certain each public source is:

- ``Simezu/brain-tumour-MRI-scan`` (hub): fairly certain. Several public projects read ``Training/1-notumor`` …
  ``4-pituitary/*.jpg`` from it, 5,712 + 1,311 images, as many as in the Kaggle dataset. The Parquet mirrors
  ``AIOmarRehan/Brain_Tumor_MRI_Dataset`` (apparently only the test split) and ``Hemg/Brain-Tumor-MRI-Dataset`` (7,023
  images in one split) lack the two splits that the layout needs.
- ``cassavaleafdata.zip`` (archive): certain. TensorFlow Datasets builds its ``cassava`` from it; size and checksum are
  from its ``url_checksums/cassava.txt``.
- ``pufanyi/cassava-leaf-disease-classification`` (hub, Parquet): uncertain, so only with ``--mirror``. According to its
  script it is a copy of the competition; one project finds the 9,430 images of 2019 there, another that it is gated.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lesion.core.errors import DataError
from lesion.core.text import join_names
from lesion.download import layout
from lesion.imaging.file_types import IMAGE_SUFFIXES

_SUFFIXES = [*sorted(IMAGE_SUFFIXES), ".zip", ".parquet", ".csv", ".json"]
_HUB_PATTERNS = [f"*{suffix}" for name in _SUFFIXES for suffix in (name, name.upper())]
_KAGGLE_HELP = (
    "make a token at https://www.kaggle.com/settings (API, Create New Token) and set KAGGLE_USERNAME and KAGGLE_KEY, "
    "or put kaggle.json into ~/.kaggle"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a download: its kind (kaggle, hub or url), its address and the revision or checksum."""

    source: str
    address: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to get one dataset."""

    kaggle: str
    competition: bool  # whether it is a competition, whose rules must be accepted on its page first
    hub: str | None  # a mirror on the Hugging Face hub, ``owner/name``; None where no dependable one is known
    url: str | None  # a public archive, if any
    sha256: str | None
    lay_out: layout.Layout
    note: str  # facts about the source that needs no credentials


RECIPES = {
    "brain_tumor_mri": Recipe(
        kaggle="masoudnickparvar/brain-tumor-mri-dataset",
        competition=False,
        hub="Simezu/brain-tumour-MRI-scan",
        url=None,
        sha256=None,
        lay_out=layout.brain_tumor_mri,
        note="A private person's mirror; the images are those of the Kaggle dataset as of 2021.",
    ),
    "cassava": Recipe(
        kaggle="cassava-leaf-disease-classification",
        competition=True,
        hub=None,
        url="https://storage.googleapis.com/emcassavadata/cassavaleafdata.zip",
        sha256="8ae63d2ef7dee0899d252a748523e603f97e2ae7022f103f92fc42a9fce74d95",
        lay_out=layout.cassava,
        note="The public dataset of 2019 (iCassava, 9,430 images, 1.35 GB), not the competition's 21,397 of 2020; its "
        "label 2 is green mite damage.",
    ),
}


def kaggle_credentials() -> bool:
    """Return whether Kaggle's own client finds credentials; a damaged file is a DataError (download_credentials)."""
    from kagglehub.config import get_kaggle_credentials

    try:
        return get_kaggle_credentials() is not None
    except (ValueError, OSError) as error:
        raise DataError(f"{error}; {_KAGGLE_HELP}.", code="download_credentials") from error


def from_kaggle(recipe: Recipe) -> tuple[Path, Origin]:
    """Download with kagglehub, which resumes, verifies and unpacks into its own cache (KAGGLEHUB_CACHE).

    Raise a DataError (download_credentials or download_network) if Kaggle does not deliver.
    """
    import kagglehub

    rules = f"accept the rules at https://www.kaggle.com/c/{recipe.kaggle}/rules" if recipe.competition else ""
    if recipe.competition and not kaggle_credentials():
        raise DataError(
            f"The Kaggle competition {recipe.kaggle} gives its data only to its members: {_KAGGLE_HELP}; then {rules} "
            "and run this again.",
            code="download_credentials",
        )
    try:
        fetch = kagglehub.competition_download if recipe.competition else kagglehub.dataset_download
        folder = Path(fetch(recipe.kaggle))
    except Exception as error:  # kagglehub raises its own errors, those of requests, and OSError
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise DataError(
                f"Kaggle refused {recipe.kaggle} (HTTP {status}): {_KAGGLE_HELP}{rules and f' and {rules}'}.",
                code="download_credentials",
            ) from error
        raise _unreachable("Kaggle", recipe.kaggle, error) from error
    return folder, Origin("kaggle", recipe.kaggle, folder.name)


def from_hub(repository: str, folder: Path) -> Origin:
    """Download the missing images, tables and archives of a dataset on the Hugging Face hub, ``owner/name``.

    Every file is compared with the checksum that the hub lists for it. ``HF_ENDPOINT`` names another hub, ``HF_TOKEN``
    gives access to gated repositories. A failure is a DataError with one of the codes of ``download``.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    with _hub_errors(repository):
        # The commit first: without a network, the hub's client would accept an incomplete folder for a branch.
        commit = api.dataset_info(repository, revision="main").sha
        api.snapshot_download(
            repository, repo_type="dataset", revision=commit, local_dir=folder, allow_patterns=_HUB_PATTERNS
        )
        verification = api.verify_repo_checksums(repository, repo_type="dataset", revision=commit, local_dir=folder)
    damaged = [mismatch["path"] for mismatch in verification.mismatches]
    for path in damaged:
        (folder / path).unlink()
    if damaged:
        raise DataError(
            f"{join_names(damaged, 3)} did not have the checksum that the hub lists and was deleted; run this again.",
            code="download_checksum",
        )
    return Origin("hub", repository, commit)


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise DataError(
            f"{repository} is gated: ask for access on its page, make a token at "
            "https://huggingface.co/settings/tokens and set HF_TOKEN to it, or choose another source.",
            code="download_credentials",
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"The hub has no dataset {repository}, or does not show it to you; check the name, and set HF_TOKEN if it "
            "is private.",
            code="download_refused",
        ) from error
    except ValueError as error:  # a name that is not owner/name, or a file that leads out of the folder
        raise DataError(
            f"{repository} cannot be used ({error}); choose another mirror.", code="download_refused"
        ) from error
    except Exception as error:  # the client's own errors, those of its HTTP library, and OSError
        raise _unreachable("The Hugging Face hub", repository, error) from error


def _unreachable(service: str, dataset: str, error: Exception) -> DataError:
    summary = (str(error).strip().splitlines() or [""])[0]
    return DataError(
        f"{service} did not deliver {dataset} ({type(error).__name__}: {summary}). Check the network and, behind a "
        "proxy, HTTPS_PROXY; then run the same command again: it continues where it stopped. Without a network, copy "
        "the data to this machine and name its folder with data.root.",
        code="download_network",
    )
