"""The manifest: one row per image, with its hashes, its group and its split. Every later step starts from it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.core.files import atomic_path
from lesion.core.text import join_names, natural_order
from lesion.data.inspection import ImageRecord, inspect_all, number_patients
from lesion.data.scan import MASKS
from lesion.data.splits import SPLITS, assign_folds, split_by_folder, split_groups
from lesion.deduplication.duplicates import near_duplicate_pairs
from lesion.deduplication.grouping import groups, merge_groups
from lesion.imaging.limits import DEFAULT_LIMITS, Limits

EXCLUDED = "excluded"
Policy = Literal["grouped", "folder"]
COLUMNS = (
    "path", "label", "split", "source_split", "patient", "group", "duplicate_group", "sha256", "pixel_sha256", "phash",
    "width", "height", "mode", "format", "device", "bytes", "brightness",
)  # fmt: skip
METADATA = b"lesion.manifest"


@dataclass(frozen=True, eq=False)
class Manifest:
    """A dataset whose images have been decoded, grouped and split.

    Attributes:
        name: The dataset's name.
        root: The folder that paths are relative to.
        table: One row per image with the columns ``COLUMNS``, sorted by path. ``duplicate_group`` joins images with
            equal pixels and copies of one picture; ``group`` also joins images that may show one picture and those of
            one patient, and a ``grouped`` split never divides it.
        classes: The classes in the order of the network's outputs: 2 before 10 in a manifest that is made now.
        policy: ``grouped`` (a new split by group) or ``folder`` (keep the test split that came with the data).
        seed: The seed of the split.
        refused: The images that the decoder refused: path, code, reason.
        masks: The paths of masks, relative to ``root``, by the path of the image that they belong to.
    """

    name: str
    root: Path
    table: pd.DataFrame
    classes: tuple[str, ...]
    policy: Policy
    seed: int
    refused: tuple[dict[str, str], ...] = ()
    masks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def split(self, name: str) -> pd.DataFrame:
        """Return the rows of one split, in the table's order."""
        return self.table[self.table["split"] == name].reset_index(drop=True)

    def labels(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """Return the class indices of rows, (N,)."""
        return pd.Categorical(rows["label"], categories=list(self.classes)).codes.astype(np.int64)

    @property
    def limits(self) -> Limits:
        """The limits within which each image is, as far as they differ from the usual ones."""
        if self.table.empty:
            return DEFAULT_LIMITS
        width, height = self.table["width"].astype("int64"), self.table["height"].astype("int64")
        return DEFAULT_LIMITS.covering(
            int(self.table["bytes"].max()), int((width * height).max()), int(min(width.min(), height.min()))
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the classes and each image's pixels, label and split; paths and row order do not matter."""
        rows = sorted(zip(self.table["pixel_sha256"], self.table["label"], self.table["split"], strict=True))
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()

    def resplit(self, policy: Policy, fractions: Mapping[str, float], seed: int) -> "Manifest":
        """Return the same images with a new split; excluded images stay excluded.

        Args:
            policy: ``grouped`` splits all images by group and uses only the first of several with equal pixels.
                ``folder`` keeps the test (and validation) split that came with the data, with its copies, and takes
                the missing splits from its training images, by group.
            fractions: The shares of train, val, calibration and test.
            seed: The seed of the split.

        Raises:
            DataError: The split is impossible.
        """
        table, copies = self.table.copy(), self.copies()
        used = ~copies & (table["split"] != EXCLUDED)
        if policy == "folder":
            used |= copies
        rows = table[used]
        labels, group = self.labels(rows), rows["group"].to_numpy()
        if policy == "grouped":
            splits = split_groups(labels, group, fractions, seed, self.classes)
        elif policy == "folder":
            source = rows["source_split"].to_numpy().astype(str)
            splits = split_by_folder(source, labels, group, fractions, seed, self.classes)
        else:
            raise DataError(f"data.split is '{policy}', which does not exist; choose grouped or folder.")
        table["split"] = EXCLUDED
        table.loc[used, "split"] = splits
        return replace(self, table=table, policy=policy, seed=seed)

    def folds(self, folds: int, fractions: Mapping[str, float], seed: int) -> list["Manifest"]:
        """Return the same images once for each of ``folds`` folds, which is its test split.

        The other images are divided by the ``fractions`` of train, val and calibration. Groups are never divided, and
        of several images with equal pixels only the first is used. A class with fewer groups than folds is a DataError.
        """
        table = self.table.copy()
        used = ~self.copies() & (table["split"] != EXCLUDED)
        rows = table[used]
        labels, group = self.labels(rows), rows["group"].to_numpy()
        fold = assign_folds(labels, group, folds, seed, self.classes)
        rest = {name: share for name, share in fractions.items() if name != "test"}
        shares = {name: share / sum(rest.values()) for name, share in rest.items()}
        manifests = []
        for number in range(folds):
            others = fold != number
            splits = np.full(len(rows), "test", dtype="<U16")
            splits[others] = split_groups(labels[others], group[others], shares, seed, self.classes)
            changed = table.assign(split=EXCLUDED)
            changed.loc[used, "split"] = splits
            manifests.append(replace(self, table=changed, policy="grouped", seed=seed))
        return manifests

    def copies(self) -> "pd.Series[bool]":
        """Return which rows have the same pixels as an earlier row of the same class and would count twice."""
        return self.table.duplicated(["pixel_sha256", "label"]) & ~_conflicting(self.table)

    def used(self) -> pd.DataFrame:
        """Return the rows that are in a split."""
        return self.table[self.table["split"] != EXCLUDED]

    def conflicts(self) -> pd.DataFrame:
        """Return the rows of near-duplicate groups with more than one class: some are probably mislabeled."""
        classes = self.table.groupby("duplicate_group")["label"].transform("nunique")
        return self.table[classes > 1].sort_values(["duplicate_group", "path"], ignore_index=True)

    def facts(self) -> dict[str, Any]:
        """Return the facts for reports and model cards, ready for JSON."""
        counts = {name: self.split(name)["label"].value_counts() for name in (*SPLITS, EXCLUDED)}
        sizes = self.table["duplicate_group"].value_counts()
        conflicts, excluded = self.conflicts(), self.table["split"] == EXCLUDED
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "policy": self.policy,
            "images": {
                name: {label: int(count.get(label, 0)) for label in self.classes}
                for name, count in counts.items()
                if len(count)
            },
            "groups": int(self.table["group"].nunique()),
            "duplicate_groups": int((sizes > 1).sum()),
            "duplicate_images": int(sizes[sizes > 1].sum()),
            "patients": int(self.table.loc[self.table["patient"] != "", "patient"].nunique()),
            "excluded": int(excluded.sum()),
            "copies": int((excluded & self.copies()).sum()),
            "refused": list(self.refused),
            "conflicts": conflicts[["path", "label", "duplicate_group"]].to_dict("records"),
        }

    def save(self, path: Path) -> Path:
        """Write the manifest as Parquet; the facts that are not rows go into the file's metadata."""
        meta = {name: getattr(self, name) for name in ("name", "classes", "policy", "seed", "refused", "masks")}
        meta["root"] = str(self.root.resolve())
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(meta)})
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as unfinished:
            pq.write_table(table, unfinished)
        return path

    @classmethod
    def load(cls, path: Path, root: Path | None = None) -> "Manifest":
        """Read a manifest that ``save`` wrote.

        Args:
            path: The Parquet file.
            root: The folder of the images if it has moved.

        Raises:
            DataError: The file is not a manifest, or the folder of its images does not exist.
        """
        try:
            table = pq.read_table(path)
            meta = json.loads(table.schema.metadata[METADATA])
            meta |= {"classes": tuple(meta["classes"]), "refused": tuple(meta["refused"])}
            recorded = Path(meta.pop("root"))
            manifest = cls(root=root or recorded, table=_with_device(table.to_pandas())[list(COLUMNS)], **meta)
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DataError(f"'{path}' is not a manifest that Lesion wrote: {error}.") from error
        if not manifest.root.is_dir():
            raise DataError(
                f"The images of '{path}' are not in '{manifest.root}' any more. Give their folder as data.root."
            )
        return manifest


