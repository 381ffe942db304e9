"""The commands that make a bucket tell of its objects, as a shell text to read, adapt and run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from string import Template
from urllib.parse import urlsplit

_CREATED, _REMOVED = "s3:ObjectCreated:*", "s3:ObjectRemoved:*"
_VARIABLES = ("$TOPIC", "$ACCOUNT")
_SETUP = Template("""\
# Makes the bucket $bucket tell `lacuna listen` of new, changed and removed objects. Read it first; run one part only.
# The token stands nowhere here: export LACUNA_LISTEN_TOKEN, the same as of `lacuna listen`.
# put-bucket-notification-configuration replaces what Amazon has for the bucket; look at it first:
#   aws s3api get-bucket-notification-configuration --bucket $name

# 1. Ceph radosgw 16 or later, as the bucket's owner, with AWS_ENDPOINT_URL set to the gateway, which must reach
#    $url itself. `persistent` makes it keep what it could not deliver. Removed objects are left out,
#    the next run notes them: radosgw 16.2.15 aborts when one request removes several objects and it is to tell of that.
TOPIC=$$(aws sns create-topic --name $topic --query TopicArn --output text --attributes file:///dev/stdin <<END
{"push-endpoint": "$url/?token=$$LACUNA_LISTEN_TOKEN", "persistent": "true"}
END
)
aws s3api put-bucket-notification-configuration --bucket $name --notification-configuration file:///dev/stdin <<END
$created
END

# 2. Amazon, by SNS. It reaches public https addresses only: a proxy with a certificate in front of `lacuna listen`.
ACCOUNT=$$(aws sts get-caller-identity --query Account --output text)
TOPIC=$$(aws sns create-topic --name $topic --query TopicArn --output text)
aws sns set-topic-attributes --topic-arn "$$TOPIC" --attribute-name Policy --attribute-value file:///dev/stdin <<END
$policy
END
aws sns subscribe --topic-arn "$$TOPIC" --protocol https \\
  --notification-endpoint "https://lacuna:$$LACUNA_LISTEN_TOKEN@$public/"
aws s3api put-bucket-notification-configuration --bucket $name --notification-configuration file:///dev/stdin <<END
$both
END

# 3. MinIO: the first three lines are settings of its server, which is then started again. ALIAS is that of `mc alias`.
#      MINIO_NOTIFY_WEBHOOK_ENABLE_LACUNA=on
#      MINIO_NOTIFY_WEBHOOK_ENDPOINT_LACUNA=$url/
#      MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_LACUNA="Bearer $$LACUNA_LISTEN_TOKEN"
$minio
""")


def setup_text(bucket: str, *, prefixes: Sequence[str], url: str) -> str:
    """Return the commands for a bucket and prefixes in it, "" for all of it; url is where the store reaches us."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError(f"--url: got {url!r}, expected http(s)://HOST:PORT, where the store reaches `lacuna listen`")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "SNS:Publish",
                "Resource": "$TOPIC",
                "Condition": {
                    "ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"},
                    "StringEquals": {"aws:SourceAccount": "$ACCOUNT"},
                },
            }
        ],
    }
    target = shlex.quote(f"ALIAS/{bucket}")
    minio = [
        f"mc event add {target} arn:minio:sqs::LACUNA:webhook --event put,delete"
        + (f" --prefix {shlex.quote(prefix)}" if prefix else "")
        for prefix in prefixes
    ]
    return _SETUP.substitute(
        bucket=repr(bucket),
        name=shlex.quote(bucket),
        topic=shlex.quote(f"lacuna-{bucket}".replace(".", "-")),
        url=url.rstrip("/"),
        public=parts.netloc if parts.scheme == "https" else "PUBLIC-HOST",
        created=_configuration(prefixes, events=[_CREATED]),
        both=_configuration(prefixes, events=[_CREATED, _REMOVED]),
        policy=_here_document(json.dumps(policy)),
        minio="\n".join(minio),
    )


def _configuration(prefixes: Sequence[str], *, events: list[str]) -> str:
    rules = [_rule(number, prefix, events=events) for number, prefix in enumerate(prefixes)]
    return _here_document('{"TopicConfigurations": [\n  ' + ",\n  ".join(rules) + "\n]}")


def _rule(number: int, prefix: str, *, events: list[str]) -> str:
    rule: dict[str, object] = {"Id": f"lacuna-{number}", "TopicArn": "$TOPIC", "Events": events}
    if prefix:
        rule["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
    return json.dumps(rule, ensure_ascii=False)


def _here_document(text: str) -> str:
    """Return JSON that a shell leaves as it is, but for the variables that are whole values."""
    for special in ("\\", "$", "`"):
        text = text.replace(special, f"\\{special}")
    for variable in _VARIABLES:
        text = text.replace(f'"\\{variable}"', f'"{variable}"')
    return text
