"""Parts of help texts."""

from __future__ import annotations

__all__ = ["examples"]


def examples(*commands: str) -> str:
    """Example commands as the end of a help text, one a line."""
    return "\n\n".join(["Examples:", *(f"$ {command}" for command in commands)])
