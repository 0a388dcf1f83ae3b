// One table for every long list: rows are virtual, pages are read as they come into view.

import { useVirtualizer } from "@tanstack/react-virtual";
import { type CSSProperties, memo, type ReactNode, useEffect, useRef } from "react";

export interface Column<T> {
  key: string;
  head: ReactNode;
  /** A grid track: `90px`, `minmax(120px, 1fr)`. */
  width: string;
  cell: (row: T) => ReactNode;
  sort?: string;
  end?: boolean;
  /** Left out below 760 px. */
  wide?: boolean;
}

export interface TableProps<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  rowKey: (row: T) => string;
  rowHeight?: number;
  onOpen?: (row: T) => void;
  chosen?: string | null;
  sort?: string | undefined;
  onSort?: (sort: string) => void;
  more?: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown };
  empty?: ReactNode;
  selection?: { ids: Set<string>; set: (ids: Set<string>) => void };
}

export function Table<T>(props: TableProps<T>) {
  const { columns, rows, rowKey, rowHeight = 36, onOpen, more, selection } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 12,
    getItemKey: (index) => {
      const row = rows[index];
      return row === undefined ? index : rowKey(row);
    },
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? -1;
  useEffect(() => {
    if (more?.hasNextPage && !more.isFetchingNextPage && last >= rows.length - 20) {
      void more.fetchNextPage();
    }
  }, [last, rows.length, more]);

  const tracks = (list: Column<T>[]) =>
    [selection ? "18px" : null, ...list.map((column) => column.width)].filter(Boolean).join(" ");
  const style = {
    "--columns": tracks(columns),
    "--columns-narrow": tracks(columns.filter((column) => !column.wide)),
  } as CSSProperties;

  const onKey = (event: React.KeyboardEvent<HTMLDivElement>) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const row = (event.target as HTMLElement).closest<HTMLElement>("[data-index]");
    if (!row) return;
    event.preventDefault();
    const next = Number(row.dataset.index) + (event.key === "ArrowDown" ? 1 : -1);
    if (next < 0 || next >= rows.length) return;
    virtual.scrollToIndex(next);
    requestAnimationFrame(() => {
      scroller.current?.querySelector<HTMLElement>(`[data-index="${next}"]`)?.focus();
    });
  };

  if (rows.length === 0 && props.empty) return <>{props.empty}</>;
  const allChosen =
    selection !== undefined && rows.length > 0 && selection.ids.size === rows.length;
  return (
    <div className="table-scroll" ref={scroller} style={style}>
      {/* biome-ignore lint/a11y/useSemanticElements: a virtual list of grid rows, not a table element */}
      <div role="table" aria-label={props.label} aria-rowcount={rows.length + 1} className="table">
        {/* biome-ignore lint/a11y/useSemanticElements: see above */}
        <div className="tr head" role="row" aria-rowindex={1}>
          {selection ? (
            // biome-ignore lint/a11y/useSemanticElements: see above
            <span role="columnheader">
              <input
                type="checkbox"
                aria-label="Choose all that are shown"
                checked={allChosen}
                onChange={() => selection.set(allChosen ? new Set() : new Set(rows.map(rowKey)))}
              />
            </span>
          ) : null}
          {columns.map((column) => {
            const key = column.sort;
            const ascending = key !== undefined && props.sort === key;
            const descending = key !== undefined && props.sort === `-${key}`;
            return (
              // biome-ignore lint/a11y/useSemanticElements: see above
              <span
                key={column.key}
                role="columnheader"
                className={cellClass(column)}
                {...(ascending || descending
                  ? { "aria-sort": ascending ? "ascending" : "descending" }
                  : {})}
              >
                {key && props.onSort ? (
                  <button
                    type="button"
                    onClick={() => props.onSort?.(descending ? key : `-${key}`)}
                  >
                    {column.head}
                    {ascending ? " ↑" : descending ? " ↓" : ""}
                  </button>
                ) : (
                  column.head
                )}
              </span>
            );
          })}
        </div>
        {/* biome-ignore lint/a11y/useSemanticElements: see above */}
        <div
          role="rowgroup"
          style={{ height: virtual.getTotalSize(), position: "relative" }}
          onKeyDown={onKey}
        >
          {items.map((item) => {
            const row = rows[item.index];
            if (row === undefined) return null;
            const key = rowKey(row);
            return (
              <Row
                key={item.key}
                row={row}
                id={key}
                index={item.index}
                start={item.start}
                height={rowHeight}
                columns={columns}
                chosen={props.chosen === key}
                onOpen={onOpen}
                selection={selection}
                selected={selection?.ids.has(key) ?? false}
              />
            );
          })}
        </div>
      </div>
      {more?.isFetchingNextPage ? (
        <div className="loading" role="status">
          Reading more…
        </div>
      ) : null}
    </div>
  );
}

interface RowProps<T> {
  row: T;
  id: string;
  index: number;
  start: number;
  height: number;
  columns: Column<T>[];
  chosen: boolean;
  selected: boolean;
  onOpen: ((row: T) => void) | undefined;
  selection: TableProps<T>["selection"];
}

function PlainRow<T>(props: RowProps<T>) {
  const { row, id, columns, onOpen, selection } = props;
  return (
    // biome-ignore lint/a11y/useSemanticElements: see above
    <div
      role="row"
      tabIndex={onOpen ? 0 : -1}
      aria-rowindex={props.index + 2}
      data-index={props.index}
      className={`tr virtual${onOpen ? " link" : ""}${props.chosen ? " chosen" : ""}`}
      style={{ height: props.height, transform: `translateY(${props.start}px)` }}
      onClick={(event) => {
        if ((event.target as HTMLElement).closest("a, button, input, label, select")) return;
        if (window.getSelection()?.toString()) return;
        onOpen?.(row);
      }}
      onKeyDown={(event) => {
        if (event.target !== event.currentTarget) return;
        if (event.key === "Enter") onOpen?.(row);
        if (event.key === " " && selection) {
          event.preventDefault();
          toggle(selection, id);
        }
      }}
    >
      {selection ? (
        // biome-ignore lint/a11y/useSemanticElements: see above
        <span role="cell">
          <input
            type="checkbox"
            aria-label="Choose this row"
            checked={props.selected}
            onChange={() => toggle(selection, id)}
          />
        </span>
      ) : null}
      {columns.map((column) => (
        // biome-ignore lint/a11y/useSemanticElements: see above
        <span key={column.key} role="cell" className={`cut ${cellClass(column)}`}>
          {column.cell(row)}
        </span>
      ))}
    </div>
  );
}

// While a table scrolls only the rows that come into view are rendered.
const Row = memo(PlainRow) as typeof PlainRow;

function cellClass<T>(column: Column<T>): string {
  return [column.end ? "end" : "", column.wide ? "wide-only" : ""].join(" ").trim();
}

function toggle(selection: { ids: Set<string>; set: (ids: Set<string>) => void }, key: string) {
  const next = new Set(selection.ids);
  if (!next.delete(key)) next.add(key);
  selection.set(next);
}
