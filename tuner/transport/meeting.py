"""Where the ranks of a job tell each other, once, how they are reached."""

from __future__ import annotations

# `torch.distributed` has them too, but does not say so to type checkers.
from torch._C._distributed_c10d import PrefixStore, Store

__all__ = ["PrefixStore", "Store", "exchange"]


def exchange(store: Store, name: str, *, rank: int, num_ranks: int, value: str) -> list[str]:
    """Gives the values of all ranks, in their order, once all have given theirs.

    Raises:
        torch.distributed.DistStoreError: A rank did not come within the store's time limit.
    """
    keys = [f"{name}/{other}" for other in range(num_ranks)]
    store.set(keys[rank], value)
    store.wait(keys)
    return [store.get(key).decode() for key in keys]
