"""Where the two reference data sets come from: Kaggle, the Hugging Face hub, or a plain archive.

None of the public sources could be tried where this was written, for want of a network. How sure each is:

- ``Simezu/brain-tumour-MRI-scan`` (hub): quite sure. Several public projects read ``Training/1-notumor`` …
  ``4-pituitary/*.jpg`` from it, 5,712 + 1,311 images, which are the numbers of the Kaggle set. Parquet mirrors of the
  same images: ``AIOmarRehan/Brain_Tumor_MRI_Dataset`` (its test split alone, it seems) and
  ``Hemg/Brain-Tumor-MRI-Dataset`` (7,023 images in one split). Neither has both splits, which the layout needs.
- ``cassavaleafdata.zip`` (archive): sure. It is what TensorFlow Datasets' ``cassava`` is built from; size and checksum
  stand in its ``url_checksums/cassava.txt``.
- ``pufanyi/cassava-leaf-disease-classification`` (hub, Parquet): not sure, so only by ``--mirror``. By the script that
  made it, it is a copy of the competition; another project finds the 9,430 images of 2019 there, a third that it is
  gated.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion.core.errors import DataError
from lesion.download import layout
from lesion.download.transfer import file_sha256

_HUB_PATTERNS = ["*.jpg", "*.jpeg", "*.png", "*.zip", "*.parquet", "*.csv", "*.json"]
KAGGLE_HELP = (
    "make a token at https://www.kaggle.com/settings (API, Create New Token) and set KAGGLE_USERNAME and KAGGLE_KEY, "
    "or put kaggle.json into ~/.kaggle"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to get one data set.

    Attributes:
        kaggle: Its handle on Kaggle.
        competition: Whether that is a competition, whose rules have to be accepted on its page first.
        hub: A mirror on the Hugging Face hub, ``owner/name``; None where no dependable one is known.
        url: A public archive; None where there is none.
        sha256: The archive's checksum.
        lay_out: Turns what was downloaded into the folder tree.
        note: What to know of the source that needs no credentials.
    """

    kaggle: str
    competition: bool
    hub: str | None
    url: str | None
    sha256: str | None
    lay_out: layout.Layout
    note: str


RECIPES = {
    "brain_tumor_mri": Recipe(
        kaggle="masoudnickparvar/brain-tumor-mri-dataset",
        competition=False,
        hub="Simezu/brain-tumour-MRI-scan",
        url=None,
        sha256=None,
        lay_out=layout.brain_tumor_mri,
        note="A mirror kept by a private person; the images are those of the Kaggle set as of 2021.",
    ),
    "cassava": Recipe(
        kaggle="cassava-leaf-disease-classification",
        competition=True,
        hub=None,
        url="https://storage.googleapis.com/emcassavadata/cassavaleafdata.zip",
        sha256="8ae63d2ef7dee0899d252a748523e603f97e2ae7022f103f92fc42a9fce74d95",
        lay_out=layout.cassava,
        note="The public set of 2019 (iCassava, 9,430 images, 1.35 GB), not the competition's 21,397 of 2020; label 2 "
        "is green mite damage there.",
    ),
}


def kaggle_credentials() -> bool:
    """Whether Kaggle's own client finds credentials.

    Raises:
        DataError: download_credentials, if its file is damaged.
    """
    from kagglehub.config import get_kaggle_credentials

    try:
        return get_kaggle_credentials() is not None
    except (ValueError, OSError) as error:
        raise DataError(f"{error}; {KAGGLE_HELP}.", code="download_credentials") from error


