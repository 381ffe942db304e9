"""What becomes of an error in the work on one image."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tasks.boundary import attempt, attempt_together

RACE = "AST constructor recursion depth mismatch (before=57, after=54)"


def failing(errors: list[Exception]) -> str:
    if errors:
        raise errors.pop(0)
    return "done"


def test_what_two_threads_of_the_interpreter_did_to_each_other_is_done_again() -> None:
    once: list[Exception] = [SystemError(RACE)]
    assert attempt(lambda: failing(once), stage="estimate") == ("done", None)
    always: list[Exception] = [SystemError(RACE)] * 9
    found, failure = attempt(lambda: failing(always), stage="estimate")
    assert found is None
    assert failure is not None
    assert failure.error_kind == "SystemError"
    assert len(always) == 6


@pytest.mark.parametrize("error", [SystemError("null argument to internal routine"), ValueError(RACE)])
def test_other_errors_are_the_picture_s_own_at_once(error: Exception) -> None:
    errors = [error]
    found, failure = attempt(lambda: failing(errors), stage="route")
    assert (found, errors) == (None, [])
    assert failure is not None
    assert failure.error_text == f"route: {error}"


def test_what_was_done_for_one_picture_of_a_group_is_not_done_twice() -> None:
    done: list[str] = []

    def work(items: Sequence[str]) -> None:
        for item in items:
            if item == "b" and done.count("tried") < 2:
                done.append("tried")
                raise SystemError(RACE)
            done.append(item)

    assert attempt_together(work, ["a", "b", "c"], stage="denoise", still=lambda item: item not in done) == []
    assert done == ["a", "tried", "tried", "b", "c"]
