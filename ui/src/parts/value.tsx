import { useState } from "react";

/** A JSON value: short ones in a line, long ones folded. */
export function Value({ value, empty }: { value: unknown; empty?: string }) {
  const [open, setOpen] = useState(false);
  const nothing =
    value === null ||
    value === undefined ||
    (typeof value === "object" && Object.keys(value).length === 0);
  if (nothing) return <span className="quiet">{empty ?? "null"}</span>;
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const lines = text.split("\n");
  const long = lines.length > 14 || text.length > 1500;
  const shown = long && !open ? lines.slice(0, 14).join("\n").slice(0, 1500) : text;
  return (
    <div className="value">
      <pre dir="auto">{shown}</pre>
      {long ? (
        <button type="button" className="button plain" onClick={() => setOpen(!open)}>
          {open ? "Show less" : `Show all ${lines.length} lines`}
        </button>
      ) : null}
    </div>
  );
}