def from_kaggle(recipe: Recipe) -> tuple[Path, dict[str, Any]]:
    """Download through kagglehub, which resumes, verifies and unpacks into its own cache (KAGGLEHUB_CACHE).

    Args:
        recipe: The data set.

    Returns:
        The folder, and where it came from.

    Raises:
        DataError: download_credentials or download_network.
    """
    import kagglehub

    if recipe.competition and not kaggle_credentials():
        raise DataError(
            f"The Kaggle competition {recipe.kaggle} gives its data to its members only: {KAGGLE_HELP}; then accept "
            f"the rules at https://www.kaggle.com/c/{recipe.kaggle}/rules and run this again.",
            code="download_credentials",
        )
    try:
        fetch = kagglehub.competition_download if recipe.competition else kagglehub.dataset_download
        folder = Path(fetch(recipe.kaggle))
    except Exception as error:  # kagglehub raises its own, those of requests, and OSError
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            rules = f" and accept the rules at https://www.kaggle.com/c/{recipe.kaggle}/rules" * recipe.competition
            raise DataError(
                f"Kaggle refused {recipe.kaggle} (HTTP {status}): {KAGGLE_HELP}{rules}.", code="download_credentials"
            ) from error
        raise _unreachable("Kaggle", recipe.kaggle, error) from error
    return folder, {"source": "kaggle", "address": recipe.kaggle, "revision": folder.name}


def from_hub(repository: str, folder: Path, revision: str = "main") -> dict[str, Any]:
    """Download a data set's images, tables and archives from the Hugging Face hub, or what is missing of them.

    Every file is compared with the checksum that the hub lists for it. ``HF_ENDPOINT`` names another hub, ``HF_TOKEN``
    gives access to gated repositories.

    Args:
        repository: ``owner/name``.
        folder: Where to.
        revision: Branch, tag or commit.

    Returns:
        Where it came from, with the commit.

    Raises:
        DataError: download_credentials, download_refused, download_network or download_checksum.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT") or None
    api = HfApi(endpoint=endpoint)
    try:
        # The commit first: asked for a branch without a network, the hub's client takes half a folder for the whole.
        commit = api.dataset_info(repository, revision=revision).sha
        snapshot_download(
            repository, repo_type="dataset", revision=commit, local_dir=folder, allow_patterns=_HUB_PATTERNS,
            endpoint=endpoint,
        )  # fmt: skip
        tree = list(api.list_repo_tree(repository, recursive=True, revision=commit, repo_type="dataset"))
    except GatedRepoError as error:
        raise DataError(
            f"{repository} is gated: ask for access on its page, make a token at "
            "https://huggingface.co/settings/tokens and set HF_TOKEN to it, or choose another source.",
            code="download_credentials",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DataError(
            f"The hub has no data set {repository} with the revision {revision}, or not for you; check the name, and "
            "set HF_TOKEN if it is private.",
            code="download_refused",
        ) from error
    except Exception as error:  # the client's own errors, those of its HTTP library, and OSError
        raise _unreachable("The Hugging Face hub", repository, error) from error
    for entry in tree:
        _check_hub_file(folder, entry)
    return {"source": "hub", "address": repository, "revision": commit}


def _check_hub_file(folder: Path, entry: Any) -> None:  # noqa: ANN401 (RepoFile or RepoFolder, of several versions)
    path = folder / entry.path
    if not path.resolve().is_relative_to(folder.resolve()):  # a name from outside must never reach the unlink below
        raise DataError(
            f"The hub lists a file {entry.path!r} that leads out of the folder; choose another mirror.",
            code="download_refused",
        )
    if not path.is_file():
        return  # a folder, or of a kind that was not asked for
    if entry.lfs:
        right = file_sha256(path) == entry.lfs.sha256
    else:
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        right = blob.hexdigest() == entry.blob_id
    if not right:
        path.unlink()
        raise DataError(
            f"{path.name} does not have the checksum that the hub lists for it and was deleted; run this again.",
            code="download_checksum",
        )


def _unreachable(who: str, what: str, error: Exception) -> DataError:
    summary = (str(error).strip().splitlines() or [""])[0]
    return DataError(
        f"{who} could not deliver {what} ({type(error).__name__}: {summary}). Check the network and, behind a proxy, "
        "HTTPS_PROXY; then run the same command again: it goes on where it stopped. Without a network, copy the data "
        "here and name its folder with data.root.",
        code="download_network",
    )
