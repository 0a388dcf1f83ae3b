import { useAddress } from "../parts/address";
import { useTitle } from "../shell/crumbs";
import { TriggerTable } from "./trigger-table";

const KINDS = ["cron", "interval", "rrule", "once", "asset", "webhook", "run", "file"];

export function TriggersView() {
  useTitle("Triggers", [{ key: "triggers", node: "Triggers" }]);
  const [search, set] = useAddress();
  return (
    <div className="view fixed">
      <div className="filters">
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
        <select
          className="select"
          aria-label="On or paused"
          value={search.paused ?? ""}
          onChange={(event) => set({ paused: event.target.value })}
        >
          <option value="">On and paused</option>
          <option value="false">On</option>
          <option value="true">Paused</option>
        </select>
      </div>
      <TriggerTable query={{ kind: search.kind, paused: search.paused }} />
    </div>
  );
}
