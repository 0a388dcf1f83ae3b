import { ArrowDownToLine, ChevronDown, ChevronUp, Clock, Download, WrapText } from "lucide-react";
import {
  useCallback,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { apiUrl } from "../api/client";
import { useApi } from "../api/hooks";
import type { LogLine, LogMatches } from "../api/types";
import { ansiSpans, findRanges, markSpans } from "../model/ansi";
import { formatBytes, formatCount } from "../model/duration";
import { formatClockMs, formatInstant } from "../model/zone";
import { useAddress } from "../parts/address";
import { Empty, Loading, Problem } from "../parts/basics";
import { useKeys } from "../shell/keys";
import { setPrefs, usePrefs, useZone } from "../shell/prefs";
import { LogStore } from "./log-store";
import { contentHeight, firstLine, LINE_PX, scrollFor } from "./window";

const LEVELS = ["error", "warning", "info", "debug"] as const;

export interface LogViewProps {
  task: string;
  attempt: number;
  /** Says why there may be no line yet. */
  state: string;
}

export function LogView({ task, attempt, state }: LogViewProps) {
  const path = `/tasks/${task}/attempts/${attempt}`;
  const hashLine = useRef(lineOfHash());
  const store = useMemo(() => new LogStore(path), [path]);
  useEffect(() => {
    void store.start(hashLine.current);
    return () => store.stop();
  }, [store]);
  return <LogBody key={path} store={store} path={path} state={state} goTo={hashLine.current} />;
}

function lineOfHash(): number | null {
  const match = /^#L(\d+)/.exec(window.location.hash);
  return match ? Number(match[1]) : null;
}

function LogBody({
  store,
  path,
  state,
  goTo,
}: {
  store: LogStore;
  path: string;
  state: string;
  goTo: number | null;
}) {
  const log = useSyncExternalStore(store.subscribe, store.snapshot);
  const prefs = usePrefs();
  const zone = useZone();
  const [search, set] = useAddress();
  const query = search.find ?? "";
  const level = search.level ?? "";
  const [regex, matchCase] = [search.regex === "1", search.case === "1"];
  const [typed, setTyped] = useState(query);
  const [target, setTarget] = useState<number | null>(goTo);
  const [at, setAt] = useState(-1);
  const [jumpWhenFound, setJumpWhenFound] = useState(false);
  const [follow, setFollow] = useState(goTo === null);
  const scroller = useRef<HTMLElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const [viewport, setViewport] = useState(400);
  const [scrollTop, setScrollTop] = useState(0);

  useEffect(() => {
    if (typed === query) return;
    const timer = setTimeout(() => set({ find: typed || undefined }), 250);
    return () => clearTimeout(timer);
  }, [typed, query, set]);

  const matches = useApi<LogMatches>(
    query || level ? `${path}/log/search` : null,
    { q: query, level, regex: regex || undefined, case: matchCase || undefined, limit: 2000 },
    { keep: false },
  );
  // A level shows only its lines; a search alone marks and jumps.
  const filtered = level !== "" ? (matches.data?.lines ?? []) : null;
  const total = filtered ? filtered.length : log.total;
  const lineAt = useCallback(
    (index: number): number => (filtered ? (filtered[index] ?? 0) : index + 1),
    [filtered],
  );

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setViewport(element.clientHeight));
    observer.observe(element);
    setViewport(element.clientHeight);
    return () => observer.disconnect();
  }, []);

  const view = firstLine(scrollTop, total, viewport);
  const begin = Math.max(0, Math.floor(view.first) - 8);
  const end = Math.min(total, Math.ceil(view.first + view.fit) + 8);

  useEffect(() => {
    if (total === 0) return;
    if (filtered) {
      for (let i = begin; i < end; i += 1) store.want(lineAt(i), lineAt(i));
    } else {
      store.want(begin + 1, end);
    }
  }, [store, begin, end, filtered, lineAt, total]);

  // Following keeps the end in view; scrolling away stops it.
  // biome-ignore lint/correctness/useExhaustiveDependencies: each new line moves the end
  useLayoutEffect(() => {
    const element = scroller.current;
    if (follow && element && !filtered) element.scrollTop = element.scrollHeight;
  }, [follow, log.total, viewport, filtered]);

  const jump = useCallback(
    (n: number) => {
      const element = scroller.current;
      if (!element) return;
      setFollow(false);
      setTarget(n);
      const index = filtered ? filtered.findIndex((line) => line >= n) : n - 1;
      element.scrollTop = scrollFor(index - Math.floor(viewport / LINE_PX / 3), total, viewport);
    },
    [filtered, total, viewport],
  );

  // The line of the address, once there is something to scroll.
  const jumped = useRef(goTo === null);
  useEffect(() => {
    if (!jumped.current && log.loaded && goTo !== null && viewport > 0 && total > 0) {
      jumped.current = true;
      jump(goTo);
    }
  }, [log.loaded, goTo, jump, viewport, total]);

  const found = query && matches.data ? matches.data : null;
  const next = (step: number) => {
    if (!found || found.lines.length === 0) return;
    const top = Math.floor(view.first) + 1;
    const count = found.lines.length;
    const wanted =
      at < 0
        ? Math.max(
            0,
            found.lines.findIndex((n) => n >= top),
          )
        : at + step;
    const index = (wanted + count) % count;
    setAt(index);
    const n = found.lines[index];
    if (n !== undefined) jump(n);
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: another search begins anew
  useEffect(() => setAt(-1), [query, regex, matchCase]);

  const nextNow = useRef(next);
  nextNow.current = next;
  useEffect(() => {
    if (!jumpWhenFound || !found) return;
    setJumpWhenFound(false);
    nextNow.current(1);
  }, [jumpWhenFound, found]);

  useKeys("Log", [
    { keys: "w", word: "Wrap lines", run: () => setPrefs({ wrap: !prefs.wrap }) },
    { keys: "f", word: "Follow the end", run: () => setFollow(true) },
    { keys: "ctrl+f", word: "Search in the log", run: () => field.current?.focus() },
    {
      keys: "e",
      word: "First error",
      run: () => {
        if (log.firstError !== null) jump(log.firstError);
      },
    },
  ]);

  const rows: React.ReactNode[] = [];
  for (let i = begin; i < end; i += 1) {
    const n = lineAt(i);
    rows.push(
      <Line
        key={n}
        n={n}
        line={store.line(n)}
        zone={zone}
        times={prefs.logTimes}
        query={query}
        regex={regex}
        matchCase={matchCase}
        target={target === n}
        onNumber={() => {
          setTarget(n);
          window.history.replaceState(window.history.state, "", `#L${n}`);
        }}
      />,
    );
  }

  const offset = Math.max(0, scrollTop - (view.first - begin) * LINE_PX);
  return (
    <div className="log">
      <div className="log-bar">
        <input
          ref={field}
          className="input log-find"
          type="search"
          aria-label="Search in the log"
          placeholder="Search"
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter") {
              event.preventDefault();
              if (typed !== query) set({ find: typed || undefined });
              if (typed !== query || !found) setJumpWhenFound(true);
              else next(event.shiftKey ? -1 : 1);
            } else if (event.key === "Escape" && typed) {
              event.preventDefault();
              event.stopPropagation();
              setTyped("");
            }
          }}
        />
        {query ? (
          <>
            <span className="quiet nowrap" aria-live="polite">
              {matches.error
                ? "not a valid pattern"
                : found
                  ? found.count === 0
                    ? "no line"
                    : `${at < 0 ? "" : `${formatCount(at + 1)} of `}${formatCount(found.count)}${found.complete ? "" : "+"}`
                  : "searching…"}
            </span>
            <button
              type="button"
              className="button plain square"
              aria-label="Match before"
              onClick={() => next(-1)}
            >
              <ChevronUp size={15} />
            </button>
            <button
              type="button"
              className="button plain square"
              aria-label="Next match"
              onClick={() => next(1)}
            >
              <ChevronDown size={15} />
            </button>
          </>
        ) : null}
        <button
          type="button"
          className={`button plain${matchCase ? " on" : ""}`}
          aria-pressed={matchCase}
          title="Match case"
          onClick={() => set({ case: matchCase ? undefined : "1" })}
        >
          Aa
        </button>
        <button
          type="button"
          className={`button plain mono${regex ? " on" : ""}`}
          aria-pressed={regex}
          title="Regular expression"
          onClick={() => set({ regex: regex ? undefined : "1" })}
        >
          .*
        </button>
        <select
          className="select"
          aria-label="Level"
          value={level}
          onChange={(event) => set({ level: event.target.value || undefined })}
        >
          <option value="">All levels</option>
          {LEVELS.map((word, i) => (
            <option key={word} value={LEVELS.slice(0, i + 1).join(",")}>
              {i === 0 ? "Errors" : `${word[0]?.toUpperCase()}${word.slice(1)} and worse`}
            </option>
          ))}
        </select>
        <span className="grow" />
        {log.firstError === null ? null : (
          <button
            type="button"
            className="button plain jump-error"
            onClick={() => log.firstError !== null && jump(log.firstError)}
          >
            First error
          </button>
        )}
        <button
          type="button"
          className={`button plain square${prefs.logTimes ? " on" : ""}`}
          aria-label="Show times"
          aria-pressed={prefs.logTimes}
          title="Times"
          onClick={() => setPrefs({ logTimes: !prefs.logTimes })}
        >
          <Clock size={15} />
        </button>
        <button
          type="button"
          className={`button plain square${prefs.wrap ? " on" : ""}`}
          aria-label="Wrap lines"
          aria-pressed={prefs.wrap}
          title="Wrap (w)"
          onClick={() => setPrefs({ wrap: !prefs.wrap })}
        >
          <WrapText size={15} />
        </button>
        <a
          className="button plain square"
          aria-label="Download the log"
          title="Download"
          href={apiUrl(`${path}/log/download`)}
          download
        >
          <Download size={15} />
        </a>
      </div>
      {log.error ? <Problem error={log.error} retry={() => void store.start(null)} /> : null}
      {!log.loaded ? <Loading what="the log" /> : null}
      {log.loaded && log.total === 0 && !log.error ? (
        <Empty title={log.complete ? "It wrote nothing" : "No line yet"}>
          <p>
            {log.complete
              ? "This attempt ended without output."
              : state === "running"
                ? "It runs; what it writes to stdout and stderr shows here at once."
                : "Lines show here as soon as it starts."}
          </p>
        </Empty>
      ) : null}
      {filtered && matches.data && filtered.length === 0 ? (
        <Empty title="No line of that level" />
      ) : null}
      <section
        ref={scroller}
        className={`log-lines${prefs.wrap ? " wrap" : ""}`}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region is reached by keyboard
        tabIndex={0}
        aria-label="Log lines"
        hidden={total === 0}
        onScroll={(event) => {
          const element = event.currentTarget;
          setScrollTop(element.scrollTop);
          const away = element.scrollHeight - element.clientHeight - element.scrollTop;
          if (follow && away > LINE_PX * 2) setFollow(false);
        }}
      >
        <div style={{ height: contentHeight(total, viewport), position: "relative" }}>
          <div className="log-window" style={{ transform: `translateY(${offset}px)` }}>
            {rows}
          </div>
        </div>
      </section>
      <div className="log-foot quiet small">
        <span>
          {formatCount(total)} {filtered ? "of " : ""}
          {filtered ? `${formatCount(log.total)} ` : ""}lines, {formatBytes(log.bytes)}
        </span>
        <span className="grow" />
        {log.complete ? (
          <span>complete</span>
        ) : (
          <span>{log.following ? "live" : "waits for more"}</span>
        )}
        {follow && !log.complete ? (
          <span>following</span>
        ) : (
          <button
            type="button"
            className="button plain small"
            style={{ height: 24 }}
            onClick={() => {
              setFollow(true);
              const element = scroller.current;
              if (element) element.scrollTop = element.scrollHeight;
            }}
          >
            <ArrowDownToLine size={13} />{" "}
            {log.complete ? "To the end" : "Follow: stopped while you read"}
          </button>
        )}
      </div>
    </div>
  );
}

