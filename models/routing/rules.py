"""Routing by a table of conditions: what the estimate must say, and how surely, before a method is applied.

A plan is a pure function of the estimate, the scratch report and the options. Every step carries a sentence for the
curator; when no condition holds the plan is empty and says why the picture is left untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from models.routing.treatments import GRAIN, MIXTURE, SINGLE_FAULTS
from models.types import (
    DegradationEstimate,
    Estimated,
    Gain,
    Plan,
    ScratchReport,
    Step,
    Treatment,
    plain_id,
    thorough_id,
)

POLICY = "rules"
# For noise, blur and compression that came together.
(MIXED_METHOD,) = MIXTURE
# Methods that enlarge, and how many times; one of them is applied only when its strength is given.
UPSCALERS = {"upscale-x2": 2, "upscale-x4": 4, "deep-image-prior-x4": 4, "deep-image-prior-x8": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on a degradation is worth treating. The defaults come from `python -m benchmarks.estimation`.

    They lie above what clean pictures with strong texture are estimated at, so that those are left alone. Those called
    mixed lie above what 41 training photographs were estimated at that were only compressed, at qualities 20-92.
    """

    confidence: float = 0.5
    noise_sigma: float = 4.5
    seen_noise_sigma: float = 4.0
    unseen_grain_deviations: float = 2.75
    jpeg_quality: float = 70.0
    slight_jpeg_quality: float = 90.0
    slight_jpeg_deviations: float = 1.75
    blur_sigma_px: float = 0.75
    grain_sigma: float = 0.75
    grainy_blur_sigma_px: float = 1.25
    trace_noise_sigma: float = 0.25
    trace_jpeg_quality: float = 98.0
    trace_blur_sigma_px: float = 0.2
    untraced_deviations: float = 1.5
    fading: float = 0.45
    fading_with_cast: float = 0.25
    colour_cast: float = 8.0
    scratch_coverage: float = 1e-5
    scratch_places: int = 3
    scratch_confidence_alone: float = 0.95
    mixed_noise_sigma: float = 1.5
    mixed_noise_confidence: float = 0.55
    mixed_blur_sigma_px: float = 0.85
    mixed_jpeg_quality: float = 95.0
    mixed_doubtful_noise_sigma: float = 9.0
    review_coverage: float = 0.3
    review_unsure_coverage: float = 0.05
    review_noise_sigma: float = 70.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """What the user allows. Colour changes are opt-in; `strengths` overrides a method's strength, 0 switches it off.

    A strength above 0 for one of UPSCALERS asks for it: every picture ends so much larger. ValueError for two of them.
    thorough: take the mean over flips and turns of every method that has one, at eight times the work. trust_scratches:
    fill what was found however unsure, as the user has said from which probability on. budget_gmac: what a treatment
    may take at most, in giga multiply-accumulates per megapixel, None = anything; ValueError unless finite and above 0.
    """

    allow_colour: bool = False
    thorough: bool = False
    budget_gmac: float | None = None
    trust_scratches: bool = False
    fill_method: str = "fill"
    deblur_method: str = "deblur"
    strengths: tuple[tuple[str, float], ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        asked = self._upscalers
        if len(asked) > 1:
            raise ValueError(f"strengths: got {' and '.join(asked)}, expected one enlargement; choose one of them")
        if self.budget_gmac is not None and not 0.0 < self.budget_gmac < math.inf:
            raise ValueError(
                f"budget: got {self.budget_gmac:g}, expected a number of GMAC per megapixel above 0, such as 150; "
                "`lacuna methods` lists what each method takes"
            )

    @property
    def _upscalers(self) -> list[str]:
        return [method for method, strength in self.strengths if plain_id(method) in UPSCALERS and strength > 0.0]

    @property
    def upscale_method(self) -> str | None:
        """The enlargement that was asked for, None = pictures keep their size."""
        return next(iter(self._upscalers), None)

    def strength(self, method_id: str) -> float:
        """Strength for a method, 1 unless overridden; a method and its mean over views have one strength."""
        return {plain_id(method): strength for method, strength in self.strengths}.get(plain_id(method_id), 1.0)


@dataclass(frozen=True, slots=True)
class _Finding:
    """Everything a condition may look at."""

    estimate: DegradationEstimate
    scratches: ScratchReport
    options: RoutingOptions

    def sure(self, measured: Estimated) -> float | None:
        """The value, or None when it was not measured or is not trusted enough."""
        return measured.value if measured.confidence >= self.options.thresholds.confidence else None


Condition = Callable[[_Finding], Step | None]


def _fill(finding: _Finding) -> Step | None:
    scratches = finding.scratches
    if scratches.mask is None or not (scratches.given or _believed(finding)):
        return None
    method, whose = finding.options.fill_method, "by the mask that was given, " if scratches.given else ""
    return Step(
        method_id=method,
        strength=finding.options.strength(method),
        reason=f"{whose}{scratches.components} damaged places cover {scratches.coverage:.2%} of the picture",
    )


def _believed(finding: _Finding) -> bool:
    """Whether what a search found is surely damage, and not too little or too much of it to be filled."""
    scratches, thresholds = finding.scratches, finding.options.thresholds
    if not thresholds.scratch_coverage <= scratches.coverage <= thresholds.review_coverage:
        return False
    trusted = finding.options.trust_scratches or scratches.confidence >= thresholds.confidence
    return trusted and not _isolated(finding)


def _isolated(finding: _Finding) -> bool:
    """Whether only one or two places were found, none of them beyond doubt.

    Wear rarely comes alone; a lone finding on a clean picture is mostly a wire, a mast or a blade of grass.
    """
    scratches, thresholds = finding.scratches, finding.options.thresholds
    if scratches.mask is None or scratches.components >= thresholds.scratch_places or finding.options.trust_scratches:
        return False
    return thresholds.confidence <= scratches.confidence < thresholds.scratch_confidence_alone


def _mixed(finding: _Finding) -> Step | None:
    """Several faults at once, which hide each other, so that a method for one of them leaves the rest."""
    faults = _mixed_faults(finding)
    if faults is None:
        return None
    return Step(method_id=MIXED_METHOD, strength=finding.options.strength(MIXED_METHOD), reason=faults)


def _mixed_faults(finding: _Finding) -> str | None:
    """Say which faults came together, or None.

    What compression does to noise and blur is measured badly, and the estimator says so: under a quality that is beyond
    doubt, a doubtful noise is itself a sign.
    """
    thresholds, estimate = finding.options.thresholds, finding.estimate
    noise, blur, sigma = estimate.noise_sigma, estimate.blur_sigma_px.value, finding.sure(estimate.noise_sigma)
    quality = finding.sure(estimate.jpeg_quality)
    if noise.value is None or blur is None or quality is None:
        return None
    compressed, noisy = quality <= thresholds.jpeg_quality, noise.value >= thresholds.noise_sigma
    compression = f"JPEG compression at quality {quality:.0f}"
    # Texture under light compression is taken for some noise, too.
    doubtful = sigma is None and noise.value >= thresholds.mixed_doubtful_noise_sigma
    if (compressed and noisy) or (quality <= thresholds.mixed_jpeg_quality and doubtful):
        return f"noise of about σ {noise.value:.0f} under {compression}"
    if compressed and (
        noise.value >= thresholds.mixed_noise_sigma or noise.confidence < thresholds.mixed_noise_confidence
    ):
        return f"noise that {compression} has disfigured"
    if compressed and blur >= thresholds.mixed_blur_sigma_px:
        return f"blur of about σ {blur:.1f} px under {compression}"
    if sigma is not None and noisy and blur >= thresholds.blur_sigma_px:
        return f"noise of σ {sigma:.1f} over blur of about σ {blur:.1f} px"
    return None


def _deblock(finding: _Finding) -> Step | None:
    quality = finding.sure(finding.estimate.jpeg_quality)
    if quality is None or quality > finding.options.thresholds.jpeg_quality:
        return None
    return Step(
        method_id="deblock",
        strength=finding.options.strength("deblock"),
        reason=f"JPEG compression at quality {quality:.0f} has left blocks and ringing",
    )


def _denoise(finding: _Finding) -> Step | None:
    sigma = finding.sure(finding.estimate.noise_sigma)
    if sigma is None or sigma < finding.options.thresholds.noise_sigma:
        return None
    return Step(
        method_id="denoise",
        strength=finding.options.strength("denoise"),
        reason=f"noise of σ {sigma:.1f} grey levels",
    )


def _deblur(finding: _Finding) -> Step | None:
    thresholds = finding.options.thresholds
    blur = finding.sure(finding.estimate.blur_sigma_px)
    if blur is None or blur < thresholds.blur_sigma_px:
        return None
    if _denoise(finding) is not None or _deblock(finding) is not None:
        # Sharpening what denoising or deblocking has just smoothed brings back what they took away.
        return None
    method = finding.options.deblur_method
    return Step(
        method_id=method,
        strength=finding.options.strength(method),
        reason=f"blur of σ {blur:.1f} px",
    )


def _colour(finding: _Finding) -> Step | None:
    if not finding.options.allow_colour:
        return None
    fading, cast = finding.sure(finding.estimate.fading), finding.sure(finding.estimate.colour_cast)
    thresholds = finding.options.thresholds
    # Dyes fade unevenly: lost range together with a cast is the mark of it, lost range alone may be a misty morning.
    tinted = cast is not None and cast >= thresholds.colour_cast
    if (fading or 0.0) < (thresholds.fading_with_cast if tinted else thresholds.fading):
        return None
    tint = f" with a cast of {cast:.0f} CIELAB units" if tinted else ""
    return Step(
        method_id="tonal-range",
        strength=finding.options.strength("tonal-range"),
        reason=f"faded: {fading or 0.0:.0%} of the tonal range is lost{tint}",
    )


def _upscale(finding: _Finding) -> Step | None:
    method = finding.options.upscale_method
    if method is None:
        return None
    return Step(
        method_id=method,
        strength=finding.options.strength(method),
        reason=f"enlargement {UPSCALERS[plain_id(method)]} times was asked for",
    )


def _treatment(finding: _Finding) -> tuple[Step, ...]:
    """Return what the conditions say against noise, blur and compression."""
    mixed = _mixed(finding)
    faults = (_deblock, _denoise, _deblur) if mixed is None or mixed.strength == 0.0 else (_mixed,)
    return tuple(step for step in (condition(finding) for condition in faults) if step is not None)


def _levels(estimate: DegradationEstimate) -> tuple[float | None, float | None, float | None]:
    """Return σ of the noise, quality of the JPEG and σ of the blur, however unsure."""
    return estimate.noise_sigma.value, estimate.jpeg_quality.value, estimate.blur_sigma_px.value


def shows_fault(estimate: DegradationEstimate, *, method_id: str, thresholds: Thresholds) -> bool:
    """Whether the fault that a method treats is estimated strong enough to be seen, however unsure.

    As strong as the rules treat it from, but for noise, which is seen a little earlier (0023), and for blur under noise
    or grain, which is seen from where it is more than how soft a picture may be by itself (0026).

    True for a method against mixtures, whose parts hide each other, and for every other one.
    """
    noise, quality, blur = _levels(estimate)
    grainy = noise is not None and noise >= thresholds.grain_sigma
    soft_px = thresholds.grainy_blur_sigma_px if grainy else thresholds.blur_sigma_px
    seen = {
        "denoise": noise is not None and noise >= thresholds.seen_noise_sigma,
        "degrain": noise is not None and noise >= thresholds.seen_noise_sigma,
        "deblock": quality is not None and quality <= thresholds.jpeg_quality,
        "deblur": blur is not None and blur >= soft_px,
    }
    return seen.get(method_id, True)


def shows_faults_of(estimate: DegradationEstimate, *, treatment: Treatment, thresholds: Thresholds) -> bool:
    """Whether all that a treatment is for is estimated so, or any of it for a mixture, whose parts hide each other."""
    if treatment == MIXTURE:
        return any(shows_faults_of(estimate, treatment=(fault,), thresholds=thresholds) for fault in SINGLE_FAULTS)
    return all(shows_fault(estimate, method_id=method, thresholds=thresholds) for method in treatment)


def deviations_where_unseen(estimate: DegradationEstimate, *, treatment: Treatment, thresholds: Thresholds) -> float:
    """Return how many deviations a gain must be worth where the estimate shows none of the treatment's faults.

    Of a mixture, one where there is a trace of noise, compression or blur, however unsure: parts of a mixture hide each
    other. `untraced_deviations` where there is none (docs/decisions/0029). Of grain, of which about a third is read as
    noise, `unseen_grain_deviations` (0038). Of compression, `slight_jpeg_deviations` from `slight_jpeg_quality` down
    (0039). Without bound for all others.
    """
    noise, quality, blur = _levels(estimate)
    if treatment == GRAIN:
        return thresholds.unseen_grain_deviations
    if treatment == ("deblock",) and quality is not None and quality <= thresholds.slight_jpeg_quality:
        return thresholds.slight_jpeg_deviations
    if treatment != MIXTURE:
        return math.inf
    traced = (
        (noise is not None and noise >= thresholds.trace_noise_sigma)
        or (quality is not None and quality <= thresholds.trace_jpeg_quality)
        or (blur is not None and blur >= thresholds.trace_blur_sigma_px)
    )
    return 1.0 if traced else thresholds.untraced_deviations


def plan_for(
    estimate: DegradationEstimate,
    scratches: ScratchReport,
    *,
    options: RoutingOptions | None = None,
    gains: Sequence[Gain] = (),
) -> Plan:
    """Return what should be done to a picture with this estimate and these scratches; no steps = leave untouched.

    gains: what was predicted of every treatment; recorded, never looked at.
    """
    finding = _Finding(estimate, scratches, options or RoutingOptions())
    return plan_around(_treatment(finding), estimate, scratches, options=options, policy=POLICY, gains=gains)


def plan_around(
    treatment: Sequence[Step],
    estimate: DegradationEstimate,
    scratches: ScratchReport,
    *,
    options: RoutingOptions | None = None,
    policy: str,
    gains: Sequence[Gain] = (),
    untouched_reason: str = "no degradation found that is strong and certain enough to treat",
    doubt: str | None = None,
) -> Plan:
    """Return the plan of a policy that has chosen the steps against noise, blur and compression.

    Damage is filled while its surroundings are still as scanned, tone comes after all repairs, and what enlarges comes
    last, on the cleaned picture: all three by the rules. doubt: why a person should look at the picture, if one should.
    """
    finding = _Finding(estimate, scratches, options or RoutingOptions())
    planned = (_fill(finding), *treatment, _colour(finding), _upscale(finding))
    steps = tuple(step for step in planned if step is not None and step.strength > 0.0)
    if finding.options.thorough:
        steps = tuple(replace(step, method_id=thorough_id(step.method_id)) for step in steps)
    reason = "; ".join(step.reason for step in steps) or untouched_reason
    doubt = _doubt(finding) or doubt
    return Plan(
        steps=steps,
        reason=f"{reason[:1].upper()}{reason[1:]}." + (f" Review: {doubt}." if doubt else ""),
        policy=policy,
        needs_review=bool(doubt),
        alternatives=tuple(sorted(gains, key=lambda gain: -gain.gain_db)),
    )


def _doubt(finding: _Finding) -> str | None:
    thresholds = finding.options.thresholds
    if finding.scratches.coverage > thresholds.review_coverage and not finding.scratches.given:
        return f"{finding.scratches.coverage:.0%} of the picture looks damaged, more than can be filled faithfully"
    unsure = finding.scratches.mask is not None and finding.scratches.confidence < thresholds.confidence
    if finding.options.trust_scratches and unsure and finding.scratches.coverage > thresholds.review_unsure_coverage:
        return f"{finding.scratches.coverage:.0%} of the picture was taken for damage, and it may be flowers or foliage"
    if _isolated(finding):
        return f"{finding.scratches.components} place(s) may be damaged, too few to be sure"
    sigma = finding.sure(finding.estimate.noise_sigma)
    if sigma is not None and sigma > thresholds.review_noise_sigma:
        return f"noise of σ {sigma:.0f} is beyond what the denoiser was trained for"
    return None


def enlargement(plan: Plan | None) -> int:
    """Return how many times larger (in width and height) a plan makes its picture; 1 = the size is kept."""
    return 1 if plan is None else math.prod(UPSCALERS.get(plain_id(step.method_id), 1) for step in plan.steps)
