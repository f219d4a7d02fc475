"""The rows that a process reads in an epoch: all of them, or its share if several processes train together."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Pairs of epoch and row, the rows in an order that depends only on the seed and the epoch.

    ``epoch`` returns the current epoch and is called when an epoch begins. With ``weights``, (size,), rows are drawn
    with replacement instead of permuted. Of P ``processes``, the one with number ``process`` gets every Pth row, so
    that P batches of B rows are one process's batch of P · B rows; the last few rows of the order are left out, so that
    all have the same number.
    """

    # Lightning shares out the rows itself, and repeats some of them, unless it finds a DistributedSampler.
    def __init__(
        self,
        size: int,
        seed: int,
        epoch: Callable[[], int],
        weights: NDArray[np.float64] | None = None,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        super().__init__(range(size), processes, process)  # type: ignore[arg-type]
        self._size = size
        self._seed = seed
        self._epoch = epoch
        self._shares = None if weights is None else weights / weights.sum()

    def __len__(self) -> int:
        return self._size // self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self._epoch()
        rng = np.random.default_rng([self._seed, epoch])
        if self._shares is None:
            rows = rng.permutation(self._size)
        else:
            rows = rng.choice(self._size, self._size, replace=True, p=self._shares)
        own = rows[self.rank :: self.num_replicas][: len(self)]
        return ((epoch, row) for row in own.tolist())


class ShareSampler(DistributedSampler[int | None]):
    """Every Pth row of ``size`` rows in their order, beginning with the number of this of P processes.

    All processes get the same number of rows, since they must run the same number of batches: where one has a row less,
    None stands for a row that is not measured.
    """

    def __init__(self, size: int, processes: int = 1, process: int = 0) -> None:
        super().__init__(range(size), processes, process)  # type: ignore[arg-type]
        self._size = size

    def __len__(self) -> int:
        return math.ceil(self._size / self.num_replicas)

    def __iter__(self) -> Iterator[int | None]:
        rows = range(self.rank, len(self) * self.num_replicas, self.num_replicas)
        return iter([row if row < self._size else None for row in rows])
