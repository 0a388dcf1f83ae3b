// ANSI colours of a log line as spans of plain text. React escapes the text; nothing here makes
// HTML, and every sequence other than colour and weight is dropped.

export interface Span {
  text: string;
  /** Class names of the log's style sheet, or empty. */
  style: string;
}

interface Pen {
  fg: string;
  bg: string;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  inverse: boolean;
}

const fresh = (): Pen => ({
  fg: "",
  bg: "",
  bold: false,
  dim: false,
  italic: false,
  underline: false,
  inverse: false,
});

// CSI, OSC (ended by BEL or ST), other two-character escapes, and lone control characters.
const ESCAPE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /\u001b\[([0-9;:]*)([ -/]*)([@-~])|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[ -/]*[0-~]?|[\u0000-\u0008\u000b-\u001a\u001c-\u001f\u007f]/g;

function styleOf(pen: Pen): string {
  const names: string[] = [];
  const fg = pen.inverse ? pen.bg || "0" : pen.fg;
  const bg = pen.inverse ? pen.fg || "7" : pen.bg;
  if (fg) names.push(`a-f${fg}`);
  if (bg) names.push(`a-b${bg}`);
  if (pen.bold) names.push("a-bold");
  if (pen.dim) names.push("a-dim");
  if (pen.italic) names.push("a-italic");
  if (pen.underline) names.push("a-under");
  return names.join(" ");
}

// The 256-colour cube and true colour are brought to the nearest of the sixteen, so that the theme
// keeps its contrast.
const SIXTEEN: [number, number, number][] = [
  [0, 0, 0],
  [205, 49, 49],
  [13, 188, 121],
  [229, 229, 16],
  [36, 114, 200],
  [188, 63, 188],
  [17, 168, 205],
  [204, 204, 204],
  [102, 102, 102],
  [241, 76, 76],
  [35, 209, 139],
  [245, 245, 67],
  [59, 142, 234],
  [214, 112, 214],
  [41, 184, 219],
  [255, 255, 255],
];

function nearest(r: number, g: number, b: number): string {
  let best = 0;
  let distance = Number.POSITIVE_INFINITY;
  SIXTEEN.forEach(([cr, cg, cb], i) => {
    const d = (r - cr) ** 2 + (g - cg) ** 2 + (b - cb) ** 2;
    if (d < distance) {
      distance = d;
      best = i;
    }
  });
  return String(best);
}

function from256(n: number): string {
  if (n < 16) return String(n);
  if (n >= 232) {
    const v = 8 + (n - 232) * 10;
    return nearest(v, v, v);
  }
  const i = n - 16;
  const level = (v: number) => (v === 0 ? 0 : 55 + v * 40);
  return nearest(level(Math.floor(i / 36)), level(Math.floor(i / 6) % 6), level(i % 6));
}

function apply(pen: Pen, codes: number[]): void {
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i] ?? 0;
    if (code === 0) Object.assign(pen, fresh());
    else if (code === 1) pen.bold = true;
    else if (code === 2) pen.dim = true;
    else if (code === 3) pen.italic = true;
    else if (code === 4) pen.underline = true;
    else if (code === 7) pen.inverse = true;
    else if (code === 22) {
      pen.bold = false;
      pen.dim = false;
    } else if (code === 23) pen.italic = false;
    else if (code === 24) pen.underline = false;
    else if (code === 27) pen.inverse = false;
    else if (code >= 30 && code <= 37) pen.fg = String(code - 30);
    else if (code >= 40 && code <= 47) pen.bg = String(code - 40);
    else if (code >= 90 && code <= 97) pen.fg = String(code - 82);
    else if (code >= 100 && code <= 107) pen.bg = String(code - 92);
    else if (code === 39) pen.fg = "";
    else if (code === 49) pen.bg = "";
    else if (code === 38 || code === 48) {
      const target = code === 38 ? "fg" : "bg";
      if (codes[i + 1] === 5) {
        const n = codes[i + 2] ?? 0;
        if (n >= 0 && n <= 255) pen[target] = from256(n);
        i += 2;
      } else if (codes[i + 1] === 2) {
        pen[target] = nearest(codes[i + 2] ?? 0, codes[i + 3] ?? 0, codes[i + 4] ?? 0);
        i += 4;
      }
    }
  }
}

/** Splits a line into styled spans. A carriage return drops what a terminal would overwrite. */
export function ansiSpans(line: string): Span[] {
  const last = line.replace(/\r+$/, "");
  const text = last.includes("\r") ? last.slice(last.lastIndexOf("\r") + 1) : last;
  const spans: Span[] = [];
  const pen = fresh();
  let from = 0;
  const push = (to: number) => {
    if (to > from) spans.push({ text: text.slice(from, to), style: styleOf(pen) });
  };
  for (const match of text.matchAll(ESCAPE)) {
    push(match.index);
    from = match.index + match[0].length;
    if (match[3] === "m" && !match[2]) {
      apply(
        pen,
        (match[1] ?? "").split(/[;:]/).map((code) => (code === "" ? 0 : Number(code))),
      );
    }
  }
  push(text.length);
  return spans;
}

export function plainText(line: string): string {
  return ansiSpans(line)
    .map((span) => span.text)
    .join("");
}

/** Cuts spans further so that each found range can be marked. Ranges are over the plain text. */
export function markSpans(
  spans: Span[],
  ranges: [start: number, end: number][],
): (Span & { marked: boolean })[] {
  const out: (Span & { marked: boolean })[] = [];
  let offset = 0;
  for (const span of spans) {
    const end = offset + span.text.length;
    let at = offset;
    for (const [from, to] of ranges) {
      if (to <= at || from >= end) continue;
      const start = Math.max(from, at);
      const stop = Math.min(to, end);
      if (start > at) {
        out.push({
          text: span.text.slice(at - offset, start - offset),
          style: span.style,
          marked: false,
        });
      }
      out.push({
        text: span.text.slice(start - offset, stop - offset),
        style: span.style,
        marked: true,
      });
      at = stop;
    }
    if (at < end)
      out.push({ text: span.text.slice(at - offset), style: span.style, marked: false });
    offset = end;
  }
  return out;
}

/** Where a searched text occurs in a plain line. A pattern that is no regular expression finds
 * nothing. */
export function findRanges(
  text: string,
  query: string,
  options: { regex: boolean; matchCase: boolean },
): [number, number][] {
  if (query === "") return [];
  let pattern: RegExp;
  try {
    const source = options.regex ? query : query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    pattern = new RegExp(source, options.matchCase ? "g" : "gi");
  } catch {
    return [];
  }
  const ranges: [number, number][] = [];
  for (const match of text.matchAll(pattern)) {
    if (match[0].length > 0) ranges.push([match.index, match.index + match[0].length]);
    if (ranges.length >= 500) break;
  }
  return ranges;
}
