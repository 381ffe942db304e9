"""What stores say when an object comes or goes: Records, SNS envelopes and EventBridge events, read into one form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

_CREATED_OR_REMOVED = ("ObjectCreated:", "ObjectRemoved:")
_EVENTBRIDGE = ("Object Created", "Object Deleted")
# Ceph sends keys as they are; Amazon and MinIO encode them as in a form.
_PLAIN_KEYS = "ceph:s3"


class MessageError(ValueError):
    """A message that is none of the known forms; the text says in one sentence what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEvent:
    """One object that was created, replaced or removed; its key is not encoded."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a store said: objects that came or went, how much else, and the URL by which SNS wants to be confirmed."""

    events: tuple[ObjectEvent, ...] = ()
    others: int = 0
    confirm_url: str | None = None


def read_message(body: bytes) -> Message:
    """Return what the body of a request says; raises MessageError."""
    document = _document(body, what="The body")
    kind = document.get("Type")
    if kind == "SubscriptionConfirmation":
        url = document.get("SubscribeURL")
        if not isinstance(url, str):
            raise MessageError("The SubscriptionConfirmation has no SubscribeURL.")
        return Message(confirm_url=url)
    if kind == "UnsubscribeConfirmation":
        return Message(others=1)
    if kind == "Notification":
        inner = document.get("Message")
        if not isinstance(inner, str):
            raise MessageError("The SNS notification has no text Message; expected the bucket's event in it.")
        document = _document(inner.encode(), what="The Message of the SNS notification")
    return _events(document)


def _events(document: Mapping[str, Any]) -> Message:
    if "Records" in document:
        records = document["Records"]
        if not isinstance(records, list):
            raise MessageError("Records is no list.")
        found = [_of_record(record, number) for number, record in enumerate(records)]
    elif "detail" in document:
        found = [_of_eventbridge(document)]
    elif document.get("Event") == "s3:TestEvent":
        found = [None]
    else:
        raise MessageError("The message is no event of a bucket: it has neither Records nor detail.")
    events = tuple(event for event in found if event is not None)
    return Message(events=events, others=len(found) - len(events))


def _of_record(record: Any, number: int) -> ObjectEvent | None:
    where = f"Records[{number}]"
    name = _text(record, "eventName", where=where).removeprefix("s3:")
    if not name.startswith(_CREATED_OR_REMOVED):
        return None
    bucket, key = _text(record, "s3", "bucket", "name", where=where), _text(record, "s3", "object", "key", where=where)
    return ObjectEvent(bucket=bucket, key=key if record.get("eventSource") == _PLAIN_KEYS else unquote_plus(key))


def _of_eventbridge(document: Mapping[str, Any]) -> ObjectEvent | None:
    if document.get("detail-type") not in _EVENTBRIDGE:
        return None
    return ObjectEvent(
        bucket=_text(document, "detail", "bucket", "name", where="the event"),
        key=_text(document, "detail", "object", "key", where="the event"),
    )


def _document(body: bytes, *, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    # Nesting without end is no JSON that anybody means.
    except (ValueError, RecursionError):
        raise MessageError(f"{what} is no JSON.") from None
    if not isinstance(document, dict):
        raise MessageError(f"{what} is no JSON object.")
    return document


def _text(value: Any, *names: str, where: str) -> str:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str):
        raise MessageError(f"{where} has no text at {'.'.join(names)}.")
    return value
