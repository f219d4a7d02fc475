import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from lesion.core.errors import ConfigError
from lesion.explanation.methods import METHODS, OCCLUSION, SLOW_METHODS, class_activation_maps, heat_maps
from lesion.explanation.occlusion import occlusion_map
from lesion.imaging.heatmap import gradcam


class Small(nn.Module):
    """A convolution, a rectifier, global pooling and a linear layer: the smallest network with a closed form."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.dropout(self.act(self.conv(x)).mean((2, 3))))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def closed_form(model, images, indices):
    """The graph's ``cams`` output: classifier weights applied to the last activation, ``(B, h, w)``."""
    with torch.no_grad():
        features = model.forward_features(images)
        return torch.einsum("bdhw,bd->bhw", features, model.classifier.weight[indices]).numpy()


def assert_gradcam_is_closed_form(model, images):
    model.eval()
    indices = model(images).argmax(dim=1)
    expected = np.stack([gradcam(cam, images.shape[2:]) for cam in closed_form(model, images, indices)])
    found = class_activation_maps(model, model.bn2, images, indices)
    assert expected.max() > 0.99  # not the comparison of two empty maps
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_gradcam_equals_the_closed_form_with_random_weights():
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_100", num_classes=4)
    assert_gradcam_is_closed_form(model, torch.randn(2, 3, 224, 224))


@pytest.mark.real
def test_gradcam_equals_the_closed_form_with_real_weights(shared, real_weights):
    model = timm.create_model("mobilenetv2_100", pad_type="same")
    model.load_state_dict(load_file(real_weights))
    mean, std = (torch.tensor(model.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    files = sorted((shared / "data/brain_tumor_mri/Testing/glioma").glob("*.jpg"))[:2]
    files += sorted((shared / "data/cassava/train_images").glob("*.jpg"))[:2]
    pixels = [np.array(Image.open(file).convert("RGB").resize((224, 224))) for file in files]
    images = torch.stack([(torch.from_numpy(p).permute(2, 0, 1) / 255 - mean) / std for p in pixels])
    assert_gradcam_is_closed_form(model, images)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_maps_in_range(small, images, method, capfd):
    maps = heat_maps(small, small.act, images, [0, 1, 2], method)
    assert maps.shape == (3, 32, 32)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps.max() > 0.9
    assert capfd.readouterr().err == ""  # no progress bars


def test_occlusion_is_that_of_the_server(small):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype(np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255

    def odds_of(index):
        def odds(copies):
            with torch.no_grad():
                logits = small(torch.from_numpy(copies).permute(0, 3, 1, 2).float() / 255)
            p = logits.double().softmax(1).numpy()
            return np.stack([p[:, index], 1 - p[:, index]], axis=1)

        return odds

    found = heat_maps(small, small.act, images, [1, 3])
    for image, index, heat in zip(pixels, (1, 3), found, strict=True):
        np.testing.assert_allclose(heat, occlusion_map(image, odds_of(index)).heat, atol=1e-5)
    assert heat_maps(small, small.act, images[:0], []).shape == (0, 48, 48)
    with pytest.raises(ConfigError, match="call heat_maps"):
        class_activation_maps(small, small.act, images, [1, 3], OCCLUSION)


def test_maps_do_not_depend_on_the_batch(small, images):
    together = class_activation_maps(small, small.act, images, torch.tensor([2, 0, 1]))
    alone = [class_activation_maps(small, small.act, images[i : i + 1], [c])[0] for i, c in enumerate([2, 0, 1])]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_map_follows_the_evidence():
    """A network that looks for bright pixels alone must point at the one bright square."""
    model = Small()
    with torch.no_grad():
        model.conv.weight.fill_(0.1)
        assert model.conv.bias is not None
        model.conv.bias.fill_(-1.0)
        model.head.weight.fill_(1.0)
    image = torch.zeros(1, 3, 64, 64)
    image[..., 8:16, 40:48] = 2
    found = class_activation_maps(model, model.act, image, [0])[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 8 <= row < 16
    assert 40 <= column < 48
    assert found[40:].max() == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_frozen_and_in_any_grad_mode(small, images, mode):
    expected = class_activation_maps(small, small.act, images, [0, 1, 2])
    small.requires_grad_(False)
    with mode():
        made_inside = images * 1
        found = class_activation_maps(small, small.act, made_inside, [0, 1, 2])
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["gradcam", *SLOW_METHODS])
def test_leaves_the_model_as_it_was(small, images, method):
    small.train()
    small.act.eval()
    small.conv.requires_grad_(False)
    small.head.weight.grad = torch.ones_like(small.head.weight)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    original_layer = small.act
    class_activation_maps(small, small.act, images, [0, 1, 2], method)
    assert (small.training, small.conv.training, small.act.training) == (True, True, False)
    assert [p.requires_grad for p in small.parameters()] == [False, False, True, True]
    assert (small.head.weight.grad == 1).all()
    assert small.head.bias.grad is None
    assert small.act is original_layer
    assert all(not module._forward_hooks and not module._backward_hooks for module in small.modules())
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())


def test_gives_the_model_back_after_an_error(small, images):
    small.train()
    with pytest.raises(IndexError):
        class_activation_maps(small, small.act, images, [0, 1, 99])
    assert small.training
    assert not small.act._forward_hooks
    assert all(p.requires_grad for p in small.parameters())


def test_unknown_method_names_the_known_ones(small, images):
    with pytest.raises(ConfigError, match="gradcam, gradcam"):
        class_activation_maps(small, small.act, images, [0, 1, 2], "lime")


def test_method_names_ignore_case_and_hyphens(small, images):
    np.testing.assert_array_equal(
        class_activation_maps(small, small.act, images, [0, 1, 2], "Grad-CAM++"),
        class_activation_maps(small, small.act, images, [0, 1, 2], "gradcam++"),
    )


def test_one_class_an_image(small, images):
    with pytest.raises(ConfigError, match="one class index"):
        class_activation_maps(small, small.act, images, [0])
