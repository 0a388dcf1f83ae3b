// A small, safe part of Markdown: headings, lists, code, emphasis, tables, links. It makes React
// elements and never HTML, so hostile text stays text.

import type { ReactNode } from "react";

function safeHref(href: string): string | null {
  return /^(https?:|mailto:)/i.test(href) ? href : null;
}

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^)\s]+)\)/g;

export function inline(text: string): ReactNode[] {
  const out: ReactNode[] = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > from) out.push(text.slice(from, match.index));
    from = match.index + match[0].length;
    const key = match.index;
    if (match[1] !== undefined) out.push(<code key={key}>{match[1]}</code>);
    else if (match[2] !== undefined) out.push(<strong key={key}>{match[2]}</strong>);
    else if (match[3] !== undefined) out.push(<em key={key}>{match[3]}</em>);
    else {
      const href = safeHref(match[5] ?? "");
      out.push(
        href ? (
          <a key={key} href={href} rel="noreferrer noopener" target="_blank" className="text-link">
            {match[4]}
          </a>
        ) : (
          match[0]
        ),
      );
    }
  }
  if (from < text.length) out.push(text.slice(from));
  return out;
}

const cells = (line: string): string[] =>
  line
    .replace(/^\s*\||\|\s*$/g, "")
    .split("|")
    .map((cell) => cell.trim());

export default function Markdown({ text }: { text: string }) {
  const lines = text.split(/\r?\n/);
  const blocks: ReactNode[] = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i] ?? "";
    const key = i;
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (line.trim() === "") {
      i += 1;
    } else if (line.startsWith("```")) {
      const body: string[] = [];
      i += 1;
      while (i < lines.length && !lines[i]?.startsWith("```")) {
        body.push(lines[i] ?? "");
        i += 1;
      }
      i += 1;
      blocks.push(
        <pre key={key} className="sample">
          {body.join("\n")}
        </pre>,
      );
    } else if (heading) {
      const Tag = (heading[1]?.length ?? 1) <= 2 ? "h2" : "h3";
      blocks.push(<Tag key={key}>{inline(heading[2] ?? "")}</Tag>);
      i += 1;
    } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[i + 1] ?? "")) {
      const head = cells(line);
      const rows: string[][] = [];
      i += 2;
      while (i < lines.length && /^\s*\|.*\|\s*$/.test(lines[i] ?? "")) {
        rows.push(cells(lines[i] ?? ""));
        i += 1;
      }
      blocks.push(
        <div key={key} className="preview-table">
          <table>
            <thead>
              <tr>
                {head.map((cell, j) => (
                  <th key={j} scope="col">
                    {inline(cell)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((row, r) => (
                <tr key={r}>
                  {row.map((cell, j) => (
                    <td key={j}>{inline(cell)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>,
      );
    } else if (/^\s*([-*]|\d+\.)\s+/.test(line)) {
      const items: string[] = [];
      while (i < lines.length && /^\s*([-*]|\d+\.)\s+/.test(lines[i] ?? "")) {
        items.push((lines[i] ?? "").replace(/^\s*([-*]|\d+\.)\s+/, ""));
        i += 1;
      }
      const List = /^\s*\d/.test(line) ? "ol" : "ul";
      blocks.push(
        <List key={key} className="bullets">
          {items.map((item, j) => (
            <li key={j}>{inline(item)}</li>
          ))}
        </List>,
      );
    } else {
      const body: string[] = [];
      while (
        i < lines.length &&
        (lines[i] ?? "").trim() !== "" &&
        !/^(#|```)/.test(lines[i] ?? "")
      ) {
        body.push(lines[i] ?? "");
        i += 1;
      }
      blocks.push(<p key={key}>{inline(body.join(" "))}</p>);
    }
  }
  return <div className="markdown stack">{blocks}</div>;
}
