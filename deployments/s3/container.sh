#!/usr/bin/env bash
# The S3 server of server.sh as the main process of a container: it listens on every address of the container, and lets
# in the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of its environment. Ends when the gateway does.
set -euo pipefail

HERE=$(dirname "$(readlink -f "$0")")
export LACUNA_S3_HOME=${LACUNA_S3_HOME:-/var/lib/lacuna-s3} LACUNA_S3_PORT=${LACUNA_S3_PORT:-7480}
export CEPH_CONF=$LACUNA_S3_HOME/ceph.conf
PID_FILE=$LACUNA_S3_HOME/run/gateway.pid
: "${AWS_ACCESS_KEY_ID:?choose one, in s3.env}" "${AWS_SECRET_ACCESS_KEY:?choose one, in s3.env}"

# let_in: add the keys to the user of server.sh, through files rather than arguments, which every process may read.
let_in() {
  radosgw-admin metadata get user:lacuna | python3 -c '
import json, os, sys
user = json.load(sys.stdin)
keys = user["data"]["keys"]
own = os.environ["AWS_ACCESS_KEY_ID"]
keys[:] = [key for key in keys if key["access_key"] != own]
keys.append({"user": "lacuna", "access_key": own, "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"]})
json.dump(user, sys.stdout)' | radosgw-admin metadata put user:lacuna >/dev/null
}

rm -f "$LACUNA_S3_HOME"/run/*.pid # of a container that is gone
"$HERE/server.sh" start
trap '"$HERE/server.sh" stop' EXIT
trap 'exit 0' TERM INT
let_in

# server.sh listens on loopback, which ends at the border of the container: the same gateway again, on every address.
first=$(cat "$PID_FILE")
kill "$first"
while kill -0 "$first" 2>/dev/null; do sleep 0.1; done
radosgw -n client.admin -f --rgw_frontends "beast endpoint=0.0.0.0:$LACUNA_S3_PORT tcp_nodelay=1" &
echo $! >"$PID_FILE"
wait $!