def build_manifest(
    name: str,
    root: Path,
    rows: pd.DataFrame,
    *,
    policy: Policy = "grouped",
    fractions: Mapping[str, float],
    seed: int = 0,
    progress: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Manifest:
    """Decode, group and split the images of a scan.

    Images whose pixels also belong to an image of another class are excluded from every split. So are copies, depending
    on the policy: see ``Manifest.resplit``, which also explains the arguments of the split.

    ``rows`` are the table that ``scan_folders`` or ``scan_csv`` returned, with paths relative to ``root``. Images
    beyond the ``limits`` are refused. If no image of some class can be used, or the split is impossible, raise a
    DataError.
    """
    table, refused = _readable(root, rows, progress, limits)
    classes = tuple(sorted(rows["label"].unique(), key=natural_order))
    conflicting = _conflicting(table)
    unusable = sorted(set(classes) - set(table.loc[~conflicting, "label"]))
    if unusable:
        raise DataError(
            f"No image of {len(unusable)} classes can be used ({join_names(unusable)}): of all images {len(refused)} "
            f"are refused and {int(conflicting.sum())} have the same pixels as an image of another class. Repair or "
            "remove these classes."
        )
    table["split"] = np.where(conflicting, EXCLUDED, "")
    masks = rows.attrs.get(MASKS, {})
    manifest = Manifest(name, root, table[list(COLUMNS)], classes, policy, seed, refused, masks)
    return manifest.resplit(policy, fractions, seed)


def _with_device(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column that manifests of version 0.1.0 lack."""
    return table if "device" in table else table.assign(device="")


def _readable(
    root: Path, rows: pd.DataFrame, progress: bool, limits: Limits
) -> tuple[pd.DataFrame, tuple[dict[str, str], ...]]:
    """Return the rows whose images can be decoded, with their facts and groups, and why the others are refused."""
    results = inspect_all([root / path for path in rows["path"]], progress, limits)
    refused = tuple(
        {"path": path, "code": result.code, "reason": result.message}
        for path, result in zip(rows["path"], results, strict=True)
        if not isinstance(result, ImageRecord)
    )
    records = [result for result in results if isinstance(result, ImageRecord)]
    if not records:
        raise DataError(f"None of the {len(rows)} images in '{root}' can be read; the first: {refused[0]['reason']}")
    table = rows[[isinstance(result, ImageRecord) for result in results]].reset_index(drop=True)
    for column in ImageRecord.__slots__:
        if column != "thumbnail":
            table[column] = [getattr(record, column) for record in records]
    unnamed = (table["format"] == "DICOM") & (table["patient"] == "")
    if unnamed.any():
        table.loc[unnamed, "patient"] = number_patients([root / path for path in table.loc[unnamed, "path"]], limits)
    found = near_duplicate_pairs(np.stack([record.thumbnail for record in records]))
    copies, related = (groups(len(table), pairs) for pairs in (found.copies, found.related))
    table["duplicate_group"] = merge_groups(table["pixel_sha256"].to_numpy(), copies)
    table["group"] = merge_groups(table["duplicate_group"].to_numpy(), related, table["patient"].to_numpy())
    return table, refused


def _conflicting(table: pd.DataFrame) -> "pd.Series[bool]":
    return table.groupby("pixel_sha256")["label"].transform("nunique") > 1
