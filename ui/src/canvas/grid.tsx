import { ChevronDown, ChevronRight, Layers } from "lucide-react";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import type { Grid } from "../api/types";
import { formatDuration, formatDurationShort, spanMs } from "../model/duration";
import { lookOf, wordOf } from "../model/states";
import { formatInterval, formatShort } from "../model/zone";
import { useDark, useZone } from "../shell/prefs";
import { type Colours, drawState, prepare, readColours } from "./colours";
import {
  CELL,
  type Cell,
  HEAD,
  hit,
  moved,
  readCell,
  rectangle,
  STEP,
  visibleRows,
} from "./grid-geometry";

export interface GridProps {
  grid: Grid;
  onOpenRun: (run: string) => void;
  onOpenCell: (run: string, path: string, task: number, group: boolean) => void;
  /** Chosen cells, for bulk actions: task numbers by run, or paths where there are several. */
  onChoose: (cells: { run: string; path: string; task: number; state: string }[]) => void;
  onOlder?: (() => void) | undefined;
}

export function GridCanvas({ grid, onOpenRun, onOpenCell, onChoose, onOlder }: GridProps) {
  const zone = useZone();
  const dark = useDark();
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const rows = useMemo(() => visibleRows(grid.rows, folded), [grid.rows, folded]);
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const labels = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ left: 0, top: 0, width: 300, height: 300 });
  const [at, setAt] = useState<Cell | null>(null);
  const [hover, setHover] = useState<(Cell & { x: number; y: number }) | null>(null);
  const [drag, setDrag] = useState<{ from: Cell; to: Cell; live: boolean } | null>(null);
  const [colours, setColours] = useState<Colours | null>(null);
  const runs = grid.runs.length;
  const width = runs * STEP;
  const height = HEAD + rows.length * STEP;

  // biome-ignore lint/correctness/useExhaustiveDependencies: another theme, other colours
  useLayoutEffect(() => {
    if (scroller.current) setColours(readColours(scroller.current));
  }, [dark]);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const measure = () =>
      setView({
        left: element.scrollLeft,
        top: element.scrollTop,
        width: element.clientWidth,
        height: element.clientHeight,
      });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);

  // The newest run is at the right: begin there, and stay there when older ones come in at the left.
  const oldest = useRef<{ id: string | undefined; width: number }>({ id: undefined, width: 0 });
  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const before = oldest.current;
    const first = grid.runs[0]?.id;
    if (before.id === undefined) element.scrollLeft = width;
    else if (before.id !== first && grid.runs.some((run) => run.id === before.id)) {
      element.scrollLeft += width - before.width;
    }
    oldest.current = { id: first, width };
  }, [grid.runs, width]);

  const longest = useMemo(() => {
    const now = Date.now();
    return Math.max(1, ...grid.runs.map((run) => spanMs(run.started_at, run.ended_at, now) ?? 0));
  }, [grid.runs]);

  const chosen = useMemo(() => {
    if (!drag) return new Set<string>();
    return new Set(rectangle(drag.from, drag.to).map((cell) => `${cell.run}:${cell.row}`));
  }, [drag]);

  const draw = useCallback(() => {
    const element = canvas.current;
    if (!element || !colours) return;
    const context = prepare(element, view.width, view.height);
    if (!context) return;
    const now = Date.now();
    const firstRun = Math.max(0, Math.floor(view.left / STEP));
    const lastRun = Math.min(runs - 1, Math.floor((view.left + view.width) / STEP));
    const firstRow = Math.max(0, Math.floor(view.top / STEP));
    const lastRow = Math.min(rows.length - 1, Math.floor((view.top + view.height - HEAD) / STEP));
    const focus = hover ?? at;
    if (focus) {
      context.fillStyle = colours.hover;
      context.fillRect(focus.run * STEP - view.left - 1, 0, STEP, view.height);
      if (focus.row >= 0) {
        context.fillRect(0, HEAD + focus.row * STEP - view.top - 1, view.width, STEP);
      }
    }
    for (let r = firstRun; r <= lastRun; r += 1) {
      const column = grid.cells[r];
      const x = r * STEP - view.left;
      for (let i = firstRow; i <= lastRow; i += 1) {
        const row = rows[i];
        const cell = row === undefined ? null : column?.[row];
        const y = HEAD + i * STEP - view.top;
        if (y < HEAD - CELL) continue;
        if (chosen.has(`${r}:${i}`)) {
          context.fillStyle = colours.focus;
          context.fillRect(x - 1, y - 1, STEP, STEP);
        }
        if (!cell) continue;
        const info = readCell(grid, cell);
        drawState(context, lookOf(info.state), colours, x + 1, y + 1, CELL - 2);
        // Many tasks behind one cell, some failed: the share of them as a notch at the foot.
        if (info.count > 1 && info.failed > 0 && info.failed < info.count) {
          context.fillStyle = colours.panel;
          const share = Math.max(0.12, info.failed / info.count);
          context.fillRect(x + 2, y + CELL - 5, (CELL - 4) * (1 - share), 2);
        }
      }
      if (r > 0 && grid.runs[r - 1]?.version !== grid.runs[r]?.version) {
        context.fillStyle = colours.ink3;
        context.fillRect(Math.round(x) - 2, 12, 1, view.height);
      }
    }
    // The head stays while rows scroll under it.
    context.fillStyle = colours.panel;
    context.fillRect(0, 0, view.width, HEAD - 1);
    context.fillStyle = colours.line;
    context.fillRect(0, HEAD - 1, view.width, 1);
    context.font = `10px ${colours.font}`;
    let textEnd = -1;
    for (let r = firstRun; r <= lastRun; r += 1) {
      const run = grid.runs[r];
      if (!run) continue;
      const x = r * STEP - view.left;
      if (focus?.run === r) {
        context.fillStyle = colours.hover;
        context.fillRect(x - 1, 0, STEP, HEAD - 1);
      }
      const ms = spanMs(run.started_at, run.ended_at, now) ?? 0;
      const tall = Math.max(4, Math.sqrt(ms / longest) * (HEAD - 18));
      const look = lookOf(run.state);
      context.fillStyle = colours.look[look];
      context.beginPath();
      context.roundRect(x + 3, HEAD - 3 - tall, CELL - 6, tall, [2, 2, 0, 0]);
      if (look === "running") context.globalAlpha = 0.7;
      context.fill();
      context.globalAlpha = 1;
      if (look === "failed") {
        context.strokeStyle = colours.panel;
        context.lineWidth = 1.2;
        context.beginPath();
        context.moveTo(x + 6, HEAD - 9);
        context.lineTo(x + 10, HEAD - 5);
        context.moveTo(x + 10, HEAD - 9);
        context.lineTo(x + 6, HEAD - 5);
        context.stroke();
      }
      if (r > 0 && grid.runs[r - 1]?.version !== run.version && x > textEnd) {
        context.fillStyle = colours.ink2;
        const text = run.version.slice(0, 7);
        context.fillText(text, x, 9);
        textEnd = x + context.measureText(text).width + 4;
        context.fillStyle = colours.ink3;
        context.fillRect(Math.round(x) - 2, 0, 1, HEAD);
      }
    }
    if (at) {
      context.strokeStyle = colours.focus;
      context.lineWidth = 2;
      const y = at.row < 0 ? 1 : HEAD + at.row * STEP - view.top;
      if (at.row < 0 || y > HEAD - CELL) {
        context.strokeRect(at.run * STEP - view.left, y, CELL, at.row < 0 ? HEAD - 3 : CELL);
      }
    }
  }, [grid, rows, view, colours, at, hover, chosen, longest, runs]);

  useLayoutEffect(() => {
    const frame = requestAnimationFrame(draw);
    return () => cancelAnimationFrame(frame);
  }, [draw]);

  const wantOlder = view.left < 400 && runs > 0 && width > view.width;
  useEffect(() => {
    if (wantOlder) onOlder?.();
  }, [wantOlder, onOlder]);

  const cellAt = (event: React.PointerEvent): Cell | null => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box) return null;
    const y = event.clientY - box.top;
    return hit(
      event.clientX - box.left + view.left,
      y < HEAD ? y : y + view.top,
      runs,
      rows.length,
    );
  };

  const open = (cell: Cell) => {
    const run = grid.runs[cell.run];
    if (!run) return;
    if (cell.row < 0) return onOpenRun(run.id);
    const place = rows[cell.row];
    const row = place === undefined ? undefined : grid.rows[place];
    const value = place === undefined ? null : grid.cells[cell.run]?.[place];
    if (row && value) onOpenCell(run.id, row.path, value[1], row.group || row.mapped);
  };

  const report = (from: Cell, to: Cell) => {
    const list: { run: string; path: string; task: number; state: string }[] = [];
    for (const cell of rectangle(from, to)) {
      const place = rows[cell.row];
      const run = grid.runs[cell.run];
      const row = place === undefined ? undefined : grid.rows[place];
      const value = place === undefined ? null : grid.cells[cell.run]?.[place];
      if (run && row && value) {
        list.push({
          run: run.id,
          path: row.path,
          task: value[1],
          state: readCell(grid, value).state,
        });
      }
    }
    onChoose(list);
  };

  const words = (cell: Cell): string[] => {
    const run = grid.runs[cell.run];
    if (!run) return [];
    const when = run.interval_start
      ? formatInterval(
          Date.parse(run.interval_start),
          Date.parse(run.interval_end ?? run.interval_start),
          zone,
        )
      : (run.partition ?? formatShort(Date.parse(run.created_at), zone));
    if (cell.row < 0) {
      return [
        `Run ${when}`,
        `${wordOf(run.state)}, ${formatDuration(spanMs(run.started_at, run.ended_at, Date.now()))}`,
        `by ${run.trigger}, version ${run.version.slice(0, 7)}`,
      ];
    }
    const place = rows[cell.row];
    const row = place === undefined ? undefined : grid.rows[place];
    const value = place === undefined ? null : grid.cells[cell.run]?.[place];
    if (!row) return [];
    if (!value) return [row.path, `not part of run ${when}`];
    const info = readCell(grid, value);
    return [
      row.path,
      `${wordOf(info.state)}${info.durationMs === null ? "" : `, ${formatDuration(info.durationMs)}`}`,
      info.count > 1
        ? `${info.count.toLocaleString("en")} tasks${info.failed ? `, ${info.failed.toLocaleString("en")} failed` : ""}`
        : info.attempt > 1
          ? `attempt ${info.attempt}`
          : "",
      `run ${when}`,
    ].filter(Boolean);
  };

  const reveal = (cell: Cell) => {
    const element = scroller.current;
    if (!element) return;
    const x = cell.run * STEP;
    const y = cell.row * STEP;
    if (x < element.scrollLeft) element.scrollLeft = x;
    else if (x + STEP > element.scrollLeft + view.width) element.scrollLeft = x + STEP - view.width;
    if (cell.row >= 0) {
      if (y < element.scrollTop) element.scrollTop = y;
      else if (y + STEP > element.scrollTop + view.height - HEAD) {
        element.scrollTop = y + STEP - view.height + HEAD;
      }
    }
  };

  const firstLabel = Math.max(0, Math.floor(view.top / STEP) - 4);
  const lastLabel = Math.min(rows.length, Math.ceil((view.top + view.height) / STEP) + 4);
  const spoken = at ? words(at).join(". ") : "";
  return (
    <div className="grid-view">
      <div className="grid-labels" ref={labels}>
        <div className="grid-corner quiet small">{formatDurationShort(longest)}</div>
        <div className="grid-names">
          <div style={{ transform: `translateY(${-view.top}px)`, height: rows.length * STEP }}>
            {rows.slice(firstLabel, lastLabel).map((place, i) => {
              const row = grid.rows[place];
              if (!row) return null;
              const index = firstLabel + i;
              return (
                <div
                  key={row.path}
                  className={`grid-name${(hover ?? at)?.row === index ? " hover" : ""}`}
                  style={{
                    transform: `translateY(${index * STEP}px)`,
                    paddingLeft: 20 + row.depth * 12,
                  }}
                  title={row.path}
                >
                  {row.group ? (
                    <button
                      type="button"
                      className="grid-fold"
                      aria-expanded={!folded.has(row.path)}
                      aria-label={`${folded.has(row.path) ? "Unfold" : "Fold"} ${row.path}`}
                      onClick={() =>
                        setFolded((before) => {
                          const next = new Set(before);
                          if (!next.delete(row.path)) next.add(row.path);
                          return next;
                        })
                      }
                    >
                      {folded.has(row.path) ? (
                        <ChevronRight size={12} />
                      ) : (
                        <ChevronDown size={12} />
                      )}
                    </button>
                  ) : null}
                  <span className="cut" dir="auto">
                    {row.name}
                  </span>
                  {row.mapped ? <Layers size={10} className="quiet" aria-label="mapped" /> : null}
                </div>
              );
            })}
          </div>
        </div>
      </div>
      <div
        ref={scroller}
        className="grid-scroll"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the grid is moved in by keyboard
        tabIndex={0}
        role="application"
        aria-roledescription="grid of runs by task"
        aria-label={`${rows.length} tasks by ${runs} runs. Arrow keys move, Enter opens.`}
        onScroll={(event) => {
          const element = event.currentTarget;
          setView((v) => ({ ...v, left: element.scrollLeft, top: element.scrollTop }));
        }}
        onKeyDown={(event) => {
          const now = at ?? { run: runs - 1, row: 0 };
          if (event.key === "Enter") {
            event.preventDefault();
            open(now);
            return;
          }
          if (event.key === "Escape" && drag) {
            setDrag(null);
            onChoose([]);
            event.preventDefault();
            return;
          }
          const next = moved(now, event.key, runs, rows.length, Math.floor(view.height / STEP) - 3);
          if (!next) return;
          event.preventDefault();
          const target = at ? next : now;
          setAt(target);
          setHover(null);
          reveal(target);
          if (event.shiftKey && target.row >= 0) {
            const from = drag?.from ?? now;
            setDrag({ from, to: target, live: false });
            report(from, target);
          } else if (drag) {
            setDrag(null);
            onChoose([]);
          }
        }}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          const cell = cellAt(event);
          if (!cell) return;
          setAt(cell);
          if (cell.row < 0) return;
          if (event.shiftKey && at && at.row >= 0) {
            setDrag({ from: at, to: cell, live: false });
            report(at, cell);
          } else {
            setDrag({ from: cell, to: cell, live: true });
          }
        }}
        onPointerMove={(event) => {
          const cell = cellAt(event);
          const box = scroller.current?.getBoundingClientRect();
          setHover(
            cell && box
              ? { ...cell, x: event.clientX - box.left, y: event.clientY - box.top }
              : null,
          );
          if (drag?.live && cell && cell.row >= 0) setDrag({ ...drag, to: cell });
        }}
        onPointerUp={(event) => {
          const cell = cellAt(event);
          if (!drag?.live) {
            if (cell?.row === -1) open(cell);
            return;
          }
          const single = drag.from.run === drag.to.run && drag.from.row === drag.to.row;
          if (single) {
            setDrag(null);
            onChoose([]);
            if (cell) open(cell);
          } else {
            setDrag({ ...drag, live: false });
            report(drag.from, drag.to);
          }
        }}
        onPointerLeave={() => setHover(null)}
      >
        <canvas ref={canvas} className="grid-canvas" aria-hidden />
        <div style={{ width, height, marginTop: -view.height }} />
        {hover && !drag?.live ? (
          <div
            className="tip"
            style={{
              left: view.left + Math.min(hover.x + 14, Math.max(0, view.width - 230)),
              top: view.top + Math.min(hover.y + 14, Math.max(0, view.height - 84)),
            }}
          >
            {words(hover).map((line, i) => (
              <div key={line} className={i === 0 ? "strong cut" : "cut"}>
                {line}
              </div>
            ))}
          </div>
        ) : null}
      </div>
      <span className="hidden-visually" aria-live="polite">
        {spoken}
      </span>
    </div>
  );
}
