"""Compute the groups of related images again over the whole catalogue, and exclude images on the wrong side of a split.

Two servers that take related images at the same moment do not see each other's image; this finds such pairs later.
"""

import numpy as np
import pandas as pd
from sqlalchemy import update
from sqlalchemy.orm import Session

from lesion.database.audit import record
from lesion.database.tables import ACCEPTED, EXCLUDED, GATE, Image, now
from lesion.deduplication.duplicates import near_duplicate_pairs
from lesion.deduplication.grouping import groups, merge_groups
from lesion.deduplication.pictures import SIDE

_REASON = "A related image is on another side of the split; this one came through another server meanwhile."


def misplaced(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows have another ``split`` than their ``group``: that of its gate images, or of its first row."""
    split = table["split"].where(table["split"] != EXCLUDED)
    has_gate = (split == GATE).groupby(table["group"]).transform("any")
    group_split = split.groupby(table["group"]).transform("first").mask(has_gate, GATE)
    return split.notna() & (split != group_split)


def regroup(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``group`` and ``duplicate_group``, and correct ``split`` and ``group_key``.

    ``old_split`` and ``old_key`` are the stored values. The rows must be in the order of their ids, so that pairs that
    were found at the upload are found again. Only copies join stored groups: to exclude an image because another one
    merely may show the same picture would be too much.
    """
    thumbnails = np.frombuffer(b"".join(table["thumbnail"]), np.uint8).reshape(-1, SIDE, SIDE)
    copies = near_duplicate_pairs(thumbnails).copies
    table = table.drop(columns="thumbnail")
    table["duplicate_group"] = merge_groups(table["pixel_sha256"].to_numpy(), groups(len(table), copies))
    table["group"] = merge_groups(
        table["duplicate_group"].to_numpy(), table["patient"].to_numpy(), table["group_key"].to_numpy()
    )
    table["old_split"], table["old_key"] = table["split"], table["group_key"]
    table["group_key"] = table.groupby("group")["old_key"].transform("first")
    table["split"] = table["split"].mask(misplaced(table), EXCLUDED)
    return table


def store_regrouping(session: Session, table: pd.DataFrame, job_id: str) -> None:
    """Write the changes that :func:`regroup` made: joined groups and excluded images."""
    joined = table[table["group_key"] != table["old_key"]]
    if len(joined):
        keys = zip(joined["id"].tolist(), joined["group_key"], strict=True)
        session.execute(update(Image), [{"id": image_id, "group_key": key} for image_id, key in keys])
    for row in table[table["split"] != table["old_split"]].itertuples():
        values = {"split": EXCLUDED, "generation": None, "reason_code": "group_divided", "reason": _REASON}
        accepted = update(Image).where(Image.sha256 == row.sha256, Image.status == ACCEPTED)
        session.execute(accepted.values(**values, changed_at=now()))
        record(session, job_id, "image.excluded", str(row.sha256), was=row.old_split, group=row.group_key)
