"""The next batch, cut by a thread while the device computes: for images that stay in main memory."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

Batch = tuple[Tensor, Tensor | None]


class Prefetched:
    """Batches of consecutive steps, each begun while the one before is in use.

    Args:
        batch_at: makes the batch of a step and rank; any order of calls gives the same batches.
        pin: whether to put them in memory that a GPU copies from without being waited for.
    """

    def __init__(self, batch_at: Callable[[int, int], Batch], pin: bool) -> None:
        self._make = batch_at
        self._pin = pin
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: tuple[tuple[int, int], Future[Batch]] | None = None

    def batch_at(self, step: int, rank: int) -> Batch:
        """Return the batch of a step, and begin the next."""
        ahead = self._ahead
        batch = ahead[1].result() if ahead and ahead[0] == (step, rank) else self._prepare(step, rank)
        self._ahead = (step + 1, rank), self._pool.submit(self._prepare, step + 1, rank)
        return batch

    def _prepare(self, step: int, rank: int) -> Batch:
        hr, lr = self._make(step, rank)
        if not self._pin:
            return hr, lr
        return hr.pin_memory(), None if lr is None else lr.pin_memory()
