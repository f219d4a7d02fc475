"""The sentences about what to do after a decision of the gate, the most important first."""

from lesion.core.text import format_count, format_percent, join_names
from lesion.promotion.feasibility import LIKELY, more_groups
from lesion.promotion.non_inferiority import Outcome
from lesion.promotion.summary.evidence import Evidence, Gathering


def steps_of_review(unreviewed: int) -> list[str]:
    """Ask for a review of the held-out images in quarantine, if there are any."""
    if not unreviewed:
        return []
    image, waits = ("image", "waits") if unreviewed == 1 else ("images", "wait")
    return [
        f"Review the {unreviewed:,} held-out {image} that {waits} in quarantine: no held-out image that came later is "
        "used before that."
    ]


def steps_after_promotion(evidence: Evidence) -> list[str]:
    """Write what is left to look at after a promotion."""
    lost = sum(comparison.lost for comparison in evidence.comparisons)
    if not lost:
        return ["Nothing has to be done."]
    images = "image" if lost == 1 else f"{lost:,} images"
    return [
        f"Nothing has to be done. The report shows the {images} on which only the earlier model is right: look for "
        "wrong labels."
    ]


def steps_after_harm(evidence: Evidence) -> list[str]:
    """Write what to do about what got worse, if anything did."""
    failed = [check.name.partition("/") for check in evidence.failed]
    steps = []
    if labels := list(dict.fromkeys(label for _, _, label in failed if label)):
        names = join_names(labels)
        steps.append(
            f"Look at the lost images of {names} in the report: are their labels right, and what do they have in "
            f"common? Upload more images like these of {names}, then retrain."
        )
    if evidence.fails("earlier"):
        steps.append(
            "Look at the lost images of the earlier generations in the report. If their labels are right, retrain with "
            "fewer epochs or a lower learning rate, so that less is forgotten."
        )
    if evidence.fails("brier"):
        steps.append(
            "Check the labels of the last uploads, since wrong ones spoil the probabilities, and retrain with fewer "
            "epochs."
        )
    return steps


def steps_without_proof(evidence: Evidence, gathering: Gathering) -> list[str]:
    """Write how a real improvement would be proved next time."""
    newest = evidence.newest
    if evidence.fails("f1_macro") and not evidence.fails("exact_test") and newest.uncertain_class is not None:
        return [f"Upload images of {newest.uncertain_class} before all others, then retrain. {_renewal(gathering)}"]
    gain, loss = newest.better_groups / newest.groups, newest.worse_groups / newest.groups
    if gain <= loss and steps_after_harm(evidence):
        return []
    if gain <= loss:
        return [
            "More held-out images alone would not help. Check the labels of the last uploads, upload more images of "
            f"the kind on which the model in use errs, then retrain. {_renewal(gathering)}"
        ]
    more = more_groups(newest.groups, gain, loss, evidence.alpha)
    if not more:
        return [f"Upload more labeled images, then retrain. {_renewal(gathering)}"]
    return [
        f"Upload more labeled images, then retrain: with about {format_count(more, 'more group')} of held-out images, "
        f"an improvement like this one would be proved in {format_percent(LIKELY)} of all cases. {_renewal(gathering)}"
    ]


def _renewal(gathering: Gathering) -> str:
    """Write when the next comparison has new images."""
    if not gathering.missing:
        return f"{format_count(gathering.gathered, 'held-out image')} have gathered for the next comparison."
    return (
        f"The next comparison has new images once {gathering.renew_images:,} held-out ones have gathered "
        f"({gathering.gathered:,} so far)."
    )


def steps_with_pictures(evidence: Evidence) -> list[str]:
    """Ask to look at the images that changed sides, if any did."""
    changed = sum(comparison.gained + comparison.lost for comparison in evidence.comparisons)
    if not changed:
        return []
    images = "image" if changed == 1 else f"{changed:,} images"
    return [f"Look at the {images} on which only one model is right: the report shows them with their pictures."]


def steps_for_unjudged(evidence: Evidence) -> list[str]:
    """Name the classes that have too few images to judge, and how many would do; and those without any."""
    needed = {
        check.name.partition("/")[2]: check.needed
        for check in evidence.checks
        if check.name.startswith("recall/") and check.outcome == Outcome.TOO_FEW_IMAGES
    }
    counts = [
        f"{label} (about {count:,} would do, {evidence.hits(label)[0]:,} are there)" for label, count in needed.items()
    ]
    unknown, steps = "Whether it got worse in a class cannot be judged", []
    if counts:
        steps.append(f"{unknown} from so few held-out images of {join_names(counts)}: upload more.")
    if missing := [recall.label for recall in evidence.newest.recalls if not evidence.hits(recall.label)[0]]:
        steps.append(f"{unknown} without any held-out image of it: upload images of {join_names(missing)}.")
    return steps
