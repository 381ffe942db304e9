#!/usr/bin/env bash
# A real S3 server on this machine's loopback: Ceph's radosgw with one monitor and one store, in a folder of its own.
#
#   server.sh start | stop | status | env | gateway-stop | gateway-start | remove
#
# `start` installs the packages if they are missing, makes two users, waits until the server answers, and writes the
# file `env` (endpoint and keys, readable by its owner alone). Everything lies in LACUNA_S3_HOME, never in the checkout.
# `gateway-stop` kills the gateway only, as a crash of the server would; `gateway-start` brings it back in under a second.
# Exit codes: 0 = done, 1 = it does not start, 3 = it cannot be installed here.
set -euo pipefail

HOME_FOLDER=${LACUNA_S3_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lacuna/s3}
PORT=${LACUNA_S3_PORT:-7480}
MON_V2_PORT=$((PORT + 5820))
MON_V1_PORT=$((PORT + 9309))
ENDPOINT=http://127.0.0.1:$PORT
ENV_FILE=$HOME_FOLDER/env
PACKAGES=(radosgw ceph-mon ceph-osd ceph-common)
export CEPH_CONF=$HOME_FOLDER/ceph.conf

say() { echo "s3: $*" >&2; }
fail() { say "$2"; exit "$1"; }

installed() { command -v radosgw ceph-mon ceph-osd ceph radosgw-admin >/dev/null; }

install_packages() {
  installed && return
  local as=()
  command -v apt-get >/dev/null || fail 3 "radosgw is not installed, and there is no apt-get to install it with."
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
      fail 3 "radosgw is not installed; run as root: apt-get install --no-install-recommends ${PACKAGES[*]}"
    as=(sudo -n)
  fi
  say "installing ${PACKAGES[*]} (64 MB, under a minute)"
  local log
  log=$(mktemp)
  local command=("${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${PACKAGES[@]}")
  "${command[@]}" >"$log" 2>&1 || { "${as[@]}" apt-get update >>"$log" 2>&1 && "${command[@]}" >>"$log" 2>&1; } ||
    fail 3 "apt-get could not install ${PACKAGES[*]}: $(tail -n 1 "$log") (all of it in $log)"
  rm -f "$log"
  installed || fail 3 "the packages are installed, but radosgw is not on the PATH."
}

# running NAME PROGRAM: whether the process of that pid file lives and is that program.
running() {
  local pid
  pid=$(cat "$HOME_FOLDER/run/$1.pid" 2>/dev/null) || return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]
}

# await SECONDS WHAT COMMAND...: wait until the command succeeds.
await() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail 1 "$what did not come up; look into $HOME_FOLDER/log"
    sleep 0.1
  done
}

# daemon NAME PROGRAM ARGUMENT...: start it in a session of its own, so that it outlives this script.
daemon() {
  local name=$1
  running "$name" "$2" && return
  shift
  setsid nohup "$@" </dev/null >>"$HOME_FOLDER/log/$name.out" 2>&1 9>&- &
  echo $! >"$HOME_FOLDER/run/$name.pid"
}

# end NAME PROGRAM SIGNAL: end it and wait until it is gone; a store that still runs would lock out the next one.
end() {
  running "$1" "$2" || return 0
  kill "-$3" "$(cat "$HOME_FOLDER/run/$1.pid")" 2>/dev/null || true
  for _ in $(seq 100); do
    running "$1" "$2" || return 0
    sleep 0.1
  done
  kill -KILL "$(cat "$HOME_FOLDER/run/$1.pid")" 2>/dev/null || true
  sleep 0.5
}

answers() { curl -s -o /dev/null --noproxy '*' --max-time 2 "$ENDPOINT/"; }
port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

write_settings() {
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $1
mon host = [v2:127.0.0.1:$MON_V2_PORT,v1:127.0.0.1:$MON_V1_PORT]
public network = 127.0.0.0/8
keyring = $HOME_FOLDER/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
paxos propose interval = 0.02
paxos min wait = 0.01
osd crush chooseleaf type = 0
osd objectstore = bluestore
# Sparse: what is not used takes no space on disk.
bluestore block size = 10737418240
osd memory target = 939524096
# A store without replicas that got no CPU for 0.8 of this (default 20 s) answers no read of that pool ever again: its
# lease to be read ran out, and only an answer of a replica would renew it ("waiting for readable").
osd heartbeat grace = 1200
run dir = $HOME_FOLDER/run
admin socket = $HOME_FOLDER/run/\$name.\$pid.asok
log file = $HOME_FOLDER/log/\$name.log
mon data = $HOME_FOLDER/mon
osd data = $HOME_FOLDER/osd
rgw data = $HOME_FOLDER/rgw
# Without tcp_nodelay every small GET takes 44 ms instead of 3.
rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
CONF
}

# Begun again when it ended: right after a crash the lock of the one before may still be held.
monitor_up() { daemon mon ceph-mon -i a -f; timeout 10 ceph -s; }
store_up() { daemon osd ceph-osd -i 0 -f; timeout 10 ceph osd stat | grep -q "1 up"; }

