"""What a forked child must not share with its parent: sockets, locks another thread held, threads that are gone."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Inheritable", "forget_after_fork"]


class Inheritable(Protocol):
    """Something whose state is of no use in a forked child."""

    def forget_parent(self) -> None:
        """Begin anew, leaving what belongs to the parent untouched; runs in the child before anything else does."""
        ...


_inheritance: WeakSet[Inheritable] = WeakSet()


def forget_after_fork(heir: Inheritable) -> None:
    """Have `heir.forget_parent()` called in every child that this process forks."""
    _inheritance.add(heir)


def _forget_all() -> None:
    for heir in list(_inheritance):
        heir.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
