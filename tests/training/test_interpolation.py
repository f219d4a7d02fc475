"""Weights between the initial and the trained ones, chosen on the validation split."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch.nn.functional import cross_entropy

from lesion.core.errors import ConfigError
from lesion.model.bundle import Bundle
from lesion.model.classifier import ImageClassifier
from lesion.training.fitting import fit
from lesion.training.interpolation.share_choice import ShareScore, WeightInterpolation, choose_share
from lesion.training.interpolation.weight_states import interpolate_states
from lesion.training.run import train
from scripts.bench.trainings.weight_interpolation import SAME, Measured, interval, report
from tests.support.training_runs import Run


def test_weights_lie_on_the_line_between_two_states() -> None:
    start = {"weight": torch.tensor([0.0, 4.0]), "running_var": torch.tensor([1.0]), "batches": torch.tensor(3)}
    end = {"weight": torch.tensor([2.0, 0.0]), "running_var": torch.tensor([3.0]), "batches": torch.tensor(9)}
    between = interpolate_states(start, end, 0.25)
    assert between["weight"].tolist() == [0.5, 3.0]
    assert between["running_var"].tolist() == [1.5]
    assert between["batches"].item() == 9
    start, end = ({"weight": torch.randn(1000, generator=torch.Generator().manual_seed(seed))} for seed in (1, 2))
    assert torch.equal(interpolate_states(start, end, 0.0)["weight"], start["weight"])
    assert torch.equal(interpolate_states(start, end, 1.0)["weight"], end["weight"])


@pytest.mark.parametrize(
    ("rows", "lower_is_better", "chosen"),
    [
        ([(0, 0.8, 0.4, 0), (0.5, 0.9, 0.5, 3), (1, 0.85, 0.3, 5)], False, 0.5),
        ([(0, 0.8, 0.4, 0), (0.5, 0.9, 0.3, 3), (1, 0.95, 0.5, 5)], False, 1.0),
        ([(0, 0.8, 0.4, 0), (0.5, 0.9, 0.3, 3), (1, 0.85, 0.5, 5)], True, 1.0),
        ([(0, 0.8, 0.4, 0), (0.4, 0.9, 0.3, 2), (0.7, 0.9, 0.2, 4), (1, 0.9, 0.25, 5)], False, 0.7),  # the lowest loss
        ([(0, 0.8, 0.4, 0), (0.4, 0.9, 0.3, 4), (0.7, 0.9, 0.3, 2), (1, 0.9, 0.3, 5)], False, 0.7),  # fewest answers
        ([(0, 0.8, 0.4, 0), (0.4, 0.9, 0.3, 2), (0.7, 0.9, 0.3, 2), (1, 0.9, 0.3, 2)], False, 0.4),  # closest to start
        ([(0, 0.9, 0.1, 0), (0.5, 0.7, 0.2, 1), (1, 0.8, 0.2, 2)], False, 1.0),  # the start itself is no challenger
    ],
)
def test_the_best_share_is_chosen(
    rows: list[tuple[float, float, float, int]], lower_is_better: bool, chosen: float
) -> None:
    scores = [ShareScore(*row) for row in rows]
    assert choose_share(scores, lower_is_better).share == chosen


def retrained(run: Run) -> ImageClassifier:
    """A model that starts from the weights of a run."""
    settings = dict(run.objects["model"].hparams) | {"weights": str(Bundle.open(run.bundle_path).weights)}
    return ImageClassifier(**settings)


def accuracy(model: ImageClassifier, run: Run) -> tuple[float, float, list[int]]:
    """The accuracy and the loss on the validation images, and the answers, by the module's own forward pass."""
    images, labels = zip(*run.objects["datamodule"].val_dataloader(), strict=True)
    with torch.no_grad():
        logits, right = model.eval()(torch.cat(images)), torch.cat(labels)
    answers = logits.argmax(dim=1)
    return float((answers == right).float().mean()), float(cross_entropy(logits, right)), answers.tolist()


