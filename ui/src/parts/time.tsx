import { useSyncExternalStore } from "react";
import { formatDuration, formatRelative, spanMs } from "../model/duration";
import { formatInstant, formatInterval } from "../model/zone";
import { useZone } from "../shell/prefs";

// One clock for all that shows a time: it ticks only while something listens.
let nowMs = Date.now();
let timer: ReturnType<typeof setInterval> | null = null;
const listeners = new Set<() => void>();

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  if (timer === null) {
    nowMs = Date.now();
    timer = setInterval(() => {
      nowMs = Date.now();
      for (const each of listeners) each();
    }, 1000);
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0 && timer !== null) {
      clearInterval(timer);
      timer = null;
    }
  };
}

export function useNow(active = true): number {
  return useSyncExternalStore(active ? subscribe : () => () => undefined, () => nowMs);
}

/** "3 min ago", the exact instant on hover and copy. */
export function Ago({ at, prefix }: { at: string | null | undefined; prefix?: string }) {
  const zone = useZone();
  const ms = at ? Date.parse(at) : Number.NaN;
  // A text that does not change is not rendered again: the snapshot is the text itself.
  const text = useSyncExternalStore(subscribe, () =>
    Number.isNaN(ms) ? "–" : formatRelative(ms, nowMs),
  );
  if (Number.isNaN(ms)) return <span className="quiet">–</span>;
  const exact = formatInstant(ms, zone);
  return (
    <time
      dateTime={at ?? undefined}
      title={exact}
      className="nowrap"
      onCopy={(event) => {
        event.clipboardData.setData("text/plain", exact);
        event.preventDefault();
      }}
    >
      {prefix}
      {text}
    </time>
  );
}

/** The exact instant in the page's zone. */
export function Exact({ at }: { at: string | null | undefined }) {
  const zone = useZone();
  if (!at) return <span className="quiet">–</span>;
  return (
    <time dateTime={at} className="nowrap">
      {formatInstant(Date.parse(at), zone)}
    </time>
  );
}

/** How long something took, or has taken so far. */
export function Took({
  start,
  end,
  running,
}: {
  start: string | null | undefined;
  end: string | null | undefined;
  running?: boolean;
}) {
  const live = Boolean(start) && !end && running !== false;
  const now = useNow(live);
  const ms = live || end ? spanMs(start, end, now) : null;
  return <span className="nowrap">{formatDuration(ms)}</span>;
}

export function Interval({ start, end }: { start: string | null; end: string | null }) {
  const zone = useZone();
  if (!start || !end) return null;
  const exact = `${formatInstant(Date.parse(start), zone)} to ${formatInstant(Date.parse(end), zone)}`;
  return (
    <span className="nowrap" title={exact}>
      {formatInterval(Date.parse(start), Date.parse(end), zone)}
    </span>
  );
}
