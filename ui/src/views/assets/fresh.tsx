import type { Asset } from "../../api/types";
import { Ago } from "../../parts/time";

/** Whether its schedule is kept, and when it is due. */
export function Fresh({ freshness }: { freshness: Asset["freshness"] }) {
  const stale = freshness.status === "stale";
  return (
    <span className={stale ? "look-waiting state" : "quiet"}>
      {stale ? "stale" : "fresh"}
      {freshness.due_at ? (
        <span className="quiet">
          {stale ? ", was due " : ", due "}
          <Ago at={freshness.due_at} />
        </span>
      ) : null}
    </span>
  );
}