def test_the_share_is_the_best_one_on_the_validation_images(run: Run) -> None:
    model = retrained(run)
    interpolation = WeightInterpolation(4, "val/acc", model, run.objects["datamodule"])
    start = {name: value.clone() for name, value in model.network.state_dict().items()}
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.network.classifier.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    end = {name: value.clone() for name, value in model.network.state_dict().items()}

    other = copy.deepcopy(model)
    values, losses, answers = [], [], []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        between = {
            name: (1 - share) * start[name] + share * value if value.is_floating_point() else value
            for name, value in end.items()
        }
        other.network.load_state_dict(between)
        value, loss, given = accuracy(other, run)
        values.append(value)
        losses.append(loss)
        answers.append(given)
    changed = [sum(a != b for a, b in zip(given, answers[0], strict=True)) for given in answers]
    best = min(range(1, 5), key=lambda place: (-values[place], losses[place]))

    facts = interpolation.apply(model, run.objects["datamodule"])
    assert facts["values"] == pytest.approx(values, abs=1e-6)
    assert facts["changed_answers"] == changed
    assert changed[4] > 0
    assert facts["share"] == best / 4
    for name, value in model.network.state_dict().items():
        expected = (1 - facts["share"]) * start[name] + facts["share"] * end[name]
        torch.testing.assert_close(value, expected.to(value.dtype) if value.is_floating_point() else end[name])


@pytest.mark.parametrize("metric", ["val/f1/nothing", "val/f1_makro"])
def test_a_metric_that_the_validation_images_do_not_have_is_refused(run: Run, metric: str) -> None:
    with pytest.raises(ConfigError, match=f"optimized_metric={metric} cannot choose between weights"):
        WeightInterpolation(10, metric, retrained(run), run.objects["datamodule"])


def test_initial_weights_without_a_classifier_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="interpolation_steps=10 needs initial weights that classify"):
        WeightInterpolation(10, "val/acc", run.objects["model"], run.objects["datamodule"])


def test_a_training_that_is_resumed_chooses_the_same_weights(
    tiny_config: Callable[..., DictConfig], run: Run, tmp_path: Path
) -> None:
    """The bundle and its card tell how far the weights are; a crash after the last epoch changes nothing."""
    settings = (f"model.weights={Bundle.open(run.bundle_path).weights}", "model.pad_type=''", "interpolation_steps=4")
    _, objects = train(tiny_config(tmp_path, *settings))
    facts = Bundle.open(tmp_path / "bundle").facts["model"]["interpolation"]
    assert facts is not None
    assert facts["share"] in (0.25, 0.5, 0.75, 1.0)
    assert facts["metric"] == "val/f1_macro"
    assert len(facts["values"]) == len(facts["changed_answers"]) == 5
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text("utf-8")
    assert f"Final weights: {100 * facts['share']:.0f} % of the way from the initial weights" in card
    resumed, _ = fit(
        tiny_config(tmp_path, *settings, f"resume={tmp_path}/checkpoints/last.ckpt"), objects["datamodule"]
    )
    assert resumed.interpolation == facts
    for name, value in objects["model"].network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_the_bench_counts_what_became_wrong_and_requires_fewer() -> None:
    champion = np.array([True, True, False, False])
    trained = np.array([True, False, True, True])
    interpolated = np.array([True, True, True, False])
    found = [Measured(SAME, seed, 0.5, champion, trained, interpolated) for seed in (0, 1)]
    assert [found[0].became_wrong(hits) for hits in (trained, interpolated)] == [0.25, 0.0]
    assert report(SAME, found, Console(quiet=True))
    assert not report(SAME, [replace(one, interpolated=trained) for one in found], Console(quiet=True))
    assert not report(SAME, [replace(one, interpolated=champion) for one in found], Console(quiet=True))  # fewer right
    # 4.3027 is Student's quantile of 97.5 % with 2 degrees of freedom
    assert interval([0.01, 0.02, 0.03]) == pytest.approx((0.02, 0.02 - 4.3027 * 0.01 / 3**0.5, 0.0448411), abs=1e-5)