start_store() {
  await 90 "the monitor" monitor_up
  await 90 "the store" store_up
}

start_gateway() {
  daemon gateway radosgw -n client.admin -f
  await 60 "the gateway" answers
}

create() {
  local fsid store monmap=$HOME_FOLDER/monmap
  mkdir -p "$HOME_FOLDER"/{run,mon,osd,log,rgw}
  chmod 700 "$HOME_FOLDER"
  fsid=$(cat /proc/sys/kernel/random/uuid)
  store=$(cat /proc/sys/kernel/random/uuid)
  write_settings "$fsid"
  {
    ceph-authtool -C "$HOME_FOLDER/keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$HOME_FOLDER/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool "$HOME_FOLDER/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' \
      --cap mgr 'allow profile osd'
    monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$MON_V2_PORT,v1:127.0.0.1:$MON_V1_PORT]" "$monmap"
    ceph-mon --mkfs -i a --monmap "$monmap" --keyring "$HOME_FOLDER/keyring"
    await 90 "the monitor" monitor_up
    ceph osd new "$store" 0
    ceph-osd -i 0 --mkfs --osd-uuid "$store"
  } >"$HOME_FOLDER/log/create.out" 2>&1 || fail 1 "it cannot be set up: $(tail -n 1 "$HOME_FOLDER/log/create.out")"
  start_store
  user lacuna >/dev/null
  user stranger >/dev/null
  touch "$HOME_FOLDER/created"
}

# user NAME: print "access-key secret-key", making the user and its keys if there is none. No key is ever an argument.
user() {
  { timeout 60 radosgw-admin user info --uid="$1" 2>/dev/null ||
    timeout 60 radosgw-admin user create --uid="$1" --display-name="$1"; } |
    python3 -c 'import json, sys; k = json.load(sys.stdin)["keys"][0]; print(k["access_key"], k["secret_key"])'
}

write_env() {
  local own other
  own=$(user lacuna)
  other=$(user stranger)
  (
    umask 077
    cat >"$ENV_FILE.new" <<ENV
# Source it: . "$ENV_FILE". The second user may not see the buckets of the first.
export AWS_ENDPOINT_URL=$ENDPOINT
export AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=${own%% *}
export AWS_SECRET_ACCESS_KEY=${own##* }
export LACUNA_S3_STRANGER_ACCESS_KEY_ID=${other%% *}
export LACUNA_S3_STRANGER_SECRET_ACCESS_KEY=${other##* }
ENV
  )
  mv "$ENV_FILE.new" "$ENV_FILE"
}

start() {
  if running gateway radosgw && answers && [ -f "$ENV_FILE" ]; then
    say "already answers at $ENDPOINT; settings: . $ENV_FILE"
    return
  fi
  install_packages
  running gateway radosgw || ! port_taken ||
    fail 1 "port $PORT is taken by another program; set LACUNA_S3_PORT to a free one and LACUNA_S3_HOME to a new folder."
  if [ -f "$HOME_FOLDER/created" ]; then
    [ -f "$CEPH_CONF" ] && grep -q "endpoint=127.0.0.1:$PORT " "$CEPH_CONF" ||
      fail 1 "$HOME_FOLDER was made for another port; set LACUNA_S3_PORT as then, or LACUNA_S3_HOME to a new folder."
    mkdir -p "$HOME_FOLDER/run"
    write_settings "$(sed -n 's/^fsid = //p' "$CEPH_CONF")" # those of this script, also in a folder of an older one
    start_store
  else
    stop
    remove_files # what an interrupted first start left
    create
  fi
  start_gateway
  [ -f "$ENV_FILE" ] || write_env
  say "answers at $ENDPOINT; settings: . $ENV_FILE"
}

stop() {
  # The gateway first: without its store it would no longer end on request.
  end gateway radosgw TERM
  end osd ceph-osd TERM
  end mon ceph-mon TERM
}

remove_files() {
  [ -d "$HOME_FOLDER" ] || return 0
  # Only what this script made, whatever LACUNA_S3_HOME points at.
  rm -rf "$HOME_FOLDER"/{run,mon,osd,log,rgw} "$HOME_FOLDER"/{ceph.conf,keyring,monmap,env,created}
}

# One at a time: two starts at once would both set the store up.
mkdir -p "$HOME_FOLDER"
exec 9>"$HOME_FOLDER/lock"
flock -w 300 9 || fail 1 "another $0 holds $HOME_FOLDER/lock"

case "${1:-}" in
  start) start ;;
  stop) stop && say "stopped" ;;
  status) running gateway radosgw && answers && say "answers at $ENDPOINT" || fail 1 "does not run" ;;
  env) echo "$ENV_FILE" ;;
  gateway-stop) end gateway radosgw KILL ;;
  gateway-start) start_gateway ;;
  remove) stop && remove_files && say "removed $HOME_FOLDER" ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
