import { Link } from "@tanstack/react-router";
import { request } from "../api/client";
import { useAction, useApi, useList } from "../api/hooks";
import type { Backfill, BackfillSlot } from "../api/types";
import { formatCount } from "../model/duration";
import { isFinished, orderedCounts, wordOf } from "../model/states";
import { useAddress } from "../parts/address";
import { Await, Empty, SidePanel } from "../parts/basics";
import { CountsBar, Mark, State } from "../parts/mark";
import { type Column, Table } from "../parts/table";
import { Exact, Interval, Took } from "../parts/time";
import { Value } from "../parts/value";

type Act = "pause" | "resume" | "cancel" | "retry_failed";

export default function BackfillPanel({ id, onClose }: { id: string; onClose: () => void }) {
  const [search, set] = useAddress();
  const backfill = useApi<Backfill>(`/backfills/${id}`, {}, { keep: false });
  const slots = useList<BackfillSlot>(`/backfills/${id}/slots`, { state: search.slots }, 200);
  const act = useAction<Backfill, Act>({
    run: (what, key) =>
      request(`/backfills/${id}/${what}`, { method: "POST", body: {}, idempotencyKey: key }),
    touches: ["/backfills", "/runs"],
    done: (_, what) =>
      ({
        pause: "Paused: what runs goes on, nothing new starts",
        resume: "Goes on",
        cancel: "Cancelled",
        retry_failed: "Failed ones are started again",
      })[what],
  });
  const data = backfill.data;
  const columns: Column<BackfillSlot>[] = [
    { key: "state", head: "State", width: "104px", cell: (s) => <State state={s.state} /> },
    {
      key: "slot",
      head: "Slot",
      width: "minmax(0, 1fr)",
      cell: (s) => {
        const slot = s.interval_start ? (
          <Interval start={s.interval_start} end={s.interval_end} />
        ) : s.partition ? (
          <span className="mono">{s.partition}</span>
        ) : (
          <Exact at={s.slot} />
        );
        return s.run ? (
          <Link to="/runs/$id" params={{ id: s.run }}>
            {slot}
          </Link>
        ) : (
          slot
        );
      },
    },
    {
      key: "run",
      head: "Run",
      wide: true,
      width: "90px",
      cell: (s) =>
        s.run ? (
          <Link to="/runs/$id" params={{ id: s.run }} className="mono text-link">
            {s.run.slice(-8)}
          </Link>
        ) : (
          <span className="quiet">–</span>
        ),
    },
  ];
  const failed = data?.counts.failed ?? 0;
  return (
    <SidePanel
      label="Backfill"
      onClose={onClose}
      bare
      head={<h2 className="cut">{data ? `Backfill of ${data.workflow}` : "Backfill"}</h2>}
    >
      <div className="side-fill">
        <Await of={backfill} what="the backfill">
          {() =>
            data ? (
              <>
                <div className="page-head">
                  <div className="row wrap">
                    <State state={data.state} />
                    {data.from ? <Interval start={data.from} end={data.to} /> : null}
                    <span className="grow" />
                    {data.state === "running" ? (
                      <button type="button" className="button" onClick={() => act.mutate("pause")}>
                        Pause
                      </button>
                    ) : null}
                    {data.state === "paused" ? (
                      <button type="button" className="button" onClick={() => act.mutate("resume")}>
                        Go on
                      </button>
                    ) : null}
                    {failed > 0 ? (
                      <button
                        type="button"
                        className="button"
                        onClick={() => act.mutate("retry_failed")}
                      >
                        Rerun {formatCount(failed)} failed
                      </button>
                    ) : null}
                    {isFinished(data.state) ? null : (
                      <button
                        type="button"
                        className="button danger"
                        onClick={() => act.mutate("cancel")}
                      >
                        Cancel
                      </button>
                    )}
                  </div>
                  <CountsBar counts={data.counts} />
                  <div className="row wrap">
                    {orderedCounts(data.counts).map(([state, n]) => (
                      <button
                        key={state}
                        type="button"
                        className="chip"
                        aria-pressed={search.slots === state}
                        onClick={() => set({ slots: search.slots === state ? undefined : state })}
                      >
                        <Mark state={state} /> {wordOf(state)} {formatCount(n)}
                      </button>
                    ))}
                  </div>
                  <div className="row wrap quiet" style={{ gap: "2px 16px" }}>
                    <span>
                      took <Took start={data.created_at} end={data.ended_at} />
                    </span>
                    <span>{data.parallelism} at once</span>
                    <span>{data.order}</span>
                    <span>{data.only === "all" ? "all slots" : `only ${data.only}`}</span>
                    {data.created_by ? <span>by {data.created_by}</span> : null}
                  </div>
                  {data.message ? <p className="quiet">{data.message}</p> : null}
                  {data.params && Object.keys(data.params).length > 0 ? (
                    <Value value={data.params} />
                  ) : null}
                </div>
                <div className="tab-body">
                  <Await of={slots} what="its slots">
                    <div className="card fill">
                      <Table
                        label="Slots"
                        columns={columns}
                        rows={slots.items}
                        rowKey={(s) => `${s.slot}${s.interval_start}${s.partition}`}
                        rowHeight={30}
                        more={slots}
                        empty={<Empty title="No slot of that state" />}
                      />
                    </div>
                  </Await>
                </div>
              </>
            ) : null
          }
        </Await>
      </div>
    </SidePanel>
  );
}
