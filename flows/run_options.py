"""Whether what a run was asked for can be done, before any of it is begun."""

from __future__ import annotations

from tasks.jobs import RestoreOptions


def check_methods(options: RestoreOptions) -> None:
    """Raise UnknownMethodError, naming the nearest, or ValueError for a method that cannot be used as asked."""
    from models.registry import get_method
    from models.routing.policies import get_policy
    from tasks.route import routing_options

    routing_options(options)
    get_policy(options.policy)
    for method_id, _ in options.strengths:
        get_method(method_id)
    if not get_method(options.fill_method).card.needs_mask:
        raise ValueError(f"--fill: {options.fill_method} fills no holes; `lacuna methods` lists those that do")
