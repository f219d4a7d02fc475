import numpy as np
import pytest
import torch
from torch import nn

from lesion.core.errors import ConfigError
from lesion.explanation import faithfulness as module
from lesion.explanation.faithfulness import RANDOM, faithfulness


class Spots(nn.Module):
    """Class 1 is as likely as the picture has bright spots: what it uses is known exactly."""

    def __init__(self):
        super().__init__()
        self.act = nn.AvgPool2d(4)
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, x):
        evidence = self.scale * (self.act(x) - 0.3).relu().sum((1, 2, 3)) / 10
        return torch.stack([torch.full_like(evidence, 6.0), evidence], dim=1)


@pytest.fixture
def spots():
    images = 0.02 * torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for i, (row, column) in enumerate([(4, 4), (20, 8), (12, 20), (20, 20)]):
        images[i, :, row : row + 8, column : column + 8] += 1.5
    return images


def test_the_map_that_points_at_the_evidence_scores_best(spots):
    """The spot itself, nothing, and everything but the spot: above, near and below the random map."""
    model = Spots().eval()
    truth = spots.mean(dim=1).numpy()
    right = module._road(model, spots, [1] * 4, truth, (50, 70, 90), 0)
    wrong = module._road(model, spots, [1] * 4, -truth, (50, 70, 90), 0)
    assert (right > 0.1).all()
    np.testing.assert_allclose(wrong, -right, atol=0.05)


def test_gradcam_beats_the_random_map(spots):
    model = Spots()
    rows = faithfulness(model, model.act, spots, [1] * 4, methods=["gradcam", "eigencam", "GradCAM"])
    assert [row.method for row in rows][-1] == RANDOM
    assert sorted(row.method for row in rows) == ["eigencam", "gradcam", RANDOM]  # named twice, measured once
    best, control = rows[0], rows[-1]
    assert best.score >= rows[1].score
    assert best.low > 0
    assert best.low <= best.difference <= best.high
    assert best.difference == pytest.approx(best.score - control.score)
    assert (control.difference, control.low, control.high) == (0, 0, 0)
    assert {row.images for row in rows} == {4}


def test_maps_are_compared_with_those_of_shuffled_weights(spots):
    """What depends on no weight stays as it is; what depends on the weights alone changes."""
    images = spots.clamp(0, 1)
    model = nn.Sequential()
    model.act = nn.Conv2d(3, 6, 5, 2, 2)
    model.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    rows = faithfulness(model, model.act, images, [1] * 4, ["occlusion", "gradcam"], percentiles=(70,))
    for row in rows[:-1]:
        assert -1 <= row.similarity_low <= row.similarity <= row.similarity_high <= 1
        assert row.similarity < 0.99
    assert np.isnan(rows[-1].similarity)


def test_shuffled_weights_are_the_same_numbers_and_leave_the_model(spots):
    model = nn.Linear(30, 20)
    before = model.weight.detach().clone()
    [shuffled, *_] = module.with_shuffled_weights(model, seed=1).parameters()
    assert torch.equal(model.weight, before)
    assert not torch.equal(shuffled, before)
    assert torch.equal(shuffled.flatten().sort().values, before.flatten().sort().values)
    assert torch.equal(shuffled, next(module.with_shuffled_weights(model, seed=1).parameters()))


def test_maps_that_are_the_same_everywhere_are_similar_to_nothing():
    flat, rising = np.zeros((1, 4, 4), np.float32), np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    assert module._similarity(rising, rising) == pytest.approx([1])
    assert module._similarity(rising, -rising) == pytest.approx([-1])
    assert module._similarity(flat, rising) == module._similarity(flat, flat) == [0]


def test_same_seed_same_scores_whatever_the_global_state(spots):
    model = Spots()
    torch.manual_seed(1)
    first = faithfulness(model, model.act, spots, [1] * 4, ["gradcam"], limit=2, percentiles=(70,), seed=3)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = faithfulness(model, model.act, spots, [1] * 4, ["gradcam"], limit=2, percentiles=(70,), seed=3)
    other = faithfulness(model, model.act, spots, [1] * 4, ["gradcam"], limit=2, percentiles=(70,), seed=4)
    assert [row.score for row in first] == [row.score for row in second]
    assert first[-1].score != other[-1].score
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's generator did not move
    assert first[0].images == 2
    assert model.training


def test_a_map_of_zeros_is_measured_as_random(spots):
    """Of a constant map pytorch-grad-cam would remove every pixel and solve a singular system."""
    scores = module._road(Spots().eval(), spots, [1] * 4, np.zeros((4, 32, 32), np.float32), (50, 90), 0)
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() < 0.2


def test_ranks_keep_the_order():
    ranks = module._ranks(np.array([[0.0, 5.0], [0.0, 2.0]], np.float32), np.random.default_rng(0))
    assert ranks[0, 1] == 0.75
    assert ranks[1, 1] == 0.5
    assert sorted(ranks.ravel()) == [0, 0.25, 0.5, 0.75]


def test_refuses_no_images_and_unknown_methods(spots):
    model = Spots()
    with pytest.raises(ConfigError, match="at least one image"):
        faithfulness(model, model.act, spots[:0], [])
    with pytest.raises(ConfigError, match="choose one of"):
        faithfulness(model, model.act, spots, [1] * 4, ["grad-cam", "nonsense"])
