"""The change plan: what retrainings may change, how a change is proved, and what it may do (FDA, 2024: PCCP).

A predetermined change control plan has three parts: a description of the modifications, a modification protocol and an
impact assessment. Here it is written from the settings by which retrainings and the gate really run, so that it cannot
differ from them. Its identity is a hash of those settings.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lesion.core.files import bytes_sha256
from lesion.core.text import join_names
from lesion.evaluation.rendering import literal_markdown, load_template
from lesion.promotion.gate_settings import GateSettings

RULES = 1  # increase it when the gate's methods change: what was planned before is another plan then
_SHOWN = 3  # differences in a sentence
# The settings of a champion's training that its retrainings share. Rates and numbers of epochs may be chosen.
_RECIPE = {
    "data": ("augmentation", "balanced"),
    "model": (
        "optimizer", "backbone_lr_factor", "weight_decay", "scheduler", "scheduler_warmup", "label_smoothing",
        "drop_rate", "class_weights", "mixup", "cutmix",
    ),
    "finetune": ("unfreeze_last", "freeze_batch_norm"),
    "trainer": ("gradient_clip_val",),
    "callbacks": ("early_stopping", "ema"),
}  # fmt: skip


@dataclass(frozen=True)
class ChangePlan:
    """What retrainings keep, what may be chosen for one, and what the gate asks for."""

    classes: tuple[str, ...]
    network: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    recipe: Mapping[str, Any]  # by section of the training's config
    choices: Mapping[str, tuple[float, float]]  # the lowest and highest value that a request may have
    gate: Mapping[str, Any]  # the fields of GateSettings
    rules: int = RULES

    @classmethod
    def of(
        cls, facts: Mapping[str, Any], gate: GateSettings, choices: Mapping[str, tuple[float, float]]
    ) -> "ChangePlan":
        """Return the plan that a retrained model followed, or that retrainings of a model would follow.

        ``facts`` are those of the model's bundle; a setting that they lack is None in the plan.
        """
        config = facts.get("config") or {}
        recipe = {
            section: {name: (config.get(section) or {}).get(name) for name in names}
            for section, names in _RECIPE.items()
        }
        chosen = {name: config.get(name) for name in ("optimized_metric", "interpolation_steps")}
        network = {name: facts["model"].get(name) for name in ("backbone", "model_kwargs", "mean", "std")}
        return cls.from_json(
            {
                "classes": facts["classes"],
                "network": network,
                "preprocessing": facts["preprocessing"],
                "recipe": recipe | chosen,
                "choices": choices,
                "gate": gate.to_json(),
                "rules": RULES,
            }
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ChangePlan":
        """Return the plan that :meth:`to_json` made."""
        values = json.loads(json.dumps(content))  # lists and tuples become alike
        return cls(**values | {"classes": tuple(values["classes"])})

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-ready values."""
        return asdict(self) | {"classes": list(self.classes)}

    @property
    def sha256(self) -> str:
        """The plan's identity: the hash of its content, in hexadecimal digits."""
        return bytes_sha256(json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode())

    def differences(self, other: "ChangePlan") -> tuple[str, ...]:
        """Return a part of a sentence for each setting that ``other``, the plan in force, has otherwise."""
        ours, theirs = dict(_settings(self.to_json())), dict(_settings(other.to_json()))
        return tuple(
            f"{name} is {_text(ours.get(name))} and was planned to be {_text(theirs.get(name))}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        )

    def markdown(self, gate: GateSettings) -> str:
        """Return the plan as a document with the three parts; ``gate`` are the settings that it was made from."""
        template = load_template(
            "CHANGE_PLAN.md.j2", "lesion.promotion", autoescape=False, text=_text, literal=literal_markdown
        )
        return template.render(
            plan=self,
            sha256=self.sha256,
            gate=gate,
            recipe=list(_settings(self.recipe)),
            preprocessing=list(_settings(self.preprocessing)),
            first_level=gate.levels.next_level((), 1),
            enough_images=(sum(gate.errors.quantiles) / gate.recall_drop) ** 2 if gate.recall_drop else None,
        )


@dataclass(frozen=True)
class PlanStatement:
    """Whether one retraining was inside the plan in force."""

    sha256: str  # of the plan in force
    outside: tuple[str, ...]  # what was not as planned; empty if everything was

    @property
    def sentence(self) -> str:
        """The statement in a sentence."""
        name = f"the change plan {self.sha256[:12]}"
        if not self.outside:
            return f"This retraining is inside {name}."
        differences = join_names(self.outside, limit=_SHOWN)
        return f"This retraining is outside {name}: {differences}. An admin may adopt a new plan."


def _settings(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its whole name, such as ``gate.levels.min_alpha``."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _settings(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _text(value: object) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
