"""The images on which models are compared: those that are frozen, and those that still gather or wait for a review."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.catalogue.images import frozen_generations, gate_images, limits_of_accepted, open_generation
from lesion.database.tables import GATE, Generation
from lesion.imaging.limits import Limits
from lesion.promotion.comparison import Selection
from lesion.promotion.summary.evidence import Gathering
from lesion.retraining.label_check.unreviewed_images import waiting_images

LabeledImage = tuple[str, str, str]  # hash, label and group key


@dataclass(frozen=True)
class GateImages:
    """The held-out images of the catalogue at one moment."""

    frozen: Mapping[int, Sequence[LabeledImage]]  # by generation; those without images are left out
    selections: Mapping[int, Selection]  # by which rule the images of a generation were chosen, where it is known
    gathered: Sequence[LabeledImage]  # of the open generation
    waiting: Sequence[LabeledImage]  # in quarantine
    limits: Limits  # within which all of them are

    @classmethod
    def read(cls, session: Session) -> Self:
        """Read them from the catalogue."""
        generations = {number: gate_images(session, number) for number in frozen_generations(session)}
        rules = session.execute(select(Generation.number, Generation.selection))
        waiting = [image for image in waiting_images(session) if image.split == GATE]
        return cls(
            frozen={number: images for number, images in generations.items() if images},
            selections={number: Selection(name) for number, name in rules if name is not None},
            gathered=gate_images(session, open_generation(session).number),
            waiting=[(image.sha256, image.label, image.group_key) for image in waiting],
            limits=limits_of_accepted(session),
        )

    def gathering(self, renew_images: int) -> Gathering:
        """Return what waits for the next generation, which needs ``renew_images``."""
        return Gathering(len(self.gathered), renew_images, len(self.waiting))
