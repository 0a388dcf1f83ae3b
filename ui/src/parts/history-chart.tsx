import { formatShort } from "../model/zone";
import { useZone } from "../shell/prefs";

export interface Hour {
  at: string;
  succeeded: number;
  failed: number;
  cancelled: number;
}

/** A day of finished runs: a column an hour, failures from the base up so that their line is flat. */
export function HistoryChart({ hours }: { hours: Hour[] }) {
  const zone = useZone();
  const most = Math.max(1, ...hours.map((h) => h.succeeded + h.failed + h.cancelled));
  const failed = hours.reduce((n, h) => n + h.failed, 0);
  const total = hours.reduce((n, h) => n + h.succeeded + h.failed + h.cancelled, 0);
  return (
    <div
      className="history"
      role="img"
      aria-label={`Finished runs by hour: ${total} in all, ${failed} failed, at most ${most} in an hour`}
    >
      {hours.map((h) => {
        const share = (n: number) => `${(n / most) * 100}%`;
        const words = `${formatShort(Date.parse(h.at), zone)}: ${h.succeeded} succeeded, ${h.failed} failed, ${h.cancelled} cancelled`;
        return (
          <span key={h.at} className="history-hour" title={words}>
            <i className="look-succeeded" style={{ height: share(h.succeeded) }} />
            <i className="look-cancelled" style={{ height: share(h.cancelled) }} />
            <i
              className="look-failed"
              style={{ height: share(h.failed), minHeight: h.failed > 0 ? 2 : 0 }}
            />
          </span>
        );
      })}
    </div>
  );
}
