import { useStateWord } from "../dialects/context";
import { barShares, type Counts, countsText, type Look, lookOf, totalOf } from "../model/states";

// Each look has its own shape, so that colour never speaks alone.
const SHAPES: Record<Look, React.ReactNode> = {
  succeeded: <circle cx="6" cy="6" r="4.6" fill="currentColor" />,
  running: (
    <g className="spin">
      <circle cx="6" cy="6" r="4.1" fill="none" stroke="currentColor" strokeWidth="1.5" />
      <path d="M6 1.2a4.8 4.8 0 0 1 0 9.6z" fill="currentColor" />
    </g>
  ),
  failed: (
    <path
      d="M2.3 2.3l7.4 7.4M9.7 2.3l-7.4 7.4"
      stroke="currentColor"
      strokeWidth="2.3"
      strokeLinecap="round"
    />
  ),
  waiting: (
    <g fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round">
      <circle cx="6" cy="6" r="4.4" />
      <path d="M6 3.6V6l1.7 1.2" />
    </g>
  ),
  skipped: <circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" strokeWidth="1.5" />,
  upstream: (
    <circle
      cx="6"
      cy="6"
      r="4.2"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.9"
      strokeDasharray="2.2 2.2"
    />
  ),
  suspended: <path d="M2.6 2h2.3v8H2.6zM7.1 2h2.3v8H7.1z" fill="currentColor" />,
  queued: <rect x="2.6" y="2.6" width="6.8" height="6.8" rx="1" fill="currentColor" />,
  cancelled: (
    <g fill="none" stroke="currentColor" strokeWidth="1.5">
      <circle cx="6" cy="6" r="4.4" />
      <path d="M3 9l6-6" />
    </g>
  ),
  pending: <circle cx="6" cy="6" r="2" fill="currentColor" />,
};

export function Mark({
  state,
  size = 12,
  title,
}: {
  state: string;
  size?: number;
  title?: string;
}) {
  const look = lookOf(state);
  return (
    // biome-ignore lint/a11y/noSvgWithoutTitle: without a title it is decoration beside its word
    <svg
      className={`mark look-${look}`}
      width={size}
      height={size}
      viewBox="0 0 12 12"
      {...(title ? { role: "img", "aria-label": title } : { "aria-hidden": true })}
    >
      {title ? <title>{title}</title> : null}
      {SHAPES[look]}
    </svg>
  );
}

export function State({ state, word }: { state: string; word?: string }) {
  const wordOf = useStateWord();
  return (
    <span className={`state look-${lookOf(state)}`}>
      <Mark state={state} />
      <span>{word ?? wordOf(state)}</span>
    </span>
  );
}

export function CountsBar({ counts, width }: { counts: Counts; width?: number | string }) {
  const text = countsText(counts);
  return (
    <span
      className="counts-bar"
      role="img"
      aria-label={`${totalOf(counts)} tasks: ${text}`}
      title={text}
      style={{ width: width ?? "100%" }}
    >
      {barShares(counts).map(({ state, share }) => (
        <i key={state} className={`look-${lookOf(state)}`} style={{ flex: `${share} 0 0` }} />
      ))}
    </span>
  );
}
