"""What `retl doctor` found: one value per check, with its remedy. Values only.

A finding never carries a secret. Principals are named by their e-mail address, which is what a
grant needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import PipelineError


class Outcome(StrEnum):
    """How a check ended; a warning keeps nothing from running."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check.

    about: what was checked, as the configuration names it ("source warehouse").
    check: a short name; of permissions, the permission ("bigquery.jobs.create").
    what: what was found. remedy: what to do about it. command: a shell command that does it.
    exit_code: of failures, the code that a run would end with; else 0.
    """

    about: str
    check: str
    outcome: Outcome
    what: str
    remedy: str = ""
    command: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "about": self.about,
            "check": self.check,
            "outcome": self.outcome.value,
            "what": self.what,
            "remedy": self.remedy,
            "command": self.command,
            "exit_code": self.exit_code,
        }


def first_failure(findings: Sequence[Finding]) -> int:
    """The exit code of the first failure; 0 without one."""
    return next((one.exit_code for one in findings if one.outcome is Outcome.FAILED), 0)


def failed(about: str, check: str, error: PipelineError) -> Finding:
    """A check that met an error which explains itself."""
    return Finding(
        about=about,
        check=check,
        outcome=Outcome.FAILED,
        what=str(error),
        exit_code=error.exit_code,
    )


def skipped(about: str, check: str, because: str) -> Finding:
    """A check that made no sense after the failure of another."""
    return Finding(about=about, check=check, outcome=Outcome.SKIPPED, what=f"after {because}")
