"""Explanations in parts: what each part asks for, what is bounded, and what happens when the model is replaced."""

import asyncio
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from lesion.model.predictor import Prediction, Predictor
from serve.inference.dispatcher import Dispatcher
from serve.inference.explainer import MAX_WAITING, Explainer
from serve.inference.inference_worker import InferenceAPI
from serve.inference.messages import CoverRequest, InferenceRequest, MapRequest, Request, Unexplained
from serve.inference.shared_state import SharedState
from serve.request_errors import BusyError, ModelReplacedError
from serve.settings import ServerSettings
from tests.support.bundles.lamp_bundles import lamp
from tests.support.images.hostile import encode
from tests.support.images.pictures import picture


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> InferenceAPI:
    bundle = lamp(tmp_path_factory.mktemp("explainer") / "lamp", 0.02)
    predictor = Predictor.load(bundle, "cpu", precision="f32")
    made = InferenceAPI(bundle, ServerSettings(device="cpu", precision="f32", batch_timeout=0.0))
    made.shared_state, made.worker, made.current = SharedState(1, 1), 0, lambda: predictor
    return made


class Worker:
    """Answers requests as an inference worker does, and remembers them; errors are raised as the dispatcher does."""

    def __init__(self, api: InferenceAPI) -> None:
        self.api = api
        self.requests: list[Request] = []

    async def submit(self, request: Request) -> object:
        self.requests.append(request)
        await asyncio.sleep(0)
        [answer] = cast(Any, self.api.predict)([request])
        if isinstance(answer, Exception):
            raise answer
        return answer


def unexplained(api: InferenceAPI) -> Unexplained:
    [found] = cast(Any, api.predict)([InferenceRequest(encode(picture(0)), explain=True)])
    assert isinstance(found, Unexplained)
    return found


def test_the_parts_give_the_map_of_one_process(api: InferenceAPI) -> None:
    worker = Worker(api)
    answer = asyncio.run(Explainer(worker.submit).explain(unexplained(api), True, ""))
    predictor = api.current()
    [prediction] = predictor.predict([encode(picture(0))])
    assert isinstance(prediction, Prediction)
    expected = predictor.explain(prediction)
    explanation = answer["explanation"]
    assert explanation["probability"] == expected.probability
    assert explanation["covered_probability"] == expected.covered_probability
    assert explanation["doubts"] == list(expected.doubts)
    assert answer["predicted_class"] == prediction.predicted_class
    covers, maps = worker.requests[:-1], worker.requests[-1]
    assert isinstance(maps, MapRequest)
    assert all(isinstance(request, CoverRequest) for request in covers)
    assert sum(len(request.boxes) for request in covers if isinstance(request, CoverRequest)) == 40


@pytest.mark.parametrize(("size", "most"), [(32, 24), (96, 24), (256, 3), (1024, 1)])
def test_larger_images_go_in_smaller_parts(size: int, most: int) -> None:
    sizes = []

    async def submit(request: Request) -> object:
        if isinstance(request, MapRequest):
            return {}
        assert isinstance(request, CoverRequest)
        sizes.append(len(request.boxes))
        return np.full((max(len(request.boxes), 1), 2), 0.5)

    found = Unexplained(cast(Any, {"model_version": "v"}), bytes(3 * size**2), size, "bright")
    asyncio.run(Explainer(submit).explain(found, False, ""))
    assert max(sizes) == most
    assert sum(sizes) == 40


def test_few_wait_and_one_is_made_at_a_time(api: InferenceAPI) -> None:
    at_once, highest = 0, 0

    async def submit(request: Request) -> object:
        nonlocal at_once, highest
        at_once += 1
        highest = max(highest, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return {} if isinstance(request, MapRequest) else np.full((max(len(cast(Any, request).boxes), 1), 2), 0.5)

    async def crowd() -> list[object]:
        explainer = Explainer(submit)
        explained = [explainer.explain(unexplained(api), False, "") for _ in range(MAX_WAITING + 4)]
        return list(await asyncio.gather(*explained, return_exceptions=True))

    results = asyncio.run(crowd())
    refused = [result for result in results if isinstance(result, BusyError)]
    assert [error.code for error in refused] == ["explanations_full"] * 3
    assert highest == 1


def test_another_model_does_not_answer_for_the_first(api: InferenceAPI) -> None:
    found = unexplained(api)
    found.answer["model_version"] = "another"
    with pytest.raises(ModelReplacedError):
        asyncio.run(Explainer(Worker(api).submit).explain(found, False, ""))


def test_after_a_replacement_the_new_model_is_asked(api: InferenceAPI, tmp_path: Path) -> None:
    """The first answer comes from a model that is gone when its squares are covered."""

    async def ask() -> dict[str, Any]:
        dispatcher = Dispatcher(SharedState(1, 1), 0, cast(Any, None), {}, 8, 5.0)
        worker, first = Worker(api), True

        async def submit(request: Request) -> object:
            nonlocal first
            answer = await worker.submit(request)
            if isinstance(answer, Unexplained) and first:
                first = False
                answer.answer["model_version"] = "replaced"
            return answer

        dispatcher._submit = submit  # type: ignore[method-assign]
        dispatcher.explainer = Explainer(submit)
        return cast(dict[str, Any], await dispatcher.predict(InferenceRequest(encode(picture(0)), explain=True)))

    answer = asyncio.run(ask())
    assert answer["model_version"] == api.current().bundle.version
    assert answer["explanation"]["method"] == "occlusion"
