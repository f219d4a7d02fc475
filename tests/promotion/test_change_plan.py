"""The change plan: its content, its identity, what differs from it, and the document."""

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from lesion.promotion.change_plan import ChangePlan, PlanStatement
from lesion.promotion.gate_levels import GateLevels
from lesion.promotion.gate_settings import GateSettings

CHOICES = {"epochs": (1, 100), "learning_rate": (1e-6, 1.0)}


def facts(**changes: Any) -> dict[str, Any]:
    made = {
        "classes": ["glioma", "notumor"],
        "preprocessing": {"size": 96, "fit": "pad", "interpolation": "bicubic", "trim": False},
        "model": {"backbone": "mobilenetv2_100", "model_kwargs": {}, "mean": [0.5] * 3, "std": [0.2] * 3},
        "config": {
            "model": {"optimizer": "sgd", "weight_decay": 5e-4, "lr": 0.04, "weights": "none"},
            "data": {"balanced": False, "root": "/somewhere"},
            "optimized_metric": "val/f1_macro",
        },
    }  # fmt: skip
    return made | changes


def plan(gate: GateSettings | None = None, **changes: Any) -> ChangePlan:
    return ChangePlan.of(facts(**changes), gate or GateSettings(), CHOICES)


def test_the_identity_is_the_hash_of_the_content() -> None:
    content = plan().to_json()
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert plan().sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert ChangePlan.from_json(json.loads(text)) == plan()
    assert content["gate"]["levels"]["generation_level"] == 0.05
    assert content["recipe"]["model"]["weight_decay"] == 5e-4
    assert content["recipe"]["trainer"] == {"gradient_clip_val": None}  # which these facts lack


def test_what_differs_between_machines_and_retrainings_is_no_part_of_it() -> None:
    config = facts()["config"]
    moved = config | {"data": config["data"] | {"root": "/elsewhere"}, "seed": 7, "parent": "0123456789ab"}
    moved["model"] = config["model"] | {"lr": 0.01, "weights": "/elsewhere/model.safetensors"}
    assert plan(config=moved).sha256 == plan().sha256


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (plan(GateSettings(recall_drop=0.1)), "gate.recall_drop is 0.1 and was planned to be 0.05"),
        (
            plan(GateSettings(levels=GateLevels(lifetime_rate=0.2))),
            "gate.levels.lifetime_rate is 0.2 and was planned to be 0.1",
        ),
        (plan(classes=["a", "b"]), 'classes is ["a", "b"] and was planned to be ["glioma", "notumor"]'),
        (
            plan(config=facts()["config"] | {"interpolation_steps": 10}),
            "recipe.interpolation_steps is 10 and was planned to be not set",
        ),
        (replace(plan(), rules=2), "rules is 2 and was planned to be 1"),
        (replace(plan(), choices={"epochs": (1, 200)}), "choices.epochs is [1, 200] and was planned to be [1, 100]"),
    ],
)
def test_each_difference_is_named(other: ChangePlan, words: str) -> None:
    assert words in other.differences(plan())
    assert other.sha256 != plan().sha256
    assert plan().differences(plan()) == ()


def test_a_retraining_states_whether_it_was_inside() -> None:
    sha256 = plan().sha256
    assert PlanStatement(sha256, ()).sentence == f"This retraining is inside the change plan {sha256[:12]}."
    outside = PlanStatement(sha256, ("a is 1", "b is 2", "c is 3", "d is 4")).sentence
    assert outside == (
        f"This retraining is outside the change plan {sha256[:12]}: a is 1, b is 2, c is 3 and 1 more. "
        "An admin may adopt a new plan."
    )


def test_the_document_has_the_three_parts_and_the_numbers_of_the_gate() -> None:
    gate = GateSettings(recall_floors={"glioma": 0.9}, renew_images=250)
    document = plan(gate).markdown(gate)
    assert re.findall(r"^## (.*)$", document, re.MULTILINE) == [
        "1. Description of the modifications", "2. Modification protocol", "3. Impact assessment",
    ]  # fmt: skip
    assert plan(gate).sha256 in document
    assert "| learning_rate | 1e-06 | 1 |" in document
    assert "| model.weight_decay | 0.0005 |" in document
    assert "The level of the first decision is 0.03." in document
    assert "Enough are 8,183 · c" in document  # (1.645 + 2.878)² / 0.05²
    assert "| the recall of a class is below its floor; glioma: 0.9 | 0.5 |" in document
    assert "250 of them\nmake a new generation" in document
    assert plan(gate).markdown(gate) == document
