"""Work in several threads at once."""

import threading


def in_threads(work, count: int) -> list:
    """What five calls of ``work(i)`` return for each ``i``, all begun at the same moment."""
    results: list = [None] * count
    barrier = threading.Barrier(count)

    def run(i: int) -> None:
        barrier.wait()
        try:
            results[i] = [work(i) for _ in range(5)]
        except Exception as error:  # raised again where the test sees it
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
