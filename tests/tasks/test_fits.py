"""Files whose pictures are learned from: taken one by one, noted when written, limited, announced, interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.deep_prior.budget import iteration_limit, tell_of_fit
from models.interruption import allow_work, interrupt_work
from models.run import Applied
from models.types import Plan, Step, to_json
from tasks import restore as restoring
from tasks import steps
from tasks.cleaning import forget_working_copies, working_copies_of
from tasks.fits import are_fitted, files_together, finished_key, fits_each_picture
from tasks.ingest import ingest
from tasks.jobs import Assessed, Detected, Ingested, Restored, Routed, ShardJob
from tasks.progress import FitNews, listening
from tasks.restore import batches_of, pictures_of, restore
from tests.tasks.test_kept_sources import job_of

FIT, QUICK = "deep-image-prior-denoise", "denoise"


@dataclass
class FakeRunner:
    """Adds one to every picture and says as whose fit; `dies_at`: an interrupt comes in that call, from 1."""

    dies_at: int = 0
    sizes: list[int] = field(default_factory=list)
    limits: list[int | None] = field(default_factory=list)

    def apply_and_say(self, method: str, images: Sequence[npt.NDArray[Any]], **_: object) -> list[Applied]:
        self.sizes.append(len(images))
        self.limits.append(iteration_limit())
        for iteration in (1, 10, 20):
            tell_of_fit(iteration, 20, last=iteration == 20)
        if len(self.sizes) == self.dies_at:
            raise KeyboardInterrupt
        return [Applied(np.asarray(image) + np.uint8(1)) for image in images]


@pytest.fixture(autouse=True)
def _fits_allowed() -> Iterator[None]:
    allow_work()
    yield
    allow_work()


@pytest.fixture
def job(tmp_path: Path) -> ShardJob:
    for number in range(3):
        place = tmp_path / "in" / f"p{number}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * number, np.uint8)).save(place)
    return job_of(str(tmp_path / "in"), working_root=tmp_path)


def run(
    job: ShardJob, monkeypatch: pytest.MonkeyPatch, *, method: str = FIT, dies_at: int = 0
) -> tuple[FakeRunner, tuple[Restored, ...] | None]:
    """Restore the whole shard by one method; None = it was interrupted."""
    fake = FakeRunner(dies_at=dies_at)
    monkeypatch.setattr(steps, "runner", lambda *_: fake)
    ingested, detected, plans = stages(job, method=method)
    try:
        return fake, restore(job, ingested, detected, **plans)
    except KeyboardInterrupt:
        return fake, None


def stages(job: ShardJob, *, method: str) -> tuple[Ingested, list[Detected], dict[str, Any]]:
    ingested = ingest(job)
    plan = Plan(steps=(Step(method_id=method, strength=1.0),), reason="Asked for.", policy=f"fixed:{method}")
    count = len(ingested.images)
    assessed = [Assessed(estimate=None)] * count
    return ingested, [Detected(scratches=None)] * count, {"assessed": assessed, "routed": [Routed(plan=plan)] * count}


def written(job: ShardJob) -> dict[str, int]:
    folder = job.images_root.local_path
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.rglob("*.png"))} if folder.exists() else {}


def test_only_methods_that_learn_from_each_picture_are_taken_so() -> None:
    fitted = [name for name in ("deep-decoder", "example-internal", "example-online") if fits_each_picture(name)]
    assert fitted == ["deep-decoder", "example-internal", "example-online"]
    assert not any(fits_each_picture(name) for name in ("denoise", "fill", "example-external", "biharmonic"))


@pytest.mark.parametrize(("method", "sizes"), [(FIT, [1, 1, 1]), (QUICK, [3])])
def test_fitted_files_are_written_one_by_one_and_others_together(
    job: ShardJob, monkeypatch: pytest.MonkeyPatch, method: str, sizes: list[int]
) -> None:
    runner, restored = run(job, monkeypatch, method=method)
    assert runner.sizes == sizes
    assert restored is not None
    assert [one.output.relative_path for one in restored] == ["p0.png", "p1.png", "p2.png"]


def test_a_gpu_fits_a_few_files_at_once_and_quick_ones_come_first(job: ShardJob) -> None:
    found, detected, plans = stages(job, method=FIT)
    files = [[picture] for picture in pictures_of(found, detected, **plans)] * 4
    quick = replace(plans["routed"][0].plan, steps=(Step(method_id=QUICK, strength=1.0),))
    files.insert(3, [pictures_of(found, detected, assessed=plans["assessed"], routed=[Routed(plan=quick)] * 3)[0]])
    sizes = [len(batch) for batch in batches_of(files, fits_together=files_together("cuda"))]
    assert sizes == [1, 8, 4]
    assert [len(batch) for batch in batches_of(files, fits_together=files_together("cpu"))] == [1] * 13
    assert not are_fitted(next(batches_of(files))[0])


def test_what_was_finished_before_an_interrupt_is_not_fitted_again(
    job: ShardJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, nothing = run(job, monkeypatch, dies_at=3)
    assert nothing is None
    first = written(job)
    assert list(first) == ["p0.png", "p1.png"], "the picture in work is not written"
    runner, restored = run(job, monkeypatch)
    assert runner.sizes == [1], "only the third"
    assert restored is not None
    assert [one.output.status for one in restored] == ["restored"] * 3
    assert {name: time for name, time in written(job).items() if name in first} == first
    plain, whole = run(replace(job, working_root=f"{job.working_root}-other"), monkeypatch)
    assert plain.sizes == [1, 1, 1]
    assert whole is not None
    assert [one.output.output_sha256 for one in restored] == [one.output.output_sha256 for one in whole]
    assert [one.steps[0].method_id for one in restored] == [FIT] * 3


def test_a_finished_file_is_made_anew_when_it_is_gone_or_was_made_of_something_else(
    job: ShardJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job, monkeypatch, dies_at=3)
    (job.images_root.local_path / "p0.png").unlink()
    assert run(job, monkeypatch, dies_at=2)[0].sizes == [1, 1], "p0, which is gone, then p2"
    limited = replace(job, options=replace(job.options, fit_iterations=7))
    assert run(limited, monkeypatch)[0].sizes == [1, 1, 1]
    assert run(replace(job, options=replace(job.options, seed=1)), monkeypatch)[0].sizes == [1, 1, 1]


def test_a_damaged_note_is_as_good_as_none(job: ShardJob, monkeypatch: pytest.MonkeyPatch) -> None:
    run(job, monkeypatch, dies_at=3)
    record = ingest(job).images[0]
    job.copies.save_note(finished_key(record), b'{"made')
    assert run(job, monkeypatch)[0].sizes == [1, 1]


def test_notes_go_with_the_shard(job: ShardJob, monkeypatch: pytest.MonkeyPatch) -> None:
    run(job, monkeypatch)
    root = Path(job.working_root)
    assert len(list(root.rglob("*.finished"))) == 3
    keys = working_copies_of(job=to_json(job), ingested=to_json(ingest(job)), detected=[])
    forget_working_copies(job.working_root, keys)
    assert not list(root.rglob("*.finished"))


def test_nothing_is_begun_after_an_interrupt(job: ShardJob, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_work()
    runner, restored = run(job, monkeypatch, method=QUICK)
    assert (runner.sizes, restored, written(job)) == ([], None, {})


def test_a_limit_holds_for_the_step_and_is_recorded(job: ShardJob, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(job, options=replace(job.options, fit_iterations=7))
    runner, restored = run(limited, monkeypatch)
    assert runner.limits == [7, 7, 7]
    assert iteration_limit() is None
    assert restored is not None
    assert restored[0].steps[0].note == "passed the checks; at most 7 iterations, as asked"
    runner, restored = run(limited, monkeypatch, method=QUICK)
    assert restored is not None
    assert restored[0].steps[0].note == "passed the checks"


def test_fits_are_announced_with_their_file(job: ShardJob, monkeypatch: pytest.MonkeyPatch) -> None:
    news: list[FitNews] = []
    with listening(lambda *_: None, fits=news.append):
        run(job, monkeypatch)
    expected = [
        FitNews(what=name, fit=1, iteration=iteration, iterations=20, last=iteration == 20)
        for name in ("p0.png", "p1.png", "p2.png")
        for iteration in (1, 10, 20)
    ]
    assert news == expected
    run(job, monkeypatch)
    assert len(news) == 9, "nobody listens after the block"


def test_the_step_of_a_shard_ends_with_an_interrupt_and_writes_no_more(
    job: ShardJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = restoring._finish_file

    def interrupted_by_then(*args: Any, **kwargs: Any) -> list[Restored]:
        outcome = finish(*args, **kwargs)
        interrupt_work()
        return outcome

    monkeypatch.setattr(restoring, "_finish_file", interrupted_by_then)
    runner, restored = run(job, monkeypatch)
    assert (runner.sizes, restored, list(written(job))) == ([1], None, ["p0.png"])
