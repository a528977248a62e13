"""Python's cyclic garbage collector while models run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (100_000, 20, 100)


@contextmanager
def few_collections(*, freeze: bool = False) -> Iterator[None]:
    """Have the collector look rarely: a run allocates much and leaves few cycles.

    With the default thresholds a fifth of a large run's time goes to searching for them, and up to
    a tenth of that of short ones.

    Parameters
    ----------
    freeze:
        Collect once, and then not look at what exists already. For one long run; it would cost
        more than it gives around many short ones.
    """
    thresholds = gc.get_threshold()
    if freeze:
        gc.collect()
        gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if freeze:
            gc.unfreeze()
