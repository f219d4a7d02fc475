"""Uploads of large images: few wait to be decoded, the others are patient, and what was stored stays stored."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from lesion.database.storage import Storage
from lesion.database.tables import Generation, Image
from lesion.imaging.limits import Limits
from lesion.intake.uploads import ModelOpinion
from lesion.intake.zip_reader import LabeledFile
from lesion.model.bundle import Bundle
from lesion.registry.registry import Registry
from serve.http.dependencies import AppState
from serve.http.schemas import UploadAnswer
from serve.inference.large_images import MAX_WAITING
from serve.ingest import Origin, judge_files
from serve.request_errors import BusyError
from tests.support.bundles.bundle_files import MEASURED, bundle_with
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import write
from tests.support.servers.app import client_of, make_app, make_state, refusal

LABEL = "glioma"
SMALL_SIDE, LARGE_SIDE = 48, 400
pytestmark = pytest.mark.slow  # every test here starts the process for large images


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_with(tmp_path / "bundle", MEASURED)


@pytest.fixture
def storage(tmp_path: Path, bundle: Path) -> Storage:
    made = new_storage(tmp_path / "loop")
    with made.session() as session:
        session.add(Generation(number=1, status="open"))
    registry = Registry(made)
    registry.deploy_first(registry.register(bundle), "ann", "the first")
    return made


@pytest.fixture(autouse=True)
def large_from_a_megabyte_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.inference.large_images.SMALL_MEMORY", 2**19)


class WaitForFile:
    """What a large image is decoded with in these tests: it lasts until a file is there. Pickled as its source."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        pause, path = "__import__('time').sleep(0.02)", f"__import__('pathlib').Path({str(self.file)!r})"
        return eval, (f"lambda data, limits: [{pause} for _ in iter({path}.exists, True)]",)


def agreeing(state: AppState) -> AppState:
    """The state with a champion that is sure of the label."""

    async def opinion(data: bytes) -> ModelOpinion:
        return ModelOpinion({LABEL: 1.0}, in_domain=True, distance=0.1, version="v1")

    state.dispatcher.opinion = opinion  # type: ignore[method-assign]
    return state


def files(folder: Path, first: int, sides: list[int]) -> list[LabeledFile]:
    paths = [write(folder / f"{first + number}.png", first + number, side) for number, side in enumerate(sides)]
    return [LabeledFile(path.name, LABEL, path.read_bytes()) for path in paths]


async def upload(state: AppState, given: list[LabeledFile]) -> UploadAnswer:
    assert state.stored is not None
    return await judge_files(state, state.stored.intake, given, Origin("upload", "ann"))


def block(state: AppState, end: Path) -> list["asyncio.Task[object]"]:
    """Have as many large images wait as may, until the file ``end`` is there."""
    wait = WaitForFile(end)
    return [
        asyncio.create_task(state.dispatcher.large_images.call(wait, b"", Limits(max_memory=2**20)))  # type: ignore[arg-type]
        for _ in range(MAX_WAITING)
    ]


def run(bundle: Path, storage: Storage, test: Callable[[AppState], Awaitable[None]]) -> None:
    async def main() -> None:
        state = agreeing(make_state(Bundle.open(bundle), storage))
        try:
            await asyncio.wait_for(test(state), 60)
        finally:
            state.dispatcher.large_images.close()

    asyncio.run(main())


def codes(answer: UploadAnswer) -> dict[str, str]:
    assert answer.rejected == []
    return {image.name: image.code for image in answer.accepted + answer.quarantined}


def test_uploads_wait_for_room_without_taking_more_than_there_is(
    tmp_path: Path, bundle: Path, storage: Storage
) -> None:
    async def test(state: AppState) -> None:
        blocking = block(state, tmp_path / "end")
        uploads = [
            asyncio.create_task(upload(state, files(tmp_path, 10 * number, [LARGE_SIDE] * 2))) for number in range(3)
        ]
        await asyncio.sleep(1.5)
        assert state.dispatcher.large_images._waiting == MAX_WAITING
        assert not any(each.done() for each in [*blocking, *uploads])
        (tmp_path / "end").touch()
        await asyncio.gather(*blocking)
        for answer in await asyncio.gather(*uploads):
            assert list(codes(answer).values()) == ["", ""]

    run(bundle, storage, test)


def test_of_one_upload_one_large_image_waits_at_a_time(
    tmp_path: Path, bundle: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(state: AppState) -> None:
        images, waiting = state.dispatcher.large_images, list[int]()
        call = images.call

        async def watched(*arguments: Any) -> Any:
            waiting.append(images._waiting)
            return await call(*arguments)

        monkeypatch.setattr(images, "call", watched)
        await upload(state, files(tmp_path, 0, [LARGE_SIDE] * 5))
        assert waiting == [0] * 5

    run(bundle, storage, test)


def test_an_upload_that_waited_too_long_is_refused_and_sent_again_stored_once(
    tmp_path: Path, bundle: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.file_examination._PATIENCE_S", 0.5)
    given = files(tmp_path, 0, [SMALL_SIDE] * 8 + [LARGE_SIDE] * 3)  # the first eight are judged together

    async def test(state: AppState) -> None:
        blocking = block(state, tmp_path / "end")
        tasks = asyncio.all_tasks()
        with pytest.raises(BusyError) as refused:
            await upload(state, given)
        assert refused.value.code == "large_images_full"
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks, "none of the upload's files still waits"
        assert count(storage) == 8
        (tmp_path / "end").touch()
        await asyncio.gather(*blocking)
        assert list(codes(await upload(state, given)).values()) == ["already_known"] * 8 + [""] * 3
        assert set(codes(await upload(state, given)).values()) == {"already_known"}
        assert count(storage) == 11

    run(bundle, storage, test)


def test_the_refusal_names_the_reason_and_when_to_try_again(
    tmp_path: Path, bundle: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.file_examination._PATIENCE_S", 0.0)
    monkeypatch.setattr("serve.inference.large_images.SMALL_MEMORY", 1000)
    picture = write(tmp_path / "a.png", 0, 24).read_bytes()
    app = make_app(bundle, storage)
    state = agreeing(app.state.services)
    monkeypatch.setattr(state.dispatcher, "check_room", lambda: None)
    with client_of(app) as client:

        def send() -> Any:
            return client.post("/feedback", files={"file": ("a.png", picture)}, data={"label": LABEL})

        state.dispatcher.large_images._waiting = MAX_WAITING
        answer = send()
        refusal(answer, 503, "large_images_full")
        assert answer.headers["Retry-After"] == "1"
        assert count(storage) == 0
        state.dispatcher.large_images._waiting = 0
        assert [image["code"] for image in send().json()["accepted"]] == [""]
        assert count(storage) == 1
    state.dispatcher.large_images.close()


def count(storage: Storage) -> int:
    with storage.session() as session:
        return session.scalars(select(func.count()).select_from(Image)).one()
