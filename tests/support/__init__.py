"""What tests share: real servers on free ports, waiting without sleeping, and skips that CI refuses."""

from support.requirements import require
from support.waiting import wait_until

__all__ = ["require", "wait_until"]
