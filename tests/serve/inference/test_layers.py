"""An explanation in layers: image and heat map each by itself give the overlay when they are mixed."""

import base64
import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesion.imaging.heatmap import overlay, to_grayscale
from lesion.model.engines import Engine, Outputs
from lesion.model.predictor import Predictor
from serve.inference.inference_worker import InferenceAPI
from serve.inference.messages import InferenceRequest
from serve.inference.shared_state import SharedState
from serve.settings import ServerSettings
from tests.support.bundles.lamp_bundles import CLASSES, SIZE, lamp
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.hostile import encode
from tests.support.images.pictures import picture
from tests.support.servers.app import client_of, make_app, refusal

PARTS = ["overlay_png_base64", "image_png_base64", "heatmap_png_base64"]


class Mapped:
    """The lamp's engine with maps that have places: those of a class lie on one side."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.precision, self._engine = engine.name, engine.precision, engine

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        outputs = self._engine(images)
        maps = np.random.default_rng(0).normal(size=(len(images), len(CLASSES), 5, 5)).astype(np.float32)
        maps[:, 0, :, 3:] = maps[:, 1, :, :2] = -1.0
        return Outputs(outputs.logits, outputs.features, maps)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> InferenceAPI:
    bundle = lamp(tmp_path_factory.mktemp("layers") / "lamp", 1.0)
    predictor = Predictor.load(bundle, "cpu", precision="f32")
    predictor.engine = Mapped(predictor.engine)
    made = InferenceAPI(bundle, ServerSettings(device="cpu", precision="f32", batch_timeout=0.0))
    made.shared_state, made.worker, made.current = SharedState(1, 1), 0, lambda: predictor
    return made


def pixels(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def explained(api: InferenceAPI, **wanted: Any) -> dict[str, str]:
    explanation: dict[str, str] = cast(Any, api.predict)(
        [InferenceRequest(encode(picture(0)), explain=True, method="grad-cam", **wanted)]
    )[0]["explanation"]
    return explanation


@pytest.mark.parametrize("name", [None, *CLASSES])
def test_image_and_heat_map_mixed_give_the_overlay(api: InferenceAPI, name: str | None) -> None:
    explanation = explained(api, layers=True, class_name=name)
    mixed, image, heat = (pixels(explanation[part]) for part in PARTS)
    assert (image.mode, heat.mode) == ("RGB", "L")
    assert mixed.size == image.size == heat.size == (SIZE, SIZE)
    levels = np.asarray(heat)
    assert (levels.min(), levels.max()) == (0, 255)
    difference = np.abs(overlay(np.asarray(image), levels / 255.0).astype(int) - np.asarray(mixed))
    # 8 bits for the heat: half a level moves the overlay, whose weight is its square root, most where it is least.
    assert difference.max() <= 0.6 * np.sqrt(0.5 / 255) * 255 + 2
    assert difference.mean() < 0.5


def test_each_class_has_its_own_map(api: InferenceAPI) -> None:
    maps = [np.asarray(pixels(explained(api, layers=True, class_name=name)[PARTS[2]])) for name in CLASSES]
    assert maps[0][:, -6:].max() == maps[1][:, :6].max() == 0
    assert maps[0].max() == maps[1].max() == 255


def test_layers_are_given_only_to_who_asks(api: InferenceAPI) -> None:
    whole = explained(api, layers=True)
    said = {"class", "method", "grid", "foreground_share", "reliable", "doubts", "probability", "covered_probability"}
    assert set(whole) == {*said, *PARTS}
    plain = explained(api)
    assert plain == {key: whole[key] for key in (*said, PARTS[0])}
    assert "explanation" not in cast(Any, api.predict)([InferenceRequest(encode(picture(0)))])[0]


def test_grey_runs_from_black_to_white() -> None:
    np.testing.assert_array_equal(to_grayscale(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]])), [[0, 0, 128, 255, 255]])


def test_layers_need_an_explanation(tmp_path: Path) -> None:
    with client_of(make_app(sealed(tmp_path / "bundle"), None)) as client:
        refusal(client.post("/predict?layers=true"), 422, "layers_without_explain")
        refusal(client.post("/predict?class=glioma"), 422, "class_without_explain")
        refusal(client.post("/predict?explain=true&layers=perhaps"), 422, "parameter_invalid")
        assert client.post("/predict?explain=true&layers=true").status_code == 503  # no worker here
