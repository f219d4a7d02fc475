"""One self-contained HTML page that says what the gate decided about a challenger, and why."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from lesion.promotion.comparison import Changed
from lesion.promotion.gate import Verdict

CHECKS = {
    "f1_macro": "Better, by how much",
    "exact_test": "Better, not by luck",
    "earlier": "Not worse on earlier images",
    "recall": "Recall, newest generation",
    "recall_all": "Recall, all generations",
    "ece": "Calibration",
}
CAVEAT = (
    "The gate judges by the images it holds, which people labelled and which were held out of training. Its error "
    "budget bounds promotions by luck; it knows nothing of wrong labels, or of images unlike those the model will meet."
)


def gate_report(
    verdict: Verdict,
    *,
    title: str,
    champion: str,
    challenger: str,
    job_id: str,
    pictures: Mapping[str, bytes] | None = None,
    quarantined: int = 0,
    created: datetime | None = None,
) -> str:
    """Render the page; it needs nothing else: no script, no network, images inside.

    Args:
        verdict: What ``decide`` or ``spent`` returned.
        title: The model's name, as a heading.
        champion: The champion's version.
        challenger: The challenger's version.
        job_id: The retraining that asked.
        pictures: PNG files of images that changed sides, by SHA-256; those left out are listed without one.
        quarantined: Images that wait in quarantine and would be held out for the gate, were they released.
        created: Now when left out.
    """
    return (
        _environment()
        .get_template("gate.html.j2")
        .render(
            title=title,
            verdict=verdict,
            headline=headline(verdict, champion, challenger),
            champion=champion,
            challenger=challenger,
            job_id=job_id,
            created=(created or datetime.now(UTC)).strftime("%d %B %Y, %H:%M %Z"),
            checks=[(CHECKS[check.name.split("/")[0]], check) for check in verdict.checks],
            newest=verdict.comparisons[-1] if verdict.comparisons else None,
            cards=[_card(changed, pictures or {}) for one in reversed(verdict.comparisons) for changed in one.changed],
            changed_images=sum(one.gained + one.lost for one in verdict.comparisons),
            budget=budget_sentence(verdict),
            quarantine=quarantine_sentence(quarantined),
            caveat=CAVEAT,
        )
    )


def headline(verdict: Verdict, champion: str, challenger: str) -> str:
    """Say the verdict in one sentence."""
    if verdict.promoted:
        return f"Challenger {challenger} was proved better than champion {champion} and is promoted."
    if not verdict.checks:
        return f"Challenger {challenger} was not compared with champion {champion}, which stays: the gate set is spent."
    failed = sum(not check.passed for check in verdict.checks)
    return (
        f"Challenger {challenger} was not proved better than champion {champion}, which stays: {failed} of "
        f"{len(verdict.checks)} conditions {'does' if failed == 1 else 'do'} not hold."
    )


def budget_sentence(verdict: Verdict) -> str:
    """Say what is left of the newest generation's error budget, and what renews it."""
    gathered = f"{verdict.gathered} of the {verdict.renew_images} held-out images that open a new one have gathered."
    if not verdict.alpha:
        return f"Nothing is left of the error budget of generation {verdict.generation}. {gathered}"
    left = f"{verdict.looks_left} more decision{'' if verdict.looks_left == 1 else 's'}, at stricter levels"
    if not verdict.looks_left:
        left = "no further decision"
    return (
        f"This decision spent a level of {verdict.alpha:.2g} of generation {verdict.generation}’s error budget, which "
        f"bears {left}. {gathered}"
    )


def quarantine_sentence(quarantined: int) -> str:
    """Say which way images in quarantine bend the gate; empty without any."""
    if not quarantined:
        return ""
    subject = "1 image waits" if quarantined == 1 else f"{quarantined:,} images wait"
    return (
        f"{subject} in quarantine that would be held out for the gate. They are there because the champion disagrees "
        "with their labels or does not know their kind, so without them the gate set leans towards the champion. Have "
        "them reviewed before the next retraining."
    )


def _card(changed: Changed, pictures: Mapping[str, bytes]) -> dict[str, object]:
    png = pictures.get(changed.sha256)
    return {
        "changed": changed,
        "image": f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else None,
    }


def _environment() -> Environment:
    environment = Environment(
        # The model report's package lends its style.
        loader=ChoiceLoader([PackageLoader("lesion.promotion"), PackageLoader("lesion.evaluation")]),
        autoescape=True,  # by file name would leave a .j2 file unescaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "signed": "{:+.4f}".format, "chance": "{:.2g}".format}
    return environment


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
