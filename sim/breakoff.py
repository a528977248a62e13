"""Taking back what a task of the hypervisor has set going, when its host is lost.

Tasks know nothing of the calls and transfers that are to come for them: noting them would cost
every task of every run. A lost host is rare, so they are searched for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .fabric import Fabric
from .merge import Merge, Transfer


def drop_work_of(fabric: Fabric, owner: object) -> list[str]:
    """Cancel all calls and transfers that would end in a method of ``owner``.

    Returns
    -------
    list of str
        The names of the methods that would have been called next, so that the owner can tell how
        far it had come.
    """
    dropped = fabric.env.drop_calls(
        lambda callback, args: any(_ends_at(one) is owner for one in (callback, *args))
    )
    for server in fabric.servers():
        dropped += server.drop(lambda done: _ends_at(done) is owner)
    return [str(getattr(callback, "__name__", callback)) for callback in dropped]


def _ends_at(callback: Callable[..., Any]) -> object:
    """Whose method is called in the end, through a transfer and a merge if need be."""
    owner = getattr(callback, "__self__", None)
    while isinstance(owner, Transfer | Merge):
        owner = getattr(owner.then, "__self__", None)
    return owner
