"""What a verification of the seals looked at, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from workledger.model.findings import Finding

__all__ = ["SHOWN", "SealReport"]

#: So many faults are named; all are counted.
SHOWN: Final = 1000


@dataclass(slots=True, kw_only=True)
class SealReport:
    """What `verify_seals` looked at, and what it found. `unsealed` positions wait for a seal, which is no fault."""

    seals: int = 0
    signed: int = 0
    events: int = 0
    unsealed: int = 0
    erased: int = 0
    checkpoints: int = 0
    trusted_keys: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    finding_count: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.finding_count

    def add(self, kind: str, location: str, message: str) -> None:
        """Add a finding; of many, the first are kept."""
        self.finding_count += 1
        if len(self.findings) < SHOWN:
            self.findings.append(Finding(kind=kind, location=location, message=message))
