import { Link } from "@tanstack/react-router";
import type { RunBar } from "../api/types";
import { formatDuration, spanMs } from "../model/duration";
import { lookOf, wordOf } from "../model/states";
import { formatShort } from "../model/zone";
import { useZone } from "../shell/prefs";

/** Heights from 0 to 1: the square root, so that a run of an hour leaves one of a minute visible. */
export function barHeights(durations: (number | null)[]): number[] {
  const most = Math.max(1, ...durations.map((ms) => ms ?? 0));
  return durations.map((ms) => Math.max(0.16, Math.sqrt((ms ?? 0) / most)));
}

/** A workflow's last runs, newest right: colour is the state, height the duration. */
export function RunBars({ runs, height = 24 }: { runs: RunBar[]; height?: number }) {
  const zone = useZone();
  const durations = runs.map((run) => spanMs(run.started_at, run.ended_at, Date.now()));
  const heights = barHeights(durations);
  return (
    <span className="run-bars" style={{ height }}>
      {runs.map((run, i) => {
        const at = formatShort(Date.parse(run.interval_start ?? run.created_at), zone);
        const words = `${wordOf(run.state)}, ${at}, ${formatDuration(durations[i])}`;
        return (
          <Link
            key={run.id}
            to="/runs/$id"
            params={{ id: run.id }}
            className={`look-${lookOf(run.state)}`}
            style={{ height: `${(heights[i] ?? 0.2) * 100}%` }}
            title={words}
            aria-label={words}
            tabIndex={-1}
            preload={false}
          />
        );
      })}
    </span>
  );
}
