// The theme's colours for canvases, read once per theme.

import type { Look } from "../model/states";

const LOOKS: Look[] = [
  "succeeded",
  "running",
  "failed",
  "waiting",
  "skipped",
  "upstream",
  "suspended",
  "queued",
  "cancelled",
  "pending",
];

export interface Colours {
  look: Record<Look, string>;
  panel: string;
  line: string;
  lineStrong: string;
  ink: string;
  ink2: string;
  ink3: string;
  hover: string;
  chosen: string;
  focus: string;
  font: string;
}

export function readColours(element: Element): Colours {
  const style = getComputedStyle(element);
  const value = (name: string) => style.getPropertyValue(`--${name}`).trim() || "#888";
  return {
    look: Object.fromEntries(LOOKS.map((look) => [look, value(look)])) as Record<Look, string>,
    panel: value("panel"),
    line: value("line"),
    lineStrong: value("line-strong"),
    ink: value("ink"),
    ink2: value("ink-2"),
    ink3: value("ink-3"),
    hover: value("hover"),
    chosen: value("chosen"),
    focus: value("focus"),
    font: value("sans"),
  };
}

/** Sizes a canvas for the screen's pixels and answers its cleared context. */
export function prepare(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
): CanvasRenderingContext2D | null {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context?.setTransform(ratio, 0, 0, ratio, 0, 0);
  context?.clearRect(0, 0, width, height);
  return context;
}

/** A state's shape inside a square cell, so that colour never speaks alone. */
export function drawState(
  context: CanvasRenderingContext2D,
  look: Look,
  colours: Colours,
  x: number,
  y: number,
  size: number,
): void {
  const colour = colours.look[look];
  const r = 2;
  context.fillStyle = colour;
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  const box = (inset: number) => {
    context.beginPath();
    context.roundRect(x + inset, y + inset, size - 2 * inset, size - 2 * inset, r);
  };
  const mark = colours.panel;
  switch (look) {
    case "succeeded":
      box(0);
      context.fill();
      break;
    case "failed":
      box(0);
      context.fill();
      context.strokeStyle = mark;
      context.beginPath();
      context.moveTo(x + size * 0.3, y + size * 0.3);
      context.lineTo(x + size * 0.7, y + size * 0.7);
      context.moveTo(x + size * 0.7, y + size * 0.3);
      context.lineTo(x + size * 0.3, y + size * 0.7);
      context.stroke();
      break;
    case "running":
      box(0.75);
      context.stroke();
      context.fillRect(x + size / 2, y + 1, size / 2 - 1, size - 2);
      break;
    case "skipped":
      box(0.75);
      context.stroke();
      break;
    case "upstream":
      context.setLineDash([2, 2]);
      box(0.75);
      context.stroke();
      context.setLineDash([]);
      break;
    case "waiting":
      box(0.75);
      context.stroke();
      context.beginPath();
      context.moveTo(x + size / 2, y + 3);
      context.lineTo(x + size / 2, y + size / 2);
      context.lineTo(x + size - 3.5, y + size / 2);
      context.stroke();
      break;
    case "suspended":
      context.fillRect(x + size * 0.2, y + 2, size * 0.22, size - 4);
      context.fillRect(x + size * 0.58, y + 2, size * 0.22, size - 4);
      break;
    case "cancelled":
      box(0.75);
      context.stroke();
      context.beginPath();
      context.moveTo(x + 3, y + size - 3);
      context.lineTo(x + size - 3, y + 3);
      context.stroke();
      break;
    case "queued":
      context.fillRect(x + size * 0.25, y + size * 0.25, size * 0.5, size * 0.5);
      break;
    default:
      context.beginPath();
      context.arc(x + size / 2, y + size / 2, 1.8, 0, Math.PI * 2);
      context.fill();
  }
}
