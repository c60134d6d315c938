"""What a verification found: one shape for every command that verifies."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault: what kind (`event.altered`), where (`position 17`), and a sentence that says what is wrong."""

    kind: str
    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message} ({self.kind})"
