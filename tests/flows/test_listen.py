"""`lacuna listen`: who may speak to it, when it asks for a run, and what happens when nobody takes the wish."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from flows import listening
from flows.cli import app
from flows.listening import Receiver, is_sns, open_socket
from flows.listening_gathering import Answer, Gathering, RunsError, Starter
from flows.listening_places import WatchedPlaces

TOKEN = "a-token-of-this-test/+="
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CHECKOUT = Path(__file__).parents[2]
FILE = """
[collections.plates]
source = "s3://scans/plates"
destination = "s3://restored/plates"
[collections.papers]
source = "s3://scans/papers"
destination = "s3://restored/papers"
"""


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Takes wishes for runs and answers as it is told."""

    def __init__(self) -> None:
        self.wishes: list[tuple[tuple[str, ...], str]] = []
        self.answers: list[Answer | Exception] = []
        self.closed = False

    async def ask(self, collections: tuple[str, ...], *, key: str) -> Answer:
        self.wishes.append((collections, key))
        answer = self.answers.pop(0) if self.answers else Answer("asked", "asked")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True


class Listener:
    """All parts of `lacuna listen` but the socket, at a clock that a test moves."""

    def __init__(self, file: Path) -> None:
        self.clock, self.runs, self.said = Clock(), Asked(), list[str]()
        self.gathering = Gathering(quiet_seconds=60, at_most_seconds=900, clock=self.clock)
        self.starter = Starter(self.gathering, self.runs, say=self.said.append, clock=self.clock)
        self.receiver = Receiver(
            token=TOKEN,
            places=WatchedPlaces(file, say=self.said.append),
            gathering=self.gathering,
            starter=self.starter,
            say=self.said.append,
        )
        self.client = TestClient(self.receiver.app())

    def come(self, *keys: str) -> dict[str, Any]:
        records = [{"eventSource": "ceph:s3", "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": "scans"}, "object": {"key": key}}} for key in keys]  # fmt: skip
        answer = self.client.post("/", json={"Records": records}, headers=BEARER)
        assert answer.status_code == 200
        return dict(answer.json())

    def after(self, seconds: float) -> list[tuple[str, ...]]:
        """Let so much time pass and return what was asked for then."""
        self.clock.now += seconds
        before = len(self.runs.wishes)
        asyncio.run(self.starter.step())
        return [names for names, _ in self.runs.wishes[before:]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "nightly.toml").write_text(FILE)
    return tmp_path / "nightly.toml"


@pytest.fixture
def listener(file: Path) -> Listener:
    return Listener(file)


def basic(password: str, user: str = "lacuna") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class TestToken:
    @pytest.mark.parametrize("headers", [BEARER, {"Authorization": f"bearer {TOKEN}"}, basic(TOKEN), basic(TOKEN, "")])
    def test_in_a_header(self, listener: Listener, headers: dict[str, str]) -> None:
        assert listener.client.post("/", json={"Records": []}, headers=headers).status_code == 200

    def test_in_the_address(self, listener: Listener) -> None:
        assert listener.client.post("/some/path", params={"token": TOKEN}, json={"Records": []}).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": "Bearer ä".encode()},
            {"Authorization": "Basic ???"},
            {"Authorization": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
            basic("wrong"),
            basic(f"{TOKEN}:"),
        ],
    )
    def test_none_or_another(self, listener: Listener, headers: Any) -> None:
        answer = listener.client.post("/", json={"Records": []}, headers=headers, params={"token": ""})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert TOKEN not in answer.text

    def test_is_asked_for_before_the_body_is_read(self, listener: Listener) -> None:
        assert listener.client.post("/", content=b"x" * 1_500_000).status_code == 401


class TestMessages:
    def test_what_concerns_a_source_is_taken(self, listener: Listener) -> None:
        said = listener.come("plates/a.png", "plates/b.png", "papers/a.png", "other/a.png")
        assert said == {"result": "taken", "taken": 3, "ignored": 1, "collections": ["papers", "plates"]}
        assert listener.gathering.waiting == ("papers", "plates")

    def test_results_are_ignored(self, listener: Listener) -> None:
        record = {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "restored"}, "object": {"key": "plates/a"}},
        }
        answer = listener.client.post("/", json={"Records": [record]}, headers=BEARER)
        assert (answer.status_code, answer.json()["ignored"]) == (200, 1)
        assert answer.json()["result"].startswith("ignored: ")
        assert listener.gathering.due_in() is None

    @pytest.mark.parametrize("body", [b"", b"{", b"{}", b"\xff"])
    def test_what_is_no_event_is_refused(self, listener: Listener, body: bytes) -> None:
        answer = listener.client.post("/", content=body, headers=BEARER)
        assert answer.status_code == 400
        assert answer.json()["error"].endswith(".")

    @pytest.mark.parametrize("declared", [True, False])
    def test_too_large_a_body_is_refused(self, listener: Listener, declared: bool) -> None:
        body: Any = b"[" * 1_000_001 if declared else iter([b"[" * 600_000] * 2)
        assert listener.client.post("/", content=body, headers=BEARER).status_code == 413

    def test_health_needs_no_token_and_tells_nothing(self, listener: Listener) -> None:
        listener.come("plates/a.png")
        answer = listener.client.get("/health")
        assert answer.json() == {
            "status": "listening", "waiting_collections": 1, "runs_asked_for": 0, "can_ask_for_runs": True
        }  # fmt: skip
        assert listener.client.get("/").status_code == 405


