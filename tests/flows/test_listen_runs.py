"""Who `lacuna listen` asks for runs: Prefect's server, a real one, or without it a process of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flows.listening_gathering import Answer, RunsError
from flows.listening_runs import CommandRuns, PrefectRuns

TOKEN = "a-token-of-this-test"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "nightly.toml"


class TestCommand:
    """Without Prefect's server: `lacuna nightly` as a process."""

    def test_one_at_a_time(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LACUNA_LISTEN_TOKEN", TOKEN)
        os.mkfifo(tmp_path / "go")
        program = (
            "import os, sys\n"
            f"open({str(tmp_path / 'go')!r}).read()\n"
            f"open({str(tmp_path / 'seen')!r}, 'a').write(repr((sys.argv[1:], 'LACUNA_LISTEN_TOKEN' in os.environ)))\n"
            "raise SystemExit(3)"
        )
        said: list[str] = []

        async def both() -> list[Answer]:
            runs = CommandRuns(file, say=said.append, program=(sys.executable, "-c", program))
            answers = [await runs.ask(("papers", "plates"), key="1"), await runs.ask(("plates",), key="2")]
            threading.Thread(target=(tmp_path / "go").write_text, args=("",)).start()
            assert runs._watch is not None
            await runs._watch
            await runs.close()
            return answers

        answers = asyncio.run(both())
        assert [answer.kind for answer in answers] == ["asked", "later"]
        wanted = ["nightly", str(file), "--collection", "papers", "--collection", "plates"]
        assert (tmp_path / "seen").read_text() == repr((wanted, False))
        assert said == ["`lacuna nightly` for papers, plates ended with exit code 3"]

    def test_the_end_ends_it(self, file: Path) -> None:
        async def begin_and_end() -> list[str]:
            said: list[str] = []
            runs = CommandRuns(file, say=said.append, program=(sys.executable, "-c", "import time; time.sleep(100)"))
            await runs.ask(("plates",), key="1")
            await runs.close()
            return said

        assert asyncio.run(begin_and_end()) == ["`lacuna nightly` for plates ended with exit code -15"]

    def test_a_program_that_is_not_there(self, file: Path) -> None:
        with pytest.raises(RunsError, match="could not be started"):
            asyncio.run(CommandRuns(file, say=print, program=("/none/lacuna",)).ask(("plates",), key="1"))


class TestPrefect:
    """A real server of Prefect, without a worker."""

    @pytest.fixture
    def deployment(self, prefect_server: None, request: pytest.FixtureRequest) -> Iterator[UUID]:
        from prefect.client.orchestration import get_client

        from flows.nightly import nightly

        # Prefect finds a key again in all runs of a flow.
        self.test = request.node.name
        # No pool: nothing ever starts these runs.
        made: Any = nightly.to_deployment(name="listened", parameters={"file": "/etc/lacuna/nightly.toml"})
        identity = made.apply()
        yield identity
        with get_client(sync_client=True) as client:
            client.delete_deployment(identity)

    def ask(self, *collections: str, key: str) -> Answer:
        return asyncio.run(PrefectRuns("nightly/listened").ask(collections, key=f"{self.test}-{key}"))

    def runs(self, deployment: UUID) -> list[Any]:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas import filters

        wanted = filters.FlowRunFilter(deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment]))
        with get_client(sync_client=True) as client:
            return list(client.read_flow_runs(flow_run_filter=wanted))

    def put(self, run: Any, state: Any) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, state, force=True)

    def test_one_run_waits_at_most(self, deployment: UUID) -> None:
        from prefect.states import Pending, Running

        assert self.ask("papers", "plates", key="1").kind == "asked"
        (first,) = self.runs(deployment)
        assert first.parameters == {"file": "/etc/lacuna/nightly.toml", "collections": ["papers", "plates"]}
        assert self.ask("plates", key="2").kind == "covered"
        assert self.ask("other", key="3").kind == "later"
        self.put(first, Pending())
        assert self.ask("plates", key="4").kind == "covered"
        assert len(self.runs(deployment)) == 1
        # What runs may have listed the source before the new object was there.
        self.put(first, Running())
        assert self.ask("plates", key="5").kind == "asked"
        assert len(self.runs(deployment)) == 2

    def test_nights_to_come_do_not_count(self, deployment: UUID) -> None:
        from prefect.deployments import run_deployment

        run_deployment(deployment, scheduled_time=datetime.now(UTC) + timedelta(hours=8), timeout=0, as_subflow=False)
        assert self.ask("plates", key="1").kind == "asked"

    def test_a_whole_night_covers_all(self, deployment: UUID) -> None:
        from prefect.deployments import run_deployment

        run_deployment(deployment, timeout=0, as_subflow=False)
        assert self.ask("plates", key="1").kind == "covered"

    def test_a_lost_answer_makes_no_second_run(self, deployment: UUID) -> None:
        assert self.ask("plates", key="same").kind == "asked"
        assert self.ask("plates", key="same").kind == "asked"
        assert len(self.runs(deployment)) == 1

    def test_a_run_that_never_started_does_not_count_for_ever(self, deployment: UUID) -> None:
        from prefect.states import Pending

        from flows import listening_runs

        assert self.ask("plates", key="1").kind == "asked"
        self.put(self.runs(deployment)[0], Pending())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listening_runs, "_LOST", timedelta(0))
            assert self.ask("plates", key="2").kind == "asked"

    def test_an_unknown_deployment(self, prefect_server: None) -> None:
        with pytest.raises(RunsError, match=r"knows no deployment nightly/none; `make deploy`"):
            asyncio.run(PrefectRuns("nightly/none").ask(("plates",), key="1"))

    def test_a_server_that_is_away(self) -> None:
        import flows.prefect_settings  # noqa: F401, I001 - before prefect
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: address}), pytest.raises(RunsError) as caught:
            asyncio.run(PrefectRuns("nightly/nightly").ask(("plates",), key="1"))
        assert str(caught.value).startswith("Prefect's server cannot be reached (")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("name", ["nightly", "a/b/c", "/nightly", ""])
    def test_a_name_that_is_none(self, name: str) -> None:
        with pytest.raises(ValueError, match="expected FLOW/DEPLOYMENT"):
            PrefectRuns(name)
