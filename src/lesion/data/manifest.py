"""The manifest: one row an image, with its hashes, its group and its split; what every later step starts from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.data.inspection import ImageRecord, Refused, inspect_all
from lesion.data.splits import SPLITS, split_by_folder, split_groups
from lesion.deduplication.duplicates import Descriptors, groups, merge_groups, near_duplicate_pairs

EXCLUDED = "excluded"
Policy = Literal["grouped", "folder"]
COLUMNS = (
    "path", "label", "split", "source_split", "patient", "group", "duplicate_group", "sha256", "pixel_sha256", "phash",
    "width", "height", "mode", "format", "bytes", "brightness",
)  # fmt: skip
METADATA = b"lesion.manifest"


@dataclass(frozen=True, eq=False)
class Manifest:
    """A dataset whose images were all decoded once, grouped and split.

    Attributes:
        name: The dataset's name.
        root: The folder that paths are relative to.
        table: One row an image with the columns ``COLUMNS``, sorted by path. ``group`` joins images of one patient,
            equal pixels and near-duplicates, and a ``grouped`` split never divides it; ``duplicate_group`` leaves the
            patient out.
        classes: The classes in the order of the network's outputs.
        policy: ``grouped`` (split anew, by group) or ``folder`` (the test split that came with the data is kept).
        seed: The seed of the split.
        refused: The images that the decoder refused: path, code, reason.
    """

    name: str
    root: Path
    table: pd.DataFrame
    classes: tuple[str, ...]
    policy: Policy
    seed: int
    refused: tuple[dict[str, str], ...] = ()

    def split(self, name: str) -> pd.DataFrame:
        """Return the rows of one split, in the table's order."""
        return self.table[self.table["split"] == name].reset_index(drop=True)

    def labels(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """Return the class indices of rows, (N,)."""
        return class_indices(rows["label"], self.classes)

    @property
    def fingerprint(self) -> str:
        """A hash over the classes and each image's pixels, label and split; paths and row order do not count."""
        rows = sorted(zip(self.table["pixel_sha256"], self.table["label"], self.table["split"], strict=True))
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()

    def resplit(self, policy: Policy, fractions: Mapping[str, float], seed: int) -> "Manifest":
        """Return the same images split anew; excluded ones stay out.

        Args:
            policy: ``grouped`` pools all images, of those with the very same pixels the first alone, and splits by
                group; ``folder`` keeps the test (and validation) split that came with the data, copies and all, and
                takes the missing splits from its training images, by group.
            fractions: The shares of train, val, calibration and test.
            seed: The seed of the split.

        Raises:
            DataError: The split is impossible.
        """
        table, copies = self.table.copy(), self.copies()
        kept = ~copies & (table["split"] != EXCLUDED)
        if policy == "folder":
            kept |= copies
        table["split"] = EXCLUDED
        table.loc[kept, "split"] = _split(table[kept], self.classes, policy, fractions, seed)
        return replace(self, table=table, policy=policy, seed=seed)

    def copies(self) -> "pd.Series[bool]":
        """Tell which rows have the very pixels of an earlier row of the same class: they would count twice."""
        return self.table.duplicated(["pixel_sha256", "label"]) & ~_conflicting(self.table)

    def conflicts(self) -> pd.DataFrame:
        """Return the rows of near-duplicate groups that hold more than one class: probably mislabelled."""
        classes = self.table.groupby("duplicate_group")["label"].transform("nunique")
        return self.table[classes > 1].sort_values(["duplicate_group", "path"], ignore_index=True)

    def facts(self) -> dict[str, Any]:
        """Return what reports and model cards say of the dataset, JSON-ready."""
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
        """Write the manifest as Parquet; the facts that are not rows travel in the file's metadata."""
        meta = {
            "name": self.name,
            "root": str(self.root.resolve()),
            "classes": self.classes,
            "policy": self.policy,
            "seed": self.seed,
            "refused": self.refused,
        }
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(meta)})
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        pq.write_table(table, temporary)
        temporary.replace(path)
        return path

    @classmethod
    def load(cls, path: Path, root: Path | None = None) -> "Manifest":
        """Read a manifest that ``save`` wrote.

        Args:
            path: The Parquet file.
            root: Where the images are now; the recorded folder when left out.

        Raises:
            DataError: The file is no manifest, or the folder of its images is gone.
        """
        try:
            table = pq.read_table(path)
            meta = json.loads(table.schema.metadata[METADATA])
            meta |= {"classes": tuple(meta["classes"]), "refused": tuple(meta["refused"])}
            recorded = Path(meta.pop("root"))
            manifest = cls(root=root or recorded, table=table.to_pandas()[list(COLUMNS)], **meta)
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
) -> Manifest:
    """Decode, group and split the images that a scan found.

    Images whose very pixels stand under two classes are excluded from every split, and so are copies: see
    ``Manifest.resplit``.

    Args:
        name: The dataset's name.
        root: The folder that the rows' paths are relative to.
        rows: What ``scan_folders`` or ``scan_csv`` returned.
        policy: See ``Manifest.resplit``.
        fractions: The shares of train, val, calibration and test.
        seed: The seed of the split.
        progress: Show a progress bar.

    Raises:
        DataError: No image of some class can be used, or the split is impossible.
    """
    root = Path(root)
    results = inspect_all([root / path for path in rows["path"]], progress)
    refused = tuple(
        {"path": path, "code": result.code, "reason": result.reason}
        for path, result in zip(rows["path"], results, strict=True)
        if isinstance(result, Refused)
    )
    good = [result for result in results if isinstance(result, ImageRecord)]
    if not good:
        raise DataError(f"None of the {len(rows)} images in '{root}' can be read; the first: {refused[0]['reason']}")
    kept = rows[[isinstance(result, ImageRecord) for result in results]].reset_index(drop=True)
    facts = pd.DataFrame(
        [{key: getattr(one, key) for key in ImageRecord.__slots__ if key != "descriptor"} for one in good]
    )
    table = pd.concat([kept, facts], axis=1)
    pairs = near_duplicate_pairs(Descriptors.stack([one.descriptor for one in good]))
    table["duplicate_group"] = merge_groups(table["pixel_sha256"].to_numpy(), groups(len(table), pairs))
    table["group"] = merge_groups(table["duplicate_group"].to_numpy(), table["patient"].to_numpy())
    classes = tuple(sorted(rows["label"].unique()))
    conflicting = _conflicting(table)
    lost = sorted(set(classes) - set(table.loc[~conflicting, "label"]))
    if lost:
        raise DataError(
            f"No image of {len(lost)} classes can be used ({', '.join(lost[:5])}): of all images {len(refused)} are "
            f"refused and {int(conflicting.sum())} have the very pixels of an image of another class. Mend or remove "
            "the classes."
        )
    table["split"] = np.where(conflicting, EXCLUDED, "")
    return Manifest(name, root, table[list(COLUMNS)], classes, policy, seed, refused).resplit(policy, fractions, seed)


def class_indices(labels: "pd.Series[str]", classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Return each label's place in ``classes``, (N,)."""
    return pd.Categorical(labels, categories=list(classes)).codes.astype(np.int64)


def _conflicting(table: pd.DataFrame) -> "pd.Series[bool]":
    return table.groupby("pixel_sha256")["label"].transform("nunique") > 1


def _split(
    table: pd.DataFrame, classes: tuple[str, ...], policy: Policy, fractions: Mapping[str, float], seed: int
) -> NDArray[np.str_]:
    labels, group = class_indices(table["label"], classes), table["group"].to_numpy()
    if policy == "grouped":
        return split_groups(labels, group, fractions, seed, classes)
    if policy == "folder":
        source = table["source_split"].to_numpy().astype(str)
        return split_by_folder(source, labels, group, fractions, seed, classes)
    raise DataError(f"data.split is '{policy}', which does not exist; choose grouped or folder.")
