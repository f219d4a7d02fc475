"""Groups of related images, computed again over all that came, and what must leave its side of the split for them."""

from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import update
from sqlalchemy.orm import Session

from lesion.catalogue.images import record
from lesion.database.tables import ACCEPTED, EXCLUDED, GATE, Image, now
from lesion.deduplication.duplicates import SIDE, Descriptors, groups, merge_groups, near_duplicate_pairs


def misplaced(table: pd.DataFrame) -> "pd.Series[bool]":
    """Tell which rows are on another side (``split``) than their ``group``: that of its gate images, else its first."""
    side = table["split"].where(table["split"] != EXCLUDED)
    gate = (side == GATE).groupby(table["group"]).transform("any")
    wanted = side.groupby(table["group"]).transform("first").mask(gate, GATE)
    return side.notna() & (side != wanted)


def regrouped(table: pd.DataFrame) -> pd.DataFrame:
    """Add the groups, computed over all rows; ``was`` and ``old_key`` keep split and group key as they are stored.

    The rows are in the order they came, so that pairs that were searched before are found as they were then.
    """
    thumbnails = np.frombuffer(b"".join(table["thumbnail"]), np.uint8).reshape(-1, SIDE, SIDE)
    pairs = near_duplicate_pairs(Descriptors(thumbnails))
    table = table.drop(columns="thumbnail")
    table["duplicate_group"] = merge_groups(table["pixel_sha256"].to_numpy(), groups(len(table), pairs))
    table["group"] = merge_groups(
        table["duplicate_group"].to_numpy(), table["patient"].to_numpy(), table["group_key"].to_numpy()
    )
    table["was"], table["old_key"] = table["split"], table["group_key"]
    table["group_key"] = table.groupby("group")["old_key"].transform("first")
    table["split"] = table["split"].mask(misplaced(table), EXCLUDED)
    return table


def put_right(session: Session, table: pd.DataFrame, job_id: str) -> None:
    """Write down the groups that were joined and the images that had to leave their side."""
    joined = table[table["group_key"] != table["old_key"]]
    if len(joined):
        keys = zip(joined["id"].tolist(), joined["group_key"], strict=True)
        session.execute(update(Image), [{"id": number, "group_key": key} for number, key in keys])
    reason = "A related image is on another side of the split; this one came through another server meanwhile."
    for row in table[table["split"] != table["was"]].itertuples():
        change: dict[str, Any] = {"split": EXCLUDED, "generation": None, "changed_at": now()}
        change |= {"reason_code": "group_divided", "reason": reason}
        session.execute(update(Image).where(Image.sha256 == row.sha256, Image.status == ACCEPTED).values(**change))
        record(session, job_id, "image.excluded", str(row.sha256), was=row.was, group=row.group_key)
