"""The JSON documents about what a retraining would take and could prove."""

from typing import Literal

from pydantic import BaseModel, Field


class WorkerView(BaseModel):
    """Whether a retraining worker runs; without one, jobs wait."""

    running: bool
    seen_at: str | None = Field(
        description="When a worker was alive the last time, if none runs; null if it is not known."
    )


class PlainSummary(BaseModel):
    """What the gate could decide, in plain words."""

    why: str = Field(description="One sentence or a few.")
    next_steps: list[str] = Field(description="What to do next, the most important first; at least one.")


class ProofChance(BaseModel):
    """With which probability a rise of accuracy would be proved."""

    rise: float
    probability: float


class GateFeasibility(BaseModel):
    """What the next look at the gate set could prove, in numbers."""

    images: int = Field(description="Held-out images on which the next look decides.")
    groups: int = Field(description="Groups of related images among them.")
    level: float = Field(description="Of the next look; 0 if the error budget is used up.")
    accuracy: float = Field(description="The champion's on these images.")
    accuracy_known: bool = Field(description="False if the accuracy is assumed, since it was not measured on them.")
    possible: bool = Field(description="Whether any challenger at all could be promoted.")
    chances: list[ProofChance] = Field(description="For small and large improvements; empty if none is possible.")
    likely_rise: float | None = Field(
        description="The smallest rise of accuracy that would be proved in 80 % of all cases; null without one."
    )
    more_groups: int | None = Field(
        description="How many more groups of held-out images would make it likely that half as many errors are proved; "
        "null if far too many would be needed."
    )
    reason: str = Field(description="All this in words.")


class RetrainEstimate(BaseModel):
    """How long a retraining would take, what it could prove, and what may be chosen for it."""

    epochs: int
    images: int = Field(description="The training images that each epoch goes through.")
    seconds: float | None = Field(description="Of the whole retraining; null when nothing is known.")
    basis: str = Field(description="What the estimate is based on, or why nothing can be estimated.")
    summary: PlainSummary = Field(description="What the gate could prove afterwards, and what makes it likelier.")
    would_train: bool = Field(
        description="Whether a retraining would train: false if no challenger could be promoted, unless the worker is "
        "told to train all the same (`gate.train_in_vain`)."
    )
    gate: GateFeasibility | None = Field(description="The same in numbers. Null without held-out images.")
    gate_settings: Literal["worker", "default"] = Field(
        description="By which settings of the gate this was computed: those of the worker that runs, or, if none runs, "
        "the default ones."
    )
    defaults: dict[str, float | int | None] = Field(
        description="The default of each setting: epochs, batch_size and learning_rate; null if the champion does not "
        "have it."
    )
    bounds: dict[str, tuple[float | int, float | int]] = Field(description="The least and the most of each.")
    worker: WorkerView
