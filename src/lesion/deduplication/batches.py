"""Work on many rows: in pieces for which temporary arrays stay small, on all cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from lesion.core.cpu import available_cores

Part = TypeVar("Part")
Result = TypeVar("Result")

_CHUNK = 128
_WORTH_THREADS = 6  # parts: to start threads for fewer takes longer than it saves


def chunks(n: int) -> Iterator[slice]:
    """Divide n rows into slices of at most 128."""
    return (slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))


def in_threads(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return the results for all parts, in their order; NumPy computes them at the same time."""
    if len(parts) < _WORTH_THREADS:
        return [work(part) for part in parts]
    with _one_thread_per_product(), ThreadPoolExecutor(min(available_cores(), len(parts))) as pool:
        return list(pool.map(work, parts))


def _one_thread_per_product() -> AbstractContextManager[object]:
    """Keep matrix products from using threads of their own: on a busy machine these wait for each other."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn, which a server need not have
    except ImportError:
        return nullcontext()
    limit: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limit
