// Lines over two axes: metrics and durations. SVG, few points, no library.

import { formatCount } from "../model/duration";

export interface PlotValue {
  series: { name: string; x: number[]; y: number[] }[];
  x_label?: string;
  y_label?: string;
}

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

export function Plot({ value }: { value: PlotValue }) {
  const series = value.series.filter((s) => s.x.length > 0 && s.x.length === s.y.length);
  const xs = series.flatMap((s) => s.x).filter(Number.isFinite);
  const ys = series.flatMap((s) => s.y).filter(Number.isFinite);
  if (xs.length === 0 || ys.length === 0) return <p className="quiet">The plot has no points.</p>;
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const [width, height, left, bottom] = [640, 280, 52, 34];
  const px = (x: number) => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - 12);
  const py = (y: number) => height - bottom - ((y - y0) / (y1 - y0 || 1)) * (height - bottom - 12);
  return (
    <figure className="plot">
      <svg
        viewBox={`0 0 ${width} ${height}`}
        role="img"
        aria-label={series.map((s) => s.name).join(", ")}
      >
        {axisTicks(y0, y1).map((t) => (
          <g key={`y${t}`}>
            <line x1={left} x2={width - 12} y1={py(t)} y2={py(t)} className="plot-line" />
            <text x={left - 6} y={py(t) + 4} textAnchor="end">
              {tick(t)}
            </text>
          </g>
        ))}
        {axisTicks(x0, x1, 7).map((t) => (
          <text key={`x${t}`} x={px(t)} y={height - bottom + 16} textAnchor="middle">
            {tick(t)}
          </text>
        ))}
        {series.map((s, i) => (
          <polyline
            key={s.name}
            className="plot-series"
            strokeDasharray={DASHES[i % DASHES.length]}
            points={s.x
              .map((x, j) => `${px(x).toFixed(1)},${py(s.y[j] ?? 0).toFixed(1)}`)
              .join(" ")}
          />
        ))}
        <text x={(width + left) / 2} y={height - 3} textAnchor="middle">
          {value.x_label}
        </text>
      </svg>
      <figcaption className="row wrap quiet">
        {value.y_label ? <span>{value.y_label}:</span> : null}
        {series.map((s, i) => (
          <span key={s.name} className="row">
            <svg width="22" height="8" aria-hidden="true">
              <line
                x1="0"
                x2="22"
                y1="4"
                y2="4"
                className="plot-series"
                strokeDasharray={DASHES[i % DASHES.length]}
              />
            </svg>
            {s.name}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}
