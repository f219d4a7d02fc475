"""The gate's decision about a challenger, and the reasons, as one self-contained HTML page."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime

from lesion.core.text import format_count
from lesion.evaluation.rendering import load_template
from lesion.promotion.comparison import ChangedImage
from lesion.promotion.gate import Verdict
from lesion.promotion.non_inferiority import Outcome

CHECKS = {
    "f1_macro": "Better, by how much",
    "exact_test": "Better, not by luck",
    "earlier": "Not worse on earlier images",
    "recall": "Class not worse than under the champion",
    "best_recall": "Class not worse than under the best model so far",
    "recall_floor": "Class above its floor",
    "brier": "Probabilities not worse",
}
OUTCOMES = {Outcome.HOLDS: "yes", Outcome.FAILS: "no", Outcome.TOO_FEW_IMAGES: "not judged"}
CAVEAT = (
    "The gate decides by its own images, which were labeled by hand and held out of training. Its error budget limits "
    "promotions by luck. It cannot detect wrong labels, or images that differ from those the model will meet."
)


def gate_report(
    verdict: Verdict,
    *,
    title: str,
    champion: str,
    challenger: str,
    job_id: str,
    pictures: Mapping[str, bytes] | None = None,
    created: datetime | None = None,
) -> str:
    """Render the page, which needs no other file, no script and no network.

    The ``title`` is the model's name, ``champion`` and ``challenger`` are versions. ``pictures`` are PNG files of
    changed images by SHA-256; the others are listed without a picture. The page is ``created`` now by default.
    """
    template = load_template(
        "gate.html.j2",
        "lesion.promotion",
        "lesion.evaluation",  # which has the style sheet
        signed="{:+.4f}".format,
        p_value="{:.2g}".format,
    )
    return template.render(
        title=title,
        verdict=verdict,
        headline=headline(verdict, champion, challenger),
        champion=champion,
        challenger=challenger,
        job_id=job_id,
        created=(created or datetime.now(UTC)).strftime("%d %B %Y, %H:%M %Z"),
        checks=[(CHECKS[check.name.split("/")[0]], OUTCOMES[check.outcome], check) for check in verdict.checks],
        newest=verdict.comparisons[-1] if verdict.comparisons else None,
        cards=[
            _card(changed, pictures or {})
            for comparison in reversed(verdict.comparisons)
            for changed in comparison.changed
        ],
        changed_images=sum(comparison.gained + comparison.lost for comparison in verdict.comparisons),
        budget=budget_sentence(verdict),
        quarantine=quarantine_sentence(verdict.unreviewed),
        labels=[*filter(None, [verdict.label_check]), *(verdict.review.sentences() if verdict.review else ())],
        caveat=CAVEAT,
    )


def headline(verdict: Verdict, champion: str, challenger: str) -> str:
    """Return the verdict in one sentence."""
    if verdict.promoted:
        return f"Challenger {challenger} was proved better than champion {champion} and is promoted."
    if not verdict.checks:
        return f"Challenger {challenger} was not compared with champion {champion}, which stays: the budget is spent."
    failed = sum(not check.passed for check in verdict.checks)
    return (
        f"Challenger {challenger} is not promoted and champion {champion} stays: {failed} of "
        f"{len(verdict.checks)} conditions {'does' if failed == 1 else 'do'} not hold."
    )


def budget_sentence(verdict: Verdict) -> str:
    """Return what is left of the newest generation's error budget, and what renews it."""
    gathered = f"{verdict.gathered} of the {verdict.renew_images} held-out images that open a new one have gathered."
    if not verdict.alpha:
        return f"Nothing is left of the error budget of generation {verdict.generation}. {gathered}"
    left = verdict.looks_left
    further = f"{format_count(left, 'more decision')}, at stricter levels" if left else "no further decision"
    return (
        f"This decision spent a level of {verdict.alpha:.2g} of generation {verdict.generation}’s error budget, which "
        f"allows {further}. {gathered}"
    )


def quarantine_sentence(quarantined: int) -> str:
    """Return what the images in quarantine that are held out for the gate wait for; empty without any."""
    if not quarantined:
        return ""
    return (
        f"Of the images in quarantine, {quarantined:,} are held out for the gate. Their labels are in doubt, or the "
        "champion does not know their kind, so that a gate set without them would favor it. No held-out image that "
        "came after the oldest of them is used before they are reviewed."
    )


def _card(changed: ChangedImage, pictures: Mapping[str, bytes]) -> dict[str, object]:
    png = pictures.get(changed.sha256)
    return {"changed": changed, "image": f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else None}
