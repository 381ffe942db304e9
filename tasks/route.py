"""Fourth stage: what to do with every image, and why. Pure: nothing is read but the estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task

from models.routing.policies import get_policy
from models.routing.rules import RoutingOptions
from models.types import from_json, to_json
from tasks.caching import StepKey
from tasks.jobs import Assessed, Detected, RestoreOptions, Routed, ShardJob


def route(job: ShardJob, detected: Sequence[Detected], assessed: Sequence[Assessed]) -> tuple[Routed, ...]:
    """Plan every image of the shard; an image that an earlier stage failed on gets no plan."""
    options, policy = routing_options(job.options), get_policy(job.options.policy)
    results: list[Routed] = []
    for found, measured in zip(detected, assessed, strict=True):
        if found.scratches is None or measured.estimate is None:
            results.append(Routed(plan=None, failure=measured.failure or found.failure))
        else:
            plan = policy.plan(measured.estimate, found.scratches, options=options, gains=measured.gains)
            results.append(Routed(plan=plan))
    return tuple(results)


def routing_options(options: RestoreOptions) -> RoutingOptions:
    """Return the part of the options that routing may look at."""
    return RoutingOptions(
        allow_colour=options.allow_colour,
        thorough=options.thorough,
        budget_gmac=options.budget_gmac,
        fill_method=options.fill_method,
        trust_scratches=options.scratch_threshold is not None,
        strengths=options.strengths,
    )


@task(name="route", cache_policy=StepKey(step="route"), result_serializer="json")
def route_shard(
    *, job: dict[str, Any], ingested: dict[str, Any], detected: list[dict[str, Any]], assessed: list[dict[str, Any]]
) -> Any:
    """Task over `route`; plain JSON in and out. ingested: for the key alone, which must name the images."""
    found = [from_json(Detected, item) for item in detected]
    measured = [from_json(Assessed, item) for item in assessed]
    return to_json(route(from_json(ShardJob, job), found, measured))
