"""The receiver of a bucket's notifications: a small HTTP server that gathers them and asks for runs."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from flows.listening_gathering import Gathering, Starter
from flows.listening_messages import Message, MessageError, read_message
from flows.listening_places import WatchedPlaces

_BODY_LIMIT = 1_000_000
_STEP_SECONDS = 1.0
_CONFIRM_SECONDS = 10
_SNS_HOST = re.compile(r"sns\.[a-z0-9-]+\.amazonaws\.com")
# SNS sends name and password of its URL only after it has been asked for them.
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="lacuna"'}


class Receiver:
    """Takes in messages of a store: checks the token, reads them, and gathers the collections they concern."""

    def __init__(
        self, *, token: str, places: WatchedPlaces, gathering: Gathering, starter: Starter, say: Callable[[str], None]
    ) -> None:
        self._token = token.encode()
        self._places, self._gathering, self._starter, self._say = places, gathering, starter, say

    def app(self) -> Starlette:
        """Return the ASGI application; while it lives, runs are asked for."""
        routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/{path:path}", self._receive, methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        steps = asyncio.create_task(self._step_for_ever())
        try:
            yield
        finally:
            steps.cancel()
            with suppress(asyncio.CancelledError):
                await steps
            await self._starter.finish()

    async def _step_for_ever(self) -> None:
        while True:
            await self._starter.step()
            await asyncio.sleep(_STEP_SECONDS)

    async def _health(self, _: Request) -> JSONResponse:
        # Anybody may ask: nothing of the archive is told.
        said = {"waiting_collections": len(self._gathering.waiting), "runs_asked_for": self._starter.asked}
        return JSONResponse({"status": "listening", **said, "can_ask_for_runs": self._starter.trouble is None})

    async def _receive(self, request: Request) -> JSONResponse:
        if not self._knows(request):
            return JSONResponse(
                {"error": "The token is missing or wrong; expected that of LACUNA_LISTEN_TOKEN."}, 401, _CHALLENGE
            )
        body = await _read_body(request)
        if body is None:
            return JSONResponse({"error": f"The message is larger than {_BODY_LIMIT} bytes."}, 413)
        try:
            message = read_message(body)
        except MessageError as error:
            return JSONResponse({"error": str(error)}, 400)
        return self._confirm(message.confirm_url) if message.confirm_url else self._take(message)

    def _knows(self, request: Request) -> bool:
        given = [request.query_params.get("token", "")]
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            given.append(value.strip())
        elif kind.lower() == "basic":
            with suppress(ValueError):
                given.append(base64.b64decode(value, validate=True).decode().partition(":")[2])
        # All are compared, each in constant time, so that the time says nothing.
        right = [hmac.compare_digest(text.encode(errors="replace"), self._token) for text in given]
        return any(right)

    def _take(self, message: Message) -> JSONResponse:
        places = self._places.current()
        found = [places.concerned(event) for event in message.events]
        counted = Counter(name for names in found for name in names)
        self._gathering.add(counted)
        taken = sum(bool(names) for names in found)
        ignored = len(found) - taken + message.others
        text = "taken" if taken else "ignored: no new, changed or removed object of a source"
        return JSONResponse({"result": text, "taken": taken, "ignored": ignored, "collections": sorted(counted)})

    def _confirm(self, url: str) -> JSONResponse:
        if not is_sns(url):
            self._say(f"a subscription wants to be confirmed; if it is yours, open {url!r}")
            told = "its SubscribeURL is not at https://sns.REGION.amazonaws.com; it is in the log of `lacuna listen`"
            return JSONResponse({"result": f"not confirmed: {told}, open it yourself"})
        return JSONResponse({"result": "being confirmed"}, background=BackgroundTask(self._visit, url))

    async def _visit(self, url: str) -> None:
        topic = urlsplit(url).hostname
        try:
            async with httpx.AsyncClient(timeout=_CONFIRM_SECONDS, follow_redirects=False) as client:
                answer = await client.get(url)
        except httpx.HTTPError as error:
            self._say(f"{topic} could not be reached to confirm ({type(error).__name__}); open {url!r}")
            return
        done = "confirmed the subscription" if answer.is_success else f"answered {answer.status_code}; open {url!r}"
        self._say(f"{topic}: {done}")


def is_sns(url: str) -> bool:
    """Return whether the URL is Amazon's own, the only kind that is opened without asking anybody."""
    try:
        parts = urlsplit(url)
        plain = parts.port in (None, 443) and parts.username is None
    except ValueError:
        return False
    return parts.scheme == "https" and plain and _SNS_HOST.fullmatch(parts.hostname or "") is not None


async def _read_body(request: Request) -> bytes | None:
    """Return the body, or None when it is too large; no more than the limit is ever held."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > _BODY_LIMIT:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_LIMIT:
            return None
    return bytes(body)


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises ValueError that says why there can be none."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen at {host}:{port}: {error}; choose another --host or --port") from error


def serve(app: Starlette, sock: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, which end it in good order."""
    # Paths may hold the token, so requests are not logged.
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=10)
    # The server raises the signal again when it has ended; that is the end this program wants already.
    restored: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in restored:
        signal.signal(number, lambda *_: None)
    try:
        uvicorn.Server(config).run(sockets=[sock])
    finally:
        for number, handler in restored.items():
            signal.signal(number, handler)
