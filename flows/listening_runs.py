"""Who is asked for runs: a deployment at Prefect's server, or, without a server, `lacuna nightly` as a process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.listening_gathering import Answer, RunsError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

TOKEN_VARIABLE = "LACUNA_LISTEN_TOKEN"
_LIMIT_SECONDS = 120
# A run that its schedule starts so soon counts as waiting; those of later nights do not.
_SOON = timedelta(seconds=60)
# Starting takes seconds to minutes; a run that has been about to start for so long belongs to a worker that is gone.
_LOST = timedelta(minutes=15)
_STOP_SECONDS = 30


class PrefectRuns:
    """Asks Prefect's server, named by PREFECT_API_URL, for runs of a deployment of the nightly flow."""

    def __init__(self, deployment: str) -> None:
        if deployment.count("/") != 1 or not all(deployment.split("/")):
            raise ValueError(f"--deployment: got {deployment!r}, expected FLOW/DEPLOYMENT, such as nightly/nightly")
        self._deployment = deployment

    async def ask(self, collections: tuple[str, ...], *, key: str) -> Answer:
        """Ask for a run unless one waits that will take these collections; raises RunsError."""
        import flows.prefect_settings  # noqa: F401, I001 - it must come before prefect
        import httpx
        from prefect.exceptions import ObjectNotFound, PrefectException, PrefectHTTPStatusError

        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                return await self._ask(collections, key=key)
        except ObjectNotFound:
            raise RunsError(
                f"Prefect's server knows no deployment {self._deployment}; `make deploy` registers it"
            ) from None
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            raise RunsError(
                f"Prefect's server refused a run of {self._deployment} (HTTP {status}); after an upgrade, register the "
                "deployments anew: deployments/worker.sh register"
            ) from error
        # The client turns a refused connection into a RuntimeError.
        except (httpx.HTTPError, RuntimeError, OSError, TimeoutError, PrefectException) as error:
            cause = error.__cause__ or error
            raise RunsError(f"Prefect's server cannot be reached ({type(cause).__name__})") from error

    async def _ask(self, collections: tuple[str, ...], *, key: str) -> Answer:
        from prefect.client.orchestration import get_client
        from prefect.deployments.flow_runs import arun_deployment

        names = ", ".join(collections)
        async with get_client() as client:
            known = await client.read_deployment_by_name(self._deployment)
            waiting = [run for run in await _waiting(client, known.id) if run.idempotency_key != key]
            file = known.parameters.get("file")
            for run in waiting:
                asked = run.parameters.get("collections")
                if run.parameters.get("file") == file and (asked is None or set(collections) <= set(asked)):
                    return Answer("covered", f"run {run.name} waits already and will take {names}")
            if waiting:
                return Answer("later", f"run {waiting[0].name} of others waits; {names} will be asked for after it")
            made = await arun_deployment(
                known.id,
                client=client,
                parameters={"collections": list(collections)},
                timeout=0,
                idempotency_key=key,
                as_subflow=False,
            )
            return Answer("asked", f"asked {self._deployment} for a run of {names}: {made.name}")

    async def close(self) -> None:
        """Nothing is held between questions."""


async def _waiting(client: Any, deployment: Any) -> list[FlowRun]:
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType

    now = datetime.now(UTC)
    before: Any = now + _SOON  # Prefect's own type of a time is a datetime where it is read
    found: list[FlowRun] = await client.read_flow_runs(
        flow_run_filter=filters.FlowRunFilter(
            deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment]),
            state=filters.FlowRunFilterState(
                type=filters.FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])
            ),
            expected_start_time=filters.FlowRunFilterExpectedStartTime(before_=before),
        )
    )
    return [run for run in found if run.state and (run.state.is_scheduled() or run.state.timestamp > now - _LOST)]


class CommandRuns:
    """Runs `lacuna nightly FILE --collection …` as a process of its own, one at a time."""

    def __init__(
        self,
        file: Path,
        *,
        say: Callable[[str], None],
        program: Sequence[str] = (sys.executable, "-m", "flows.cli"),
    ) -> None:
        self._file, self._say, self._program = file, say, tuple(program)
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def ask(self, collections: tuple[str, ...], *, key: str) -> Answer:
        """Start the process, or say that one runs; raises RunsError when it cannot be started."""
        names = ", ".join(collections)
        if self._process is not None and self._process.returncode is None:
            return Answer("later", f"`lacuna nightly` still runs; {names} will follow")
        wanted = [argument for name in collections for argument in ("--collection", name)]
        environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._program,
                "nightly",
                str(self._file.absolute()),
                *wanted,
                stdin=asyncio.subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise RunsError(f"`lacuna nightly` could not be started: {error}") from error
        self._watch = asyncio.create_task(self._report(self._process, names))
        return Answer("asked", f"started `lacuna nightly` for {names}")

    async def _report(self, process: asyncio.subprocess.Process, names: str) -> None:
        code = await process.wait()
        self._say(f"`lacuna nightly` for {names} ended with exit code {code}")

    async def close(self) -> None:
        """End the process; what it has not committed is done by the next run."""
        if self._process is None or self._watch is None:
            return
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
        await self._watch
