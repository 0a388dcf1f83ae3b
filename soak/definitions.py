"""The workloads: what each run does, and what its bodies leave for the auditor."""

from __future__ import annotations

import json
from pathlib import Path

#: Lines that each body prints.
LINES = 20
#: Bodies at once that `narrow` lets through.
NARROW = 2
#: Seconds between the slots of the schedule.
TICK_S = 2

#: Sourced by every shell body: BODY SECONDS [narrow]
BODY = r"""
# A second body of the same task that is alive at once finds the lock taken.
exec 9>"$SOAK/locks/$KOBZA_TASK_ID"
read -r now _ </proc/uptime
flock -n 9 || echo "two bodies of $KOBZA_TASK_ID at once, at $now, attempt $KOBZA_ATTEMPT" >>"$SOAK/violations"
if [ "$2" = narrow ]; then
    exec 8>"$SOAK/slots/a"
    flock -n 8 || { exec 8>"$SOAK/slots/b"; flock -n 8 || echo "more than 2 bodies hold narrow, at $now: $KOBZA_TASK_ID" >>"$SOAK/violations"; }
fi
nonce="$KOBZA_TASK_ID-$KOBZA_ATTEMPT-$$"
echo "$nonce" >>"$SOAK/nonces"
echo "$now begins $KOBZA_LAUNCH in ${KOBZA_SHIM##*/}" >>"$SOAK/bodies"
i=0
while [ $i -lt LINES ]; do echo "line $i"; i=$((i + 1)); done
sleep "$1"
echo "nonce=$nonce" >"$KOBZA_OUTPUT"
""".replace("LINES", str(LINES))

RETRIES = "retries: {limit: 1000, delay: 200ms}"


def native(folder: Path) -> dict[str, str]:
    body = f'. "{folder}/body.sh"'
    quick = f"""
name: quick
params: {{edit: {{type: integer, default: 0}}}}
pools: {{narrow: {NARROW}}}
defaults: {{{RETRIES}}}
tasks:
  a: {{shell: 'set -- 0.05; {body}; true edit EDIT'}}
  m: {{shell: 'set -- 0.1 narrow; {body}', needs: a, map: {{range: 4}}, limits: narrow}}
  b:
    needs: [a, m]
    shell: |
      set -- 0; {body}
      echo "{{{{ run.id }}}} {{{{ tasks.a.output.nonce }}}}" >>"$SOAK/got"
    produces: [soak/quick]
"""
    return {
        "quick": quick,
        # Long enough to be cancelled, frozen, and lost.
        "slow": f"name: slow\ndefaults: {{{RETRIES}}}\ntasks:\n  a: {{shell: 'set -- 1.5; {body}'}}\n"
                f"  b: {{shell: 'set -- 0; {body}', needs: a}}\n",
        "tick": f"name: tick\nschedule: {{every: {TICK_S}s, catchup: true}}\ntasks: {{a: {{noop: true}}}}\n",
        # Never due by itself: only backfills run it.
        "daily": f"name: daily\ndefaults: {{{RETRIES}}}\nschedule: {{cron: '0 2 * * *', start: 2100-01-01}}\n"
                 f"tasks:\n  a: {{shell: 'set -- 0; {body}'}}\n",
        "reader": "name: reader\ntriggers: [{name: changed, assets: [soak/quick]}]\ntasks: {a: {noop: true}}\n",
        "follower": "name: follower\ntriggers: [{name: after, run: {workflow: slow, states: [succeeded]}}]\n"
                    "tasks: {a: {noop: true}}\n",
        "arrival": f"name: arrival\ntriggers: [{{name: file, file: {{path: '{folder}/in/*.csv', settle: 1s}}}}]\n"
                   "tasks: {a: {noop: true}}\n",
        "asks": "name: asks\ntasks: {a: {approval: {message: 'Go on?'}}}\n",
    }


def edited(folder: Path, number: int) -> str:
    return native(folder)["quick"].replace("EDIT", str(number))


def python() -> dict:
    """Python functions, drawn by the SDK."""
    import flows

    return flows.functions.document()


def argo() -> str:
    again = {"limit": "1000", "retryPolicy": "Always", "backoff": {"duration": "1", "factor": "1"}}
    leaf = lambda name, script: {  # noqa: E731
        "name": name, "inputs": {"parameters": [{"name": "said", "value": ""}]}, "retryStrategy": again,
        "container": {"image": "alpine", "command": ["sh", "-c", script]}}
    return json.dumps({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "argo"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "dag": {"tasks": [
                {"name": "a", "template": "say"},
                {"name": "m", "template": "say", "depends": "a", "withSequence": {"count": "3"}},
                {"name": "b", "template": "hear", "depends": "m",
                 "arguments": {"parameters": [{"name": "said", "value": "{{tasks.a.outputs.result}}"}]}},
            ]}},
            leaf("say", "sleep 0.05; echo said"),
            leaf("hear", "test {{inputs.parameters.said}} = said"),
        ]}})
