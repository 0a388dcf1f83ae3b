// Lines, bars or points over two axes: metrics and what tasks plot. SVG, few points, no library.

import type { PlotValue } from "../api/types";
import { formatCount } from "../model/duration";

/** Round steps for an axis: 1, 2 or 5 times a power of ten. */
export function axisTicks(min: number, max: number, wanted = 5): number[] {
  if (!(max > min)) return [min];
  const raw = (max - min) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw) ?? raw;
  const ticks: number[] = [];
  for (let t = Math.ceil(min / step) * step; t <= max + step * 1e-9; t += step) {
    ticks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  }
  return ticks;
}

const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 4"];
const tick = (n: number): string =>
  Math.abs(n) >= 10_000 ? formatCount(n) : String(Number(n.toPrecision(4)));
const word = (place: unknown): string =>
  typeof place === "string" ? place : (JSON.stringify(place) ?? "");

const [WIDTH, HEIGHT, LEFT, BOTTOM, EDGE] = [640, 280, 52, 34, 12];

interface Point {
  x: number;
  y: number;
}

/** Runs of points without a gap between them. */
function pieces(points: (Point | null)[]): Point[][] {
  const out: Point[][] = [[]];
  for (const point of points) {
    if (point) out.at(-1)?.push(point);
    else if (out.at(-1)?.length) out.push([]);
  }
  return out.filter((piece) => piece.length > 0);
}

export function Plot({ value }: { value: PlotValue }) {
  const bars = value.shape === "bar";
  // Places that are no numbers stand side by side, by name.
  const named = bars || !value.x.every((x) => typeof x === "number" && Number.isFinite(x));
  const places = value.x.map((x, i) => (named ? i : (x as number)));
  const ys = value.series.flatMap((s) => s.values).filter((y): y is number => y !== null);
  if (places.length === 0 || ys.length === 0)
    return <p className="quiet">The plot has no points.</p>;
  const half = bars ? 0.5 : 0;
  const x0 = Math.min(...places) - half;
  const x1 = Math.max(...places) + half;
  const y0 = bars ? Math.min(0, ...ys) : Math.min(...ys);
  const y1 = bars ? Math.max(0, ...ys) : Math.max(...ys);
  const px = (x: number) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - EDGE);
  const py = (y: number) =>
    HEIGHT - BOTTOM - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - BOTTOM - EDGE);
  const every = Math.ceil(places.length / 8);
  const xTicks: [number, string][] = named
    ? places.filter((_, i) => i % every === 0).map((x) => [x, word(value.x[x])])
    : axisTicks(x0, x1, 7).map((t) => [t, tick(t)]);
  const wide = (px(1) - px(0)) * 0.8;
  return (
    <figure className="plot">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="img"
        aria-label={`${value.shape} plot of ${value.series.map((s) => s.name).join(", ")}`}
      >
        {axisTicks(y0, y1).map((t) => (
          <g key={`y${t}`}>
            <line x1={LEFT} x2={WIDTH - EDGE} y1={py(t)} y2={py(t)} className="plot-line" />
            <text x={LEFT - 6} y={py(t) + 4} textAnchor="end">
              {tick(t)}
            </text>
          </g>
        ))}
        {xTicks.map(([t, text]) => (
          <text key={`x${t}`} x={px(t)} y={HEIGHT - BOTTOM + 16} textAnchor="middle">
            {text.length > 14 ? `${text.slice(0, 13)}…` : text}
          </text>
        ))}
        {value.series.map((s, i) => {
          const points = places.map((x, j) => {
            const y = s.values[j] ?? null;
            return y === null ? null : { x: px(x), y: py(y) };
          });
          if (bars) {
            const own = wide / value.series.length;
            return points.map((p, j) =>
              p ? (
                <rect
                  key={`${s.name}${j}`}
                  className={`plot-bar nth-${i % 5}`}
                  x={p.x - wide / 2 + own * i}
                  width={Math.max(1, own - 1)}
                  y={Math.min(p.y, py(0))}
                  height={Math.max(1, Math.abs(p.y - py(0)))}
                />
              ) : null,
            );
          }
          if (value.shape === "scatter") {
            return points.map((p, j) =>
              p ? (
                <circle
                  key={`${s.name}${j}`}
                  className={`plot-point nth-${i % 5}`}
                  cx={p.x}
                  cy={p.y}
                  r={3}
                />
              ) : null,
            );
          }
          return pieces(points).map((piece, j) =>
            piece.length === 1 ? (
              <circle
                key={`${s.name}${j}`}
                className={`plot-point nth-${i % 5}`}
                cx={piece[0]?.x}
                cy={piece[0]?.y}
                r={2.5}
              />
            ) : (
              <polyline
                key={`${s.name}${j}`}
                className={`plot-series nth-${i % 5}`}
                strokeDasharray={DASHES[i % DASHES.length]}
                points={piece.map((p) => `${p.x.toFixed(1)},${p.y.toFixed(1)}`).join(" ")}
              />
            ),
          );
        })}
      </svg>
      <figcaption className="row wrap quiet">
        {value.series.map((s, i) => (
          <span key={s.name} className="row">
            <svg width="22" height="8" aria-hidden="true">
              <line
                x1="0"
                x2="22"
                y1="4"
                y2="4"
                className={`plot-series nth-${i % 5}`}
                strokeDasharray={bars ? "" : DASHES[i % DASHES.length]}
              />
            </svg>
            {s.name}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}