class TestConfirmation:
    @pytest.fixture
    def visited(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        import httpx

        seen: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(str(request.url))
            return httpx.Response(200)

        client = httpx.AsyncClient
        monkeypatch.setattr(
            listening.httpx, "AsyncClient", lambda **given: client(transport=httpx.MockTransport(answer), **given)
        )
        return seen

    def confirm(self, listener: Listener, url: str) -> str:
        message = {"Type": "SubscriptionConfirmation", "SubscribeURL": url, "Token": "t"}
        answer = listener.client.post("/", content=json.dumps(message), headers=basic(TOKEN))
        assert answer.status_code == 200
        return str(answer.json()["result"])

    def test_of_amazon_is_given(self, listener: Listener, visited: list[str]) -> None:
        url = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"
        assert self.confirm(listener, url) == "being confirmed"
        assert visited == [url]
        assert listener.said == ["sns.eu-west-1.amazonaws.com: confirmed the subscription"]

    def test_of_others_is_left_to_people(self, listener: Listener, visited: list[str]) -> None:
        url = "https://sns.eu-west-1.amazonaws.com.example/?Token=t"
        assert self.confirm(listener, url).startswith("not confirmed")
        assert visited == []
        assert url in listener.said[0]

    @pytest.mark.parametrize(
        "url",
        [
            "http://sns.eu-west-1.amazonaws.com/",
            "https://sns.eu-west-1.amazonaws.com:8443/",
            "https://user@sns.eu-west-1.amazonaws.com/",
            "https://sns.eu-west-1.amazonaws.com@evil.example/",
            "https://evil.example/sns.eu-west-1.amazonaws.com",
            "https://xsns.eu-west-1.amazonaws.com/",
            "https://sns.a.b.amazonaws.com/",
            "https://snsxeu-west-1.amazonaws.com/",
            "https://sns.eu-west-1.amazonaws.com:x/",
            "https://[",
        ],
    )
    def test_other_addresses_are_not_amazon(self, url: str) -> None:
        assert not is_sns(url)


class TestTime:
    def test_a_run_starts_when_it_has_been_quiet(self, listener: Listener) -> None:
        listener.come("plates/a.png")
        assert listener.after(59) == []
        listener.come("papers/a.png")
        assert listener.after(59) == []
        assert listener.after(1) == [("papers", "plates")]
        assert listener.after(10_000) == []

    def test_a_run_starts_though_it_is_never_quiet(self, listener: Listener) -> None:
        listener.come("plates/a.png")
        for _ in range(29):
            assert listener.after(30) == []
            listener.come("plates/b.png")
        assert listener.after(30) == [("plates",)]

    def test_what_comes_while_a_run_is_asked_for_is_kept(self, listener: Listener) -> None:
        listener.come("plates/a.png")
        ask = listener.runs.ask

        async def slowly(collections: tuple[str, ...], *, key: str) -> Answer:
            listener.gathering.add(["plates"])
            return await ask(collections, key=key)

        listener.runs.ask = slowly  # type: ignore[method-assign]
        assert listener.after(60) == [("plates",)]
        listener.runs.ask = ask  # type: ignore[method-assign]
        assert listener.after(59) == []
        assert listener.after(1) == [("plates",)]
        assert len({key for _, key in listener.runs.wishes}) == 2

    def test_a_run_that_waits_already_is_enough(self, listener: Listener) -> None:
        listener.come("plates/a.png")
        listener.runs.answers = [Answer("covered", "it waits")]
        assert listener.after(60) == [("plates",)]
        assert listener.after(10_000) == []
        assert (listener.said, listener.starter.asked) == (["it waits"], 0)

    def test_what_must_wait_is_asked_for_again(self, listener: Listener) -> None:
        listener.come("plates/a.png")
        listener.runs.answers = [Answer("later", "one runs")] * 2
        assert [listener.after(wait) for wait in (60, 14, 1, 15, 900)] == [
            [("plates",)],
            [],
            [("plates",)],
            [("plates",)],
            [],
        ]
        assert listener.said == ["one runs", "asked"]


class TestFailure:
    def test_what_has_come_is_kept(self, listener: Listener) -> None:
        """Pauses grow from 5 s to 5 minutes, one line is said, and the same events ask for the same run."""
        listener.come("plates/a.png")
        listener.runs.answers = [RunsError("Prefect's server cannot be reached (ConnectError)")] * 9
        assert listener.after(60) == [("plates",)]
        pauses = []
        while not listener.starter.asked:
            pauses.append(0)
            while not listener.after(1):
                pauses[-1] += 1
            pauses[-1] += 1
            assert listener.client.get("/health").json()["can_ask_for_runs"] is (listener.starter.asked == 1)
        assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
        assert len(listener.said) == 2
        assert "what has come is kept" in listener.said[0]
        assert len({key for _, key in listener.runs.wishes}) == 1

    def test_new_events_ask_for_another_run(self, listener: Listener) -> None:
        listener.come("plates/a.png")
        listener.runs.answers = [RunsError("lost answer")]
        listener.after(60)
        listener.come("plates/b.png")
        assert listener.after(60) == [("plates",)]
        assert len({key for _, key in listener.runs.wishes}) == 2

    def test_the_end_asks_once_more(self, listener: Listener) -> None:
        with listener.client:
            listener.come("plates/a.png")
        assert [names for names, _ in listener.runs.wishes] == [("plates",)]
        assert listener.runs.closed

    def test_the_end_says_what_is_lost(self, listener: Listener) -> None:
        listener.runs.answers = [RunsError("away")]
        with listener.client:
            listener.come("plates/a.png")
        assert "ended before a run could be asked for of plates" in listener.said[-1]


class TestCommandLine:
    def start(self, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        found = CliRunner().invoke(app, ["listen", *arguments], env=environment)
        return subprocess.CompletedProcess(arguments, found.exit_code, found.stdout, found.stderr)

    @pytest.mark.parametrize("token", ["", "short"])
    def test_without_a_secret_nothing_listens(self, file: Path, token: str) -> None:
        ended = self.start("--file", str(file), environment={"LACUNA_LISTEN_TOKEN": token})
        assert ended.returncode == 2
        assert "LACUNA_LISTEN_TOKEN has" in ended.stderr

    def test_a_port_that_is_taken(self, file: Path) -> None:
        with open_socket("127.0.0.1", 0) as taken:
            port = str(taken.getsockname()[1])
            ended = self.start("--file", str(file), "--port", port, environment={"LACUNA_LISTEN_TOKEN": TOKEN})
        assert ended.returncode == 2
        assert f"cannot listen at 127.0.0.1:{port}" in ended.stderr

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        ended = self.start("--file", str(tmp_path / "none.toml"), environment={"LACUNA_LISTEN_TOKEN": TOKEN})
        assert ended.returncode == 2

    def test_setup_is_printed(self, file: Path) -> None:
        ended = self.start("--file", str(file), "--print-setup", "scans", "--url", "http://here:4210", environment={})
        assert ended.returncode == 0
        assert '"Value": "papers/"' in ended.stdout
        ended = self.start("--file", str(file), "--print-setup", "other", environment={})
        assert ended.returncode == 2
        assert "no collection has a source in the bucket 'other'" in ended.stderr

    def test_help_imports_nothing_heavy(self) -> None:
        program = (
            "import sys\nfrom flows.cli import app\n"
            "try:\n    app(['listen', '--help'])\nexcept SystemExit as end:\n    code = end.code\n"
            "heavy = {'torch', 'prefect', 'starlette', 'uvicorn', 'httpx', 'fsspec', 'numpy'} & set(sys.modules)\n"
            "print('HEAVY', sorted(heavy), 'CODE', code)"
        )
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "HEAVY [] CODE 0" in found.stdout

    def test_it_serves_and_ends_in_good_order(self, file: Path) -> None:
        """As a process: it answers, logs no secret, and SIGTERM ends it with 0."""
        import httpx

        own = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        command = [sys.executable, "-m", "flows.cli", "listen", "--file", str(file), "--port", "0"]
        process = subprocess.Popen(command, cwd=CHECKOUT, env={**own, "LACUNA_LISTEN_TOKEN": TOKEN}, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.search(
                r"listening at 127\.0\.0\.1:(\d+) for papers, plates; `lacuna nightly` is run here", first
            )
            assert found, first
            place = f"http://127.0.0.1:{found[1]}"
            assert httpx.get(f"{place}/health", timeout=60).json()["status"] == "listening"
            assert httpx.post(place, params={"token": TOKEN}, json={"Records": []}, timeout=60).status_code == 200
            assert httpx.post(place, params={"token": f"{TOKEN}x"}, json={}, timeout=60).status_code == 401
            assert httpx.post(place, params={"token": TOKEN}, content=b"{", timeout=60).status_code == 400
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=60)[0]
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, rest
        assert TOKEN not in first + rest
        assert "ended" in rest
