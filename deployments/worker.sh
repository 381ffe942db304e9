#!/usr/bin/env bash
# Make Lacuna's flows known to the server that PREFECT_API_URL names, and run what it schedules, one run at a time.
#
#   worker.sh            register what the server does not know yet, then work until stopped
#   worker.sh register   register everything anew, as after an upgrade; schedules that were on stay on
#
# Registering replaces the schedules by those of prefect.yaml, which are off. So it is not done at every start.
set -euo pipefail

HERE=$(dirname "$(readlink -f "$0")")
export LACUNA_CHECKOUT=${LACUNA_CHECKOUT:-$(dirname "$HERE")}
POOL=lacuna
SCHEDULED=(nightly/nightly nightly/poll verify-archive/verify benchmark/benchmark)
cd "$LACUNA_CHECKOUT"

known() { prefect "$1" inspect "$2" >/dev/null 2>&1; }

# schedules DEPLOYMENT: print "ID True" or "ID False" of each; nothing for a deployment that the server does not know.
schedules() {
  known deployment "$1" || return 0
  prefect deployment inspect "$1" --output json |
    python -c 'import json, sys; [print(each["id"], each["active"]) for each in json.load(sys.stdin)["schedules"]]'
}

prepare() {
  known work-pool "$POOL" || {
    prefect work-pool create "$POOL" --type process
    # Kept by the server for all workers together: one run at a time has the whole machine.
    prefect work-pool set-concurrency-limit "$POOL" 1
  }
  known automation lacuna-lost-runs || prefect automation create --from-file deployments/automations.yaml
}

register() {
  local on=() deployment schedule
  for deployment in "${SCHEDULED[@]}"; do
    case "$(schedules "$deployment")" in *True*) on+=("$deployment") ;; esac
  done
  prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all
  for deployment in ${on[@]+"${on[@]}"}; do
    while read -r schedule _; do
      prefect deployment schedule resume "$deployment" "$schedule" </dev/null
    done < <(schedules "$deployment")
  done
}

case "${1:-work}" in
  work)
    prepare
    known deployment "${SCHEDULED[0]}" || register
    exec prefect worker start --pool "$POOL" --type process --limit 1 --with-healthcheck
    ;;
  register) prepare && register ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