function Line({
  n,
  line,
  zone,
  times,
  query,
  regex,
  matchCase,
  target,
  onNumber,
}: {
  n: number;
  line: LogLine | undefined;
  zone: string;
  times: boolean;
  query: string;
  regex: boolean;
  matchCase: boolean;
  target: boolean;
  onNumber: () => void;
}) {
  const spans = useMemo(() => {
    if (!line) return [];
    const styled = ansiSpans(line.text);
    if (!query) return styled.map((span) => ({ ...span, marked: false }));
    const plain = styled.map((span) => span.text).join("");
    return markSpans(styled, findRanges(plain, query, { regex, matchCase }));
  }, [line, query, regex, matchCase]);
  const time = line?.at ? Date.parse(line.at) : Number.NaN;
  return (
    <div className={`log-line level-${line?.level ?? "none"}${target ? " target" : ""}`}>
      <button
        type="button"
        className="log-number"
        tabIndex={-1}
        aria-label={`Link to line ${n}`}
        title={Number.isNaN(time) ? undefined : formatInstant(time, zone)}
        onClick={onNumber}
      >
        {n}
      </button>
      {times ? (
        <span className="log-time">{Number.isNaN(time) ? "" : formatClockMs(time, zone)}</span>
      ) : null}
      <span className={`log-text${line?.stream === "sys" ? " sys" : ""}`}>
        {line
          ? spans.map((span, i) =>
              span.marked ? (
                <mark key={i} className={span.style}>
                  {span.text}
                </mark>
              ) : span.style ? (
                <span key={i} className={span.style}>
                  {span.text}
                </span>
              ) : (
                span.text
              ),
            )
          : "…"}
        {line?.cut ? <span className="quiet"> … cut; the download has it whole</span> : null}
        {"\n"}
      </span>
    </div>
  );
}
