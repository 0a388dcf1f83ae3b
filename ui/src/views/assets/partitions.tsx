import { Link, useNavigate } from "@tanstack/react-router";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { enc } from "../../api/client";
import { useApi, useList } from "../../api/hooks";
import type { Asset, Partition, Partitions } from "../../api/types";
import { type Colours, prepare, readColours } from "../../canvas/colours";
import { formatCount } from "../../model/duration";
import { countsText, lookOf, orderedCounts, wordOf, worstState } from "../../model/states";
import { useAddress } from "../../parts/address";
import { Await, Empty, SearchField } from "../../parts/basics";
import { Mark, State } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Ago } from "../../parts/time";
import { useDark } from "../../shell/prefs";

export function PartitionBar({ partitions }: { partitions: NonNullable<Asset["partitions"]> }) {
  const { total, present, failed } = partitions;
  const share = (n: number) => `${total === 0 ? 0 : (n / total) * 100}%`;
  return (
    <span className="row" title={`${present} of ${total} have data`}>
      <span className="counts-bar" style={{ width: 90 }} aria-hidden>
        <i
          className="look-succeeded"
          style={{ width: share(present), minWidth: present > 0 ? 2 : 0 }}
        />
        {failed ? (
          <i className="look-failed" style={{ width: share(failed), minWidth: 2 }} />
        ) : null}
      </span>
      <span className="quiet nowrap">
        {formatCount(present)} of {formatCount(total)}
      </span>
    </span>
  );
}

/** Cells of a matrix's page: more would be smaller than a finger. */
const CELLS = 8_000;

const COLUMNS: Column<Partition>[] = [
  { key: "state", head: "State", width: "100px", cell: (p) => <State state={p.state} /> },
  {
    key: "key",
    head: "Partition",
    width: "minmax(0, 1fr)",
    cell: (p) =>
      p.run ? (
        <Link to="/runs/$id" params={{ id: p.run }} className="mono">
          {p.key}
        </Link>
      ) : (
        <span className="mono">{p.key}</span>
      ),
  },
  { key: "at", head: "Made", wide: true, width: "90px", cell: (p) => <Ago at={p.at} /> },
  {
    key: "run",
    head: "Run",
    wide: true,
    width: "90px",
    cell: (p) =>
      p.run ? (
        <Link to="/runs/$id" params={{ id: p.run }} className="mono">
          {p.run.slice(-8)}
        </Link>
      ) : (
        <span className="quiet">–</span>
      ),
  },
];

function useWidth() {
  const [width, setWidth] = useState(0);
  const host = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = host.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    setWidth(element.clientWidth);
    return () => observer.disconnect();
  }, []);
  return { host, width };
}

/** One dimension as a strip, two as a matrix; gathered when there are more than pixels. */
export function PartitionsTab({ asset }: { asset: Asset }) {
  const [search, set] = useAddress();
  const path = `/assets/${enc(asset.key)}/partitions`;
  const { host, width } = useWidth();
  const total = asset.partitions?.total ?? 0;
  const head = useApi<Partitions>(total > 0 ? path : null, { offset: 0, limit: 1 });
  const dimensions = head.data?.dimensions ?? [];
  const [rows, columns] = [dimensions[0]?.total ?? 0, dimensions[1]?.total ?? 0];
  const matrix = dimensions.length === 2 && columns > 0 && columns <= 400;
  const buckets = Math.max(50, Math.min(1000, Math.floor(width / 3)));
  const strip = useApi<Partitions>(width > 0 && head.data && !matrix && total > 0 ? path : null, {
    buckets,
  });
  // A page of whole rows; the last one, which is the newest, first.
  const across = Math.max(
    1,
    Math.min(Math.floor(CELLS / Math.max(1, columns)), Math.floor(width / 9)),
  );
  const newest = Math.max(0, rows - across);
  const asked = search.offset === undefined ? newest : Math.floor(Number(search.offset) || 0);
  const row = Math.min(Math.max(0, asked), newest);
  const cells = useApi<Partitions>(matrix && width > 0 ? path : null, {
    offset: row * columns,
    limit: across * columns,
  });
  const list = useList<Partition>(
    total > 0 ? path : null,
    { state: search.state, from_key: search.from, newest: search.from ? undefined : true },
    200,
  );
  return (
    <div className="stack fill-column">
      <div ref={host}>
        {total === 0 ? (
          <Empty title="It has no partitions">
            <p>It is made whole each time. Its history says when.</p>
          </Empty>
        ) : matrix ? (
          <Await of={cells} what="the partitions">
            {() =>
              cells.data?.items ? (
                <Matrix
                  items={cells.data.items}
                  columns={columns}
                  width={width}
                  names={[dimensions[0]?.name ?? "", dimensions[1]?.name ?? ""]}
                />
              ) : null
            }
          </Await>
        ) : (
          <Await of={strip} what="the partitions">
            {() =>
              strip.data?.buckets ? (
                <Strip buckets={strip.data.buckets} onChoose={(from) => set({ from })} />
              ) : null
            }
          </Await>
        )}
        {matrix && rows > across ? (
          <div className="row">
            <button
              type="button"
              className="button small"
              disabled={row === 0}
              onClick={() => set({ offset: String(Math.max(0, row - across)) })}
            >
              Older
            </button>
            <button
              type="button"
              className="button small"
              disabled={row === newest}
              onClick={() =>
                set({ offset: row + across >= newest ? undefined : String(row + across) })
              }
            >
              Newer
            </button>
            <span className="quiet small">
              {dimensions[0]?.name} {formatCount(row + 1)} to{" "}
              {formatCount(Math.min(rows, row + across))} of {formatCount(rows)}
            </span>
          </div>
        ) : null}
      </div>
      {total > 0 ? (
        <>
          <div className="filters">
            <SearchField
              label="From partition"
              value={search.from ?? ""}
              onChange={(from) => set({ from })}
            />
            {["present", "failed", "missing", "running"].map((state) => (
              <button
                key={state}
                type="button"
                className="chip"
                aria-pressed={search.state === state}
                onClick={() => set({ state: search.state === state ? undefined : state })}
              >
                <Mark state={state} /> {wordOf(state)}
                {head.data ? (
                  <span className="quiet">{formatCount(head.data.counts[state] ?? 0)}</span>
                ) : null}
              </button>
            ))}
          </div>
          <Await of={list} what="the list">
            <div className="card fill">
              <Table
                label="Partitions"
                columns={COLUMNS}
                rows={list.items}
                rowKey={(p) => p.key}
                rowHeight={30}
                more={list}
                empty={<Empty title="No partition of that state" />}
              />
            </div>
          </Await>
        </>
      ) : null}
    </div>
  );
}

