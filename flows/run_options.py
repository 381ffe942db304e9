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
    _check_fit_iterations(options)
    settings_for(options.scratch_threshold)
    if not get_method(options.fill_method).card.needs_mask:
        raise ValueError(f"--fill: {options.fill_method} fills no holes; `lacuna methods` lists those that do")


def _check_fit_iterations(options: RestoreOptions) -> None:
    """Raise ValueError for a limit on iterations in a run that has none."""
    from models.routing.policies import FIXED
    from tasks.fits import fits_each_picture

    if options.fit_iterations is None:
        return
    asked = [options.fill_method, *(method_id for method_id, strength in options.strengths if strength > 0.0)]
    if options.policy.startswith(FIXED):
        asked.append(options.policy.removeprefix(FIXED))
    if options.fit_iterations < 1:
        raise ValueError(f"--fit-iterations: got {options.fit_iterations}, expected at least 1")
    if not any(fits_each_picture(method_id) for method_id in asked):
        raise ValueError(
            f"--fit-iterations: none of {', '.join(asked)} learns from each picture; leave it out, or ask for a method "
            "that does, such as --fill deep-image-prior-fast"
        )
