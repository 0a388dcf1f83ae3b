import { useAddress } from "../parts/address";
import { Empty, SearchField } from "../parts/basics";
import { useTitle } from "../shell/crumbs";
import { EventList } from "./event-list";

const KINDS = [
  "run",
  "task",
  "cleared",
  "marked",
  "materialized",
  "checked",
  "workflow",
  "trigger",
  "backfill",
  "note",
];

export function EventsView() {
  useTitle("Events", [{ key: "events", node: "Events" }]);
  const [search, set] = useAddress();
  return (
    <div className="view fixed">
      <div className="filters">
        <SearchField label="Text" value={search.q ?? ""} onChange={(q) => set({ q })} />
        <SearchField
          label="Workflow"
          value={search.workflow ?? ""}
          onChange={(workflow) => set({ workflow })}
          width={150}
        />
        {KINDS.map((kind) => (
          <button
            key={kind}
            type="button"
            className="chip"
            aria-pressed={search.kind === kind}
            onClick={() => set({ kind: search.kind === kind ? undefined : kind })}
          >
            {kind}
          </button>
        ))}
      </div>
      <EventList
        query={{ q: search.q, workflow: search.workflow, kind: search.kind }}
        empty={
          search.q || search.kind || search.workflow ? (
            <Empty title="No event matches the filters" />
          ) : (
            <Empty title="No event yet">
              <p>Everything that happens is kept here in its order, with a number and a reason.</p>
            </Empty>
          )
        }
      />
    </div>
  );
}
