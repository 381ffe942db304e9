"""What a bucket's notifications may look like, and which collections they concern. Nothing listens here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.listening_messages import Message, MessageError, ObjectEvent, read_message
from flows.listening_places import Places, WatchedPlaces, bucket_prefixes, read_places
from flows.listening_setup import setup_text
from flows.nightly_file import read_nightly_file

SECRET = "the-secret-of-the-store"
FILE = """
[collections.plates]
source = "s3://scans/plates"
destination = "s3://scans/plates/restored"
[collections.again]
source = "s3://scans/plates/restored/images"
destination = "s3://twice/plates"
[collections.boxes]
source = "s3://scans/boxes.zip"
destination = "/restored/boxes"
[collections.twin]
source = "s3a://scans/plates/"
destination = "/restored/twin"
[collections.disk]
source = "/scans/plates"
destination = "s3://restored/disk"
"""
KEY = "plates/ä new+1 %20.png"
ENCODED = "plates/%C3%A4+new%2B1+%2520.png"


def record(
    key: str, *, name: str = "ObjectCreated:Put", source: str = "aws:s3", bucket: str = "scans"
) -> dict[str, Any]:
    return {"eventSource": source, "eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}


def read(document: Any) -> Message:
    return read_message(json.dumps(document).encode())


def notification(document: Any) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:1:lacuna", "Message": json.dumps(document)}


EVENTBRIDGE = {"detail-type": "Object Created", "source": "aws.s3",
               "detail": {"bucket": {"name": "scans"}, "object": {"key": KEY}}}  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        {"Records": [record(ENCODED)]},
        {"Records": [record(ENCODED.replace("/", "%2F"), name="s3:ObjectCreated:Put", source="minio:s3")]},
        {"Records": [record(KEY, source="ceph:s3")]},
        {"Records": [record(KEY, name="ObjectRemoved:DeleteMarkerCreated", source="ceph:s3")]},
        notification({"Records": [record(ENCODED)]}),
        EVENTBRIDGE,
        {**EVENTBRIDGE, "detail-type": "Object Deleted"},
        notification(EVENTBRIDGE),
    ],
    ids=["amazon", "minio", "radosgw", "removed", "sns", "eventbridge", "eventbridge removed", "eventbridge by sns"],
)
def test_every_form_of_one_event(document: Any) -> None:
    assert read(document) == Message(events=(ObjectEvent(bucket="scans", key=KEY),))


@pytest.mark.parametrize(
    "document",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "scans"},
        {"Records": [record("plates/a.png", name="ObjectAccessed:Get")]},
        {"Records": [record("plates/a.png", name="s3:ObjectTagging:Put")]},
        {**EVENTBRIDGE, "detail-type": "Object Tags Added"},
        {"Type": "UnsubscribeConfirmation"},
    ],
)
def test_other_events_are_counted_only(document: Any) -> None:
    assert read(document) == Message(others=1)


def test_a_subscription_wants_to_be_confirmed() -> None:
    assert read({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://x"}).confirm_url == "https://x"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is no JSON."),
        (b"\xff\xfe", "The body is no JSON."),
        (b"[" * 100_000, "The body is no JSON."),
        (b"[]", "no JSON object"),
        (b"{}", "neither Records nor detail"),
        (b'{"Records": {}}', "Records is no list"),
        (b'{"Records": [7]}', "Records[0] has no text at eventName"),
        (b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": 1}]}', "Records[0] has no text at s3.bucket.name"),
        (b'{"detail-type": "Object Created", "detail": {}}', "the event has no text at detail.bucket.name"),
        (b'{"Type": "Notification"}', "no text Message"),
        (b'{"Type": "Notification", "Message": "Hello"}', "The Message of the SNS notification is no JSON"),
        (b'{"Type": "SubscriptionConfirmation"}', "no SubscribeURL"),
    ],
)
def test_what_is_no_event_is_said_in_one_sentence(body: bytes, said: str) -> None:
    with pytest.raises(MessageError) as caught:
        read_message(body)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "nightly.toml").write_text(FILE)
    return tmp_path / "nightly.toml"


@pytest.mark.parametrize(
    ("bucket", "key", "names"),
    [
        ("scans", "plates/1/a.png", {"plates", "twin"}),
        ("scans", "plates-old/a.png", set()),
        ("scans", "boxes.zip", {"boxes"}),
        ("scans", "boxes.zip.part", set()),
        ("scans", "other.png", set()),
        ("other", "plates/a.png", set()),
        # Results within a source are no new scans, unless a collection takes just them.
        ("scans", "plates/restored/catalogue/images/x.parquet", set()),
        ("scans", "plates/restored/images/a.png", {"again"}),
        ("twice", "plates/images/a.png", set()),
        ("restored", "disk/a.png", set()),
    ],
)
def test_only_objects_of_a_source_count(file: Path, bucket: str, key: str, names: set[str]) -> None:
    assert Places(read_nightly_file(file)).concerned(ObjectEvent(bucket=bucket, key=key)) == names


def test_a_whole_bucket_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text('[collections.a]\nsource = "s3://scans"\ndestination = "s3://restored"\n')
    places = read_places(tmp_path / "f.toml")
    assert places.concerned(ObjectEvent(bucket="scans", key="a.png")) == {"a"}
    assert bucket_prefixes(places, "scans") == [""]
    assert "prefix" not in setup_text("scans", prefixes=[""], url="http://here:4210").split("# 1. ")[1]


def test_sources_must_be_in_a_store(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text('[collections.a]\nsource = "/scans"\ndestination = "s3://restored"\n')
    with pytest.raises(ValueError, match="no collection has a source in a store"):
        read_places(tmp_path / "f.toml")


def test_a_changed_file_is_read_again(file: Path) -> None:
    said: list[str] = []
    watched = WatchedPlaces(file, say=said.append)
    event = ObjectEvent(bucket="new", key="a.png")
    assert watched.current().concerned(event) == frozenset()
    file.write_text(FILE + '[collections.more]\nsource = "s3://new"\ndestination = "/restored/new"\n')
    assert watched.current().concerned(event) == {"more"}
    file.write_text("stop_at = ")
    assert watched.current().concerned(event) == {"more"}
    file.unlink()
    assert watched.current().concerned(event) == {"more"}
    assert ["was read again" in text for text in said] == [True, False, False]


class TestSetup:
    def test_prefixes_do_not_overlap(self, file: Path) -> None:
        """Amazon refuses a configuration with overlapping prefixes."""
        assert bucket_prefixes(read_places(file), "scans") == ["boxes.zip", "plates/"]
        assert bucket_prefixes(read_places(file), "restored") == []

    def test_the_shell_leaves_names_as_they_are(self, tmp_path: Path) -> None:
        """Run with an `aws` and an `mc` that show their arguments and what they read."""
        prefix = 'it\'s $HOME `x` \\d ä "q"/'
        text = setup_text("my.scans", prefixes=[prefix], url="https://public.example:8443/")
        for name in ("aws", "mc"):
            program = tmp_path / name
            program.write_text(
                f'#!/bin/sh\nfor a in "$0" "$@"; do printf "%s\\n" "$a" >>{tmp_path}/seen; done\n'
                f'case "$*" in *stdin*) cat >>{tmp_path}/seen;; esac\n[ "$2" = create-topic ] && echo arn:topic\n'
                '[ "$2" = get-caller-identity ] && echo 123456789012\ntrue\n'
            )
            program.chmod(0o755)
        own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LACUNA_LISTEN_TOKEN": SECRET}
        ended = subprocess.run(["bash", "-eu", "-c", text], env=own, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        seen = (tmp_path / "seen").read_text().splitlines()
        assert f'{{"push-endpoint": "https://public.example:8443/?token={SECRET}", "persistent": "true"}}' in seen
        rules = [json.loads(line.strip()) for line in seen if line.strip().startswith('{"Id"')]
        assert len(rules) == 2
        assert {rule["TopicArn"] for rule in rules} == {"arn:topic"}
        assert rules[0]["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": prefix}]
        policy = json.loads(next(line for line in seen if "Statement" in line))["Statement"][0]
        assert (policy["Resource"], policy["Principal"]) == ("arn:topic", {"Service": "s3.amazonaws.com"})
        assert policy["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
        assert "https://lacuna:the-secret-of-the-store@public.example:8443/" in seen
        assert seen[-1] == prefix

    def test_no_secret_is_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LACUNA_LISTEN_TOKEN", "the-secret-of-the-store")
        assert "the-secret" not in setup_text("scans", prefixes=[""], url="http://here:4210")

    @pytest.mark.parametrize("url", ["here:4210", "ftp://here", "http://", "http://u:p@here", "http://here?x=1"])
    def test_an_address_that_cannot_be(self, url: str) -> None:
        with pytest.raises(ValueError, match="--url"):
            setup_text("scans", prefixes=[""], url=url)
