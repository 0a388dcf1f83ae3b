import { Link, useNavigate } from "@tanstack/react-router";
import { request } from "../api/client";
import { useAction, useApi, useList } from "../api/hooks";
import type { Decision, Trigger } from "../api/types";
import { Await, SidePanel } from "../parts/basics";
import { State } from "../parts/mark";
import { Ago, Exact, Interval } from "../parts/time";
import { Value } from "../parts/value";

/** A trigger: when it is due next, and every decision to start or not to start, with its reason. */
export default function TriggerPanel({ id, onClose }: { id: string; onClose: () => void }) {
  const navigate = useNavigate();
  const trigger = useApi<Trigger>(`/triggers/${id}`, {}, { keep: false });
  const upcoming = useApi<{
    items: { at: string; interval_start: string | null; interval_end: string | null }[];
  }>(`/triggers/${id}/upcoming`, { limit: 10 });
  const decisions = useList<Decision>(`/triggers/${id}/decisions`, {}, 50);
  const fire = useAction<{ id: string }>({
    run: (_, key) =>
      request(`/triggers/${id}/fire`, { method: "POST", body: {}, idempotencyKey: key }),
    touches: ["/triggers", "/runs"],
    onSuccess: (run) => void navigate({ to: "/runs/$id", params: { id: run.id } }),
  });
  const data = trigger.data;
  return (
    <SidePanel
      label="Trigger"
      onClose={onClose}
      head={
        <>
          <h2 className="cut mono">{data?.text ?? "Trigger"}</h2>
          <span className="grow" />
          <button
            type="button"
            className="button"
            disabled={fire.isPending}
            onClick={() => fire.mutate()}
          >
            Fire now
          </button>
        </>
      }
    >
      <Await of={trigger} what="the trigger">
        {() =>
          data ? (
            <dl className="facts">
              <dt>Workflow</dt>
              <dd>
                <Link to="/workflows/$name" params={{ name: data.workflow }} className="text-link">
                  {data.workflow}
                </Link>
              </dd>
              <dt>Kind</dt>
              <dd>{data.kind}</dd>
              <dt>Zone</dt>
              <dd>{data.timezone ?? "–"}</dd>
              <dt>Catches up</dt>
              <dd>
                {data.catchup
                  ? "yes: each missed slot gets its run"
                  : "no: missed slots are left out"}
              </dd>
              <dt>If one still runs</dt>
              <dd>{data.overlap}</dd>
              <dt>As written</dt>
              <dd>
                <Value value={data.spec} />
              </dd>
            </dl>
          ) : null
        }
      </Await>
      <h2>Due next</h2>
      <Await of={upcoming} what="its next times">
        <ul className="stack" style={{ gap: 4 }}>
          {upcoming.data?.items.map((next) => (
            <li key={next.at} className="row wrap">
              <Exact at={next.at} />
              <span className="quiet">
                <Ago at={next.at} />
              </span>
              {next.interval_start ? (
                <span className="quiet">
                  for <Interval start={next.interval_start} end={next.interval_end} />
                </span>
              ) : null}
            </li>
          ))}
          {upcoming.data?.items.length === 0 ? (
            <li className="quiet">Not by the clock: an event starts it.</li>
          ) : null}
        </ul>
      </Await>
      <h2>Decisions</h2>
      <Await of={decisions} what="its decisions">
        <ul className="stack" style={{ gap: 6 }}>
          {decisions.items.map((decision) => (
            <li key={`${decision.at}${decision.slot}`} className="row wrap">
              <State state={decision.decision} word={decision.decision} />
              <Ago at={decision.at} />
              {decision.slot ? (
                <span className="quiet">
                  slot <Exact at={decision.slot} />
                </span>
              ) : null}
              <span className="quiet">{decision.reason}</span>
              {decision.run ? (
                <Link to="/runs/$id" params={{ id: decision.run }} className="text-link">
                  run
                </Link>
              ) : null}
            </li>
          ))}
          {decisions.items.length === 0 ? <li className="quiet">None yet.</li> : null}
        </ul>
      </Await>
    </SidePanel>
  );
}
