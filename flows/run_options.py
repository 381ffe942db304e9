"""Whether what a run was asked for can be done, before any of it is begun."""

from __future__ import annotations

from tasks.jobs import RestoreOptions


def check_methods(options: RestoreOptions) -> None:
    """Raise UnknownMethodError, naming the nearest, or ValueError for a method that cannot be used as asked."""
    from models.registry import get_method
    from models.routing.policies import PREDICTED_GAIN, get_policy, without_views
    from models.routing.treatments import TREATING_METHODS as PARTS
    from models.scratches.detector import settings_for
    from models.types import MIXTURES, plain_id
    from tasks.route import routing_options

    routing_options(options)
    get_policy(options.policy)
    for method_id, _ in options.strengths:
        get_method(method_id)
    parts = [method_id for method_id, value in options.strengths if plain_id(method_id) in PARTS and value != 1.0]
    if options.policy in MIXTURES and parts:
        raise ValueError(
            f"--strength {parts[0]}: --policy {options.policy} mixes {', '.join(PARTS)} in shares of its own; give the "
            f"strength of {options.policy} itself, or choose another policy"
        )
    if options.thorough and (method := without_views(options.policy)) is not None:
        raise ValueError(
            f"--thorough: --policy {options.policy} treats by {method}, which has no mean over flips and turns; leave "
            "--thorough out, or choose a policy such as predicted-gain or soft"
        )
    if options.budget_gmac is not None and options.policy != PREDICTED_GAIN:
        raise ValueError(
            f"--budget: --policy {options.policy} does not choose by what treatments take; leave --budget out, or use "
            f"--policy {PREDICTED_GAIN}"
        )
    settings_for(options.scratch_threshold)
    if not get_method(options.fill_method).card.needs_mask:
        raise ValueError(f"--fill: {options.fill_method} fills no holes; `lacuna methods` lists those that do")
