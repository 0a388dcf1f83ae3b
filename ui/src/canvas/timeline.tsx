import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import type { TimelineItem } from "../api/types";
import { formatAxis, formatDuration, spanMs } from "../model/duration";
import { lookOf, wordOf } from "../model/states";
import { formatClock } from "../model/zone";
import { useNow } from "../parts/time";
import { useDark, useZone } from "../shell/prefs";
import { type Colours, prepare, readColours } from "./colours";
import { inside, type Span, ticks, toTime, toX, zoomed } from "./timeline-geometry";

const ROW = 24;
const HEAD = 26;

export interface TimelineProps {
  items: TimelineItem[];
  start: number;
  end: number | null;
  total: number;
  chosen: string | null;
  onOpen: (item: TimelineItem) => void;
  onMore?: (() => void) | undefined;
}

const WAIT_LOOK: Record<string, keyof Colours["look"]> = {
  upstream: "pending",
  limit: "waiting",
  worker: "queued",
  retry: "waiting",
  reschedule: "waiting",
  approval: "suspended",
};

export function TimelineCanvas(props: TimelineProps) {
  const { items, start, end, chosen, onOpen, onMore } = props;
  const zone = useZone();
  const dark = useDark();
  const now = useNow(end === null);
  const whole = useMemo<Span>(() => {
    const last = end ?? Math.max(now, start + 1000);
    return { from: start, to: Math.max(start + 100, last) };
  }, [start, end, now]);
  const [zoom, setZoom] = useState<Span | null>(null);
  const span = zoom ? inside(zoom, whole) : whole;
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [view, setView] = useState({ top: 0, width: 300, height: 300 });
  const [colours, setColours] = useState<Colours | null>(null);
  const [hover, setHover] = useState<{ index: number; x: number; y: number } | null>(null);
  const [brush, setBrush] = useState<{ from: number; to: number } | null>(null);
  const [at, setAt] = useState(0);

  // biome-ignore lint/correctness/useExhaustiveDependencies: another theme, other colours
  useLayoutEffect(() => {
    if (scroller.current) setColours(readColours(scroller.current));
  }, [dark]);

  useLayoutEffect(() => {
    const element = scroller.current;
    const drawn = canvas.current?.parentElement;
    if (!element || !drawn) return;
    const measure = () =>
      setView({ top: element.scrollTop, width: drawn.clientWidth, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);

  // Wheel with Ctrl (or a pinch) zooms, Shift moves; plain wheel scrolls the rows.
  const spanNow = useRef({ span, whole, width: view.width });
  spanNow.current = { span, whole, width: view.width };
  useEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const onWheel = (event: WheelEvent) => {
      const current = spanNow.current;
      const box = canvas.current?.getBoundingClientRect();
      if (!box) return;
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        const around = toTime(event.clientX - box.left, current.span, current.width);
        setZoom(zoomed(current.span, current.whole, around, event.deltaY > 0 ? 1.25 : 0.8));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        const delta = event.deltaX || event.deltaY;
        const move = (delta / current.width) * (current.span.to - current.span.from);
        setZoom(
          inside({ from: current.span.from + move, to: current.span.to + move }, current.whole),
        );
      }
    };
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  }, []);

  const first = Math.max(0, Math.floor(view.top / ROW) - 2);
  const last = Math.min(items.length, Math.ceil((view.top + view.height) / ROW) + 2);

  const draw = useCallback(() => {
    const element = canvas.current;
    if (!element || !colours) return;
    const width = view.width;
    const context = prepare(element, width, view.height);
    if (!context) return;
    const x = (ms: number) => toX(ms, span, width);
    context.font = `10px ${colours.font}`;
    context.fillStyle = colours.line;
    for (const offset of ticks(span, start, width)) {
      context.fillRect(Math.round(x(start + offset)), HEAD, 1, view.height);
    }
    for (let i = first; i < last; i += 1) {
      const item = items[i];
      if (!item) continue;
      const y = HEAD + i * ROW - view.top;
      if (item.task === chosen || hover?.index === i) {
        context.fillStyle = item.task === chosen ? colours.chosen : colours.hover;
        context.fillRect(0, y, width, ROW);
      }
      for (const wait of item.waited) {
        const [a, b] = [x(Date.parse(wait.from)), x(wait.to ? Date.parse(wait.to) : whole.to)];
        if (b < 0 || a > width) continue;
        context.fillStyle = colours.look[WAIT_LOOK[wait.kind] ?? "pending"];
        context.globalAlpha = 0.75;
        context.fillRect(
          Math.max(0, a),
          y + ROW / 2 - 2,
          Math.max(1, Math.min(width, b) - Math.max(0, a)),
          4,
        );
        context.globalAlpha = 1;
      }
      if (item.started_at) {
        const a = Math.max(-4, x(Date.parse(item.started_at)));
        const b = Math.min(width + 4, x(item.ended_at ? Date.parse(item.ended_at) : whole.to));
        const look = lookOf(item.state);
        const wide = Math.max(3, b - a);
        if (b >= 0 && a <= width) {
          context.fillStyle = colours.look[look];
          context.beginPath();
          context.roundRect(a, y + 5, wide, ROW - 10, 2);
          context.fill();
          if (look === "failed" && wide > 10) {
            context.strokeStyle = colours.panel;
            context.lineWidth = 1.4;
            context.beginPath();
            context.moveTo(b - 9, y + 9);
            context.lineTo(b - 4, y + ROW - 9);
            context.moveTo(b - 4, y + 9);
            context.lineTo(b - 9, y + ROW - 9);
            context.stroke();
          }
          if (item.critical) {
            context.fillStyle = colours.ink;
            context.fillRect(a, y + ROW - 4, wide, 2);
          }
        }
      }
      if (i === at && document.activeElement === scroller.current) {
        context.strokeStyle = colours.focus;
        context.lineWidth = 2;
        context.strokeRect(1, y + 1, width - 2, ROW - 2);
      }
    }
    context.fillStyle = colours.panel;
    context.fillRect(0, 0, width, HEAD - 1);
    context.fillStyle = colours.line;
    context.fillRect(0, HEAD - 1, width, 1);
    context.fillStyle = colours.ink3;
    for (const offset of ticks(span, start, width)) {
      const left = x(start + offset);
      if (left > width - 60) continue;
      context.fillText(`+${formatAxis(offset)}`, left + 3, 11);
      context.fillText(formatClock(start + offset, zone), left + 3, 21);
    }
    if (brush) {
      context.fillStyle = colours.focus;
      context.globalAlpha = 0.2;
      context.fillRect(
        Math.min(brush.from, brush.to),
        0,
        Math.abs(brush.to - brush.from),
        view.height,
      );
      context.globalAlpha = 1;
    }
  }, [items, view, colours, span, start, whole, first, last, chosen, hover, brush, zone, at]);

  useLayoutEffect(() => {
    const frame = requestAnimationFrame(draw);
    return () => cancelAnimationFrame(frame);
  }, [draw]);

  useEffect(() => {
    if (last >= items.length - 50) onMore?.();
  }, [last, items.length, onMore]);

  const place = (event: React.PointerEvent) => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box) return null;
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const index = y < HEAD ? -1 : Math.floor((y - HEAD + view.top) / ROW);
    return { x, y, index };
  };
  const hovered = hover ? items[hover.index] : undefined;
  const focused = items[at];
  return (
    <div
      ref={scroller}
      className="timeline"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: the timeline is moved in by keyboard
      tabIndex={0}
      role="application"
      aria-roledescription="timeline"
      aria-label={`${items.length} attempts over ${formatDuration(whole.to - whole.from)}. Up and down move, Enter opens, plus and minus zoom.`}
      onScroll={(event) => {
        const { scrollTop } = event.currentTarget;
        setView((v) => ({ ...v, top: scrollTop }));
      }}
      onKeyDown={(event) => {
        const middle = (span.from + span.to) / 2;
        const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[event.key];
        if (step !== undefined) {
          event.preventDefault();
          const next = Math.max(0, Math.min(items.length - 1, at + step));
          setAt(next);
          const element = scroller.current;
          if (element) {
            const y = next * ROW;
            if (y < element.scrollTop) element.scrollTop = y;
            else if (y + ROW + HEAD > element.scrollTop + view.height) {
              element.scrollTop = y + ROW + HEAD - view.height;
            }
          }
        } else if (event.key === "Enter" && focused) onOpen(focused);
        else if (event.key === "+" || event.key === "=") setZoom(zoomed(span, whole, middle, 0.7));
        else if (event.key === "-") setZoom(zoomed(span, whole, middle, 1.4));
        else if (event.key === "0") setZoom(null);
      }}
    >
      <div className="timeline-names">
        <div className="timeline-corner">
          {zoom ? (
            <button type="button" className="button plain small" onClick={() => setZoom(null)}>
              Show all
            </button>
          ) : (
            <span className="quiet small">Drag or Ctrl-wheel zooms</span>
          )}
        </div>
        <div style={{ height: items.length * ROW, position: "relative" }}>
          {items.slice(first, last).map((item, i) => (
            <button
              type="button"
              tabIndex={-1}
              key={`${item.task}/${item.attempt}`}
              className={`timeline-name${item.task === chosen ? " chosen" : ""}`}
              style={{ transform: `translateY(${(first + i) * ROW}px)` }}
              title={item.path}
              onClick={() => onOpen(item)}
            >
              <span className="cut grow" dir="auto">
                {item.path || item.name}
                {item.map_index === null ? "" : ` [${item.map_index}]`}
              </span>
              {item.attempt > 1 ? <span className="quiet small">#{item.attempt}</span> : null}
            </button>
          ))}
        </div>
      </div>
      <div className="timeline-bars">
        <canvas
          ref={canvas}
          aria-hidden
          onPointerDown={(event) => {
            const p = place(event);
            if (p && event.button === 0) {
              event.currentTarget.setPointerCapture(event.pointerId);
              setBrush({ from: p.x, to: p.x });
            }
          }}
          onPointerMove={(event) => {
            const p = place(event);
            if (!p) return;
            setHover(p.index >= 0 && p.index < items.length ? p : null);
            if (brush) setBrush({ ...brush, to: p.x });
          }}
          onPointerUp={(event) => {
            const p = place(event);
            if (brush && Math.abs(brush.to - brush.from) > 6) {
              const [a, b] = [Math.min(brush.from, brush.to), Math.max(brush.from, brush.to)];
              setZoom(
                inside(
                  { from: toTime(a, span, view.width), to: toTime(b, span, view.width) },
                  whole,
                ),
              );
            } else if (p && p.index >= 0) {
              const item = items[p.index];
              if (item) onOpen(item);
            }
            setBrush(null);
          }}
          onPointerLeave={() => setHover(null)}
        />
        {hovered && hover && !brush ? (
          <div
            className="tip"
            style={{
              left: Math.min(hover.x + 12, Math.max(0, view.width - 240)),
              top: Math.min(hover.y + 14, view.height - 90),
            }}
          >
            <div className="strong cut">
              {hovered.path}
              {hovered.map_index === null ? "" : ` [${hovered.map_index}]`}
            </div>
            <div>
              {wordOf(hovered.state)}
              {hovered.started_at
                ? `, ${formatDuration(spanMs(hovered.started_at, hovered.ended_at, whole.to))}`
                : ""}
            </div>
            {hovered.waited.map((wait) => (
              <div key={`${wait.kind}${wait.from}`} className="quiet cut">
                waited {formatDuration(spanMs(wait.from, wait.to, whole.to))} for {wait.kind}
              </div>
            ))}
          </div>
        ) : null}
      </div>
      <span className="hidden-visually" aria-live="polite">
        {focused
          ? `${focused.path}, ${wordOf(focused.state)}, ${formatDuration(spanMs(focused.started_at, focused.ended_at, whole.to))}`
          : ""}
      </span>
    </div>
  );
}
