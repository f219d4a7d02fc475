"""Large images are decoded in a process of their own, which may end without harm."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest

from lesion.core.errors import ImageError
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from lesion.imaging.preprocessing import Preprocessing
from lesion.imaging.refusals import ImageTooLargeError
from serve.inference.large_images import MAX_WAITING, LargeImages, small_only
from serve.request_errors import BusyError
from tests.support.images.hostile import encode, gradient

pytestmark = pytest.mark.slow  # every test here starts another process

PICTURE = encode(gradient())
FIT = Preprocessing(size=32)
LIMITS = Limits(max_memory=2**20)


class Function:
    """A function of an image and its limits, as source: another process makes it of that."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> Any:
        return eval, (f"lambda data, limits: {self.source}",)


def function(source: str) -> Callable[[bytes, Limits], Any]:
    return cast(Callable[[bytes, Limits], Any], Function(source))


PROCESS = function("__import__('os').getpid()")


def run(test: Callable[[LargeImages], Awaitable[None]]) -> None:
    async def main() -> None:
        images = LargeImages()
        try:
            await asyncio.wait_for(test(images), 60)
        finally:
            images.close()

    asyncio.run(main())


def gone(process: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(process).wait(10)
    return not psutil.pid_exists(process)


def test_an_image_is_fitted_as_in_this_process_and_a_refusal_comes_back() -> None:
    async def test(images: LargeImages) -> None:
        fitted = await images.call(FIT.read, PICTURE, DEFAULT_LIMITS)
        np.testing.assert_array_equal(fitted, FIT.read(PICTURE))
        with pytest.raises(ImageTooLargeError, match="more than the 3,000 allowed") as refusal:
            await images.call(FIT.read, PICTURE, Limits(max_pixels=3000))
        assert refusal.value.code == "image_too_many_pixels"
        process = await images.call(PROCESS, b"", LIMITS)
        assert process != os.getpid()
        assert await images.call(PROCESS, b"", LIMITS) == process, "one for all"
        assert psutil.Process(process).nice() > psutil.Process().nice()

    run(test)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("__import__('os').kill(__import__('os').getpid(), 11)", "does not fit in memory"),
        ("__import__('os').kill(__import__('os').getpid(), __import__('signal').SIGXCPU)", "more than 10 seconds"),
        ("__import__('os')._exit(0)", "does not fit in memory"),
        ("len(bytes(300 * 2**20))", "does not fit in memory"),
    ],
)
def test_an_image_that_ends_the_process_is_refused_and_the_next_one_is_read(source: str, message: str) -> None:
    async def test(images: LargeImages) -> None:
        with pytest.raises(ImageTooLargeError, match=message):
            await images.call(function(source), b"", LIMITS)
        assert (await images.call(FIT.read, PICTURE, DEFAULT_LIMITS)).shape == (32, 32, 3)

    run(test)


def test_memory_is_bounded_by_that_of_the_limits() -> None:
    async def test(images: LargeImages) -> None:
        half = function("len(bytes(300 * 2**20))")
        assert await images.call(half, b"", Limits(max_memory=300 * 2**20)) == 300 * 2**20
        with pytest.raises(ImageTooLargeError):
            await images.call(half, b"", LIMITS)

    run(test)


def test_computing_time_is_bounded() -> None:
    async def test(images: LargeImages) -> None:
        soft, _ = await images.call(function("__import__('resource').getrlimit(0)"), b"", LIMITS)
        assert 10 <= soft <= 12, "seconds of this process, which has just begun"

    run(test)


def test_an_image_that_takes_too_long_ends_with_its_process() -> None:
    async def test(images: LargeImages) -> None:
        process = await images.call(PROCESS, b"", LIMITS)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await images.call(function("__import__('time').sleep(60)"), b"", LIMITS)
        assert gone(process)
        assert await images.call(PROCESS, b"", LIMITS) != process

    run(test)


def test_one_image_is_decoded_at_a_time_and_few_may_wait(tmp_path: Path) -> None:
    running = tmp_path / "running"
    alone = function(f"(__import__('os').mkdir({str(running)!r}), __import__('os').rmdir({str(running)!r}))")

    async def test(images: LargeImages) -> None:
        calls = [asyncio.create_task(images.call(alone, b"", LIMITS)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as refusal:
            await images.call(alone, b"", LIMITS)
        assert refusal.value.code == "large_images_full"
        await asyncio.gather(*calls)  # two at a time would meet each other's folder
        await images.call(alone, b"", LIMITS)

    run(test)


def test_an_idle_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.inference.large_images._IDLE_S", 0.1)

    async def test(images: LargeImages) -> None:
        process = await images.call(PROCESS, b"", LIMITS)
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(gone, process)

    run(test)


def test_a_fault_of_the_decoder_refuses_only_its_image() -> None:
    async def test(images: LargeImages) -> None:
        process = await images.call(PROCESS, b"", LIMITS)
        with pytest.raises(ImageError) as refusal:
            await images.call(function("data[3]"), b"", LIMITS)
        assert refusal.value.code == "image_corrupt"
        assert await images.call(PROCESS, b"", LIMITS) == process

    run(test)


def test_small_images_are_those_of_little_memory() -> None:
    assert small_only(DEFAULT_LIMITS).memory == 12 * 2**20
    assert small_only(Limits(max_pixels=1000)).memory == 6000
    assert small_only(DEFAULT_LIMITS) == DEFAULT_LIMITS, "all else is the same"