function Strip({
  buckets,
  onChoose,
}: {
  buckets: NonNullable<Partitions["buckets"]>;
  onChoose: (first: string) => void;
}) {
  const first = buckets[0]?.first;
  const last = buckets.at(-1)?.last;
  return (
    <figure>
      {/* biome-ignore lint/a11y/useKeyWithClickEvents: the field below does the same by keyboard */}
      <div
        className="strip"
        role="img"
        aria-label={`Partitions from ${first} to ${last}`}
        onClick={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          const share = (event.clientX - box.left) / box.width;
          const bucket = buckets[Math.floor(share * buckets.length)];
          if (bucket) onChoose(bucket.first);
        }}
      >
        {buckets.map((bucket) => {
          const parts = orderedCounts(bucket.counts);
          return (
            <span
              key={bucket.offset}
              title={`${bucket.first}${bucket.count > 1 ? ` to ${bucket.last}` : ""}: ${countsText(bucket.counts)}`}
            >
              {parts.map(([state, n]) => (
                <i
                  key={state}
                  className={`look-${lookOf(state)} p-${state}`}
                  style={{ flexGrow: n }}
                />
              ))}
            </span>
          );
        })}
      </div>
      <figcaption className="row quiet small">
        <span className="grow mono">{first}</span>
        <span className="mono">{last}</span>
      </figcaption>
    </figure>
  );
}

function Matrix({
  items,
  columns,
  width,
  names,
}: {
  items: Partition[];
  columns: number;
  width: number;
  names: [string, string];
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = useDark();
  const navigate = useNavigate();
  const [tip, setTip] = useState<string | null>(null);
  const count = Math.ceil(items.length / columns);
  // The longer dimension lies across.
  const turned = count > columns;
  const [across, down] = turned ? [count, columns] : [columns, count];
  const cell = Math.max(3, Math.min(16, Math.floor(width / across), Math.floor(320 / down)));
  // biome-ignore lint/correctness/useExhaustiveDependencies: another theme, other colours
  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const colours: Colours = readColours(element);
    const context = prepare(element, across * cell, down * cell);
    if (!context) return;
    const gap = cell > 6 ? 1 : 0;
    items.forEach((item, i) => {
      const [a, b] = [i % columns, Math.floor(i / columns)];
      const x = (turned ? b : a) * cell;
      const y = (turned ? a : b) * cell;
      const look = lookOf(item.state);
      context.fillStyle = colours.look[look];
      context.globalAlpha = item.state === "missing" ? 0.22 : 1;
      context.fillRect(x, y, cell - gap, cell - gap);
      context.globalAlpha = 1;
      if (item.state === "failed" && cell > 6) {
        context.fillStyle = colours.panel;
        context.fillRect(x + cell / 2 - 1, y + 2, 2, cell - 5);
      }
    });
  }, [items, columns, cell, across, down, turned, dark]);
  const at = (event: React.MouseEvent<HTMLCanvasElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / cell);
    const y = Math.floor((event.clientY - box.top) / cell);
    return items[turned ? x * columns + y : y * columns + x];
  };
  const worst = worstState(
    items.reduce<Record<string, number>>((acc, item) => {
      acc[item.state] = (acc[item.state] ?? 0) + 1;
      return acc;
    }, {}),
  );
  return (
    <figure
      className="matrix"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region is reached by keyboard
      tabIndex={0}
    >
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${count} ${names[0]} by ${columns} ${names[1]}; worst is ${worst ?? "none"}`}
        onPointerMove={(event) => {
          const item = at(event);
          setTip(item ? `${item.key}: ${wordOf(item.state)}` : null);
        }}
        onClick={(event) => {
          const run = at(event)?.run;
          if (run) void navigate({ to: "/runs/$id", params: { id: run } });
        }}
        onPointerLeave={() => setTip(null)}
      />
      <figcaption className="quiet small mono">
        {tip ?? `${names[turned ? 1 : 0]} down, ${names[turned ? 0 : 1]} across`}
      </figcaption>
    </figure>
  );
}
