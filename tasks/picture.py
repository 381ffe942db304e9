"""One image on its way through its plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from models.routing.rules import enlargement
from models.types import DegradationEstimate, ImageRecord, Plan, ScratchReport, Step, StepOutcome
from tasks.jobs import Failure


@dataclass(slots=True, eq=False, kw_only=True)
class Picture:
    """`pixels` is the latest accepted state, None before and after the work."""

    record: ImageRecord
    scratches: ScratchReport | None
    estimate: DegradationEstimate | None
    plan: Plan | None
    failure: Failure | None
    seconds: float
    pixels: npt.NDArray[Any] | None = None
    changed: bool = False
    filled: bool = False
    refused: bool = False
    outcomes: list[StepOutcome] = field(default_factory=list)

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of the plan, in order; none for a failed image."""
        return () if self.plan is None else tuple(step.method_id for step in self.plan.steps)

    @property
    def final_pixels(self) -> int:
        """How many pixels the plan ends with."""
        return self.record.width * self.record.height * enlargement(self.plan) ** 2

    @property
    def pending(self) -> tuple[Step, ...]:
        """Steps still to be carried out; none after a failure, nor after a refusal, whose result they were for."""
        if self.plan is None or self.failure is not None or self.refused:
            return ()
        return self.plan.steps[len(self.outcomes) :]
