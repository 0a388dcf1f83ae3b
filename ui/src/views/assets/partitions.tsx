import { Link } from "@tanstack/react-router";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { enc } from "../../api/client";
import { useApi, useList } from "../../api/hooks";
import type { Asset, Partitions } from "../../api/types";
import { type Colours, prepare, readColours } from "../../canvas/colours";
import { formatCount } from "../../model/duration";
import { countsText, lookOf, orderedCounts, wordOf, worstState } from "../../model/states";
import { useAddress } from "../../parts/address";
import { Await, Empty } from "../../parts/basics";
import { Mark, State } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Ago } from "../../parts/time";
import { useDark } from "../../shell/prefs";

export function PartitionBar({ partitions }: { partitions: NonNullable<Asset["partitions"]> }) {
  const { total, present, failed } = partitions;
  const share = (n: number) => `${total === 0 ? 0 : (n / total) * 100}%`;
  return (
    <span
      className="row"
      title={`${present} present, ${failed} failed, ${partitions.missing} missing of ${total}`}
    >
      <span className="counts-bar" style={{ width: 90 }} aria-hidden>
        <i className="look-succeeded" style={{ width: share(present) }} />
        <i className="look-failed" style={{ width: share(failed), minWidth: failed > 0 ? 2 : 0 }} />
      </span>
      <span className="quiet nowrap">
        {formatCount(present)} of {formatCount(total)}
      </span>
    </span>
  );
}

interface Item {
  key: string;
  state: string;
  at: string | null;
  run: string | null;
}

/** One dimension as a strip, two as a matrix; gathered when there are more than pixels. */
export function PartitionsTab({ asset }: { asset: Asset }) {
  const [search, set] = useAddress();
  const path = `/assets/${enc(asset.key)}/partitions`;
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
  const total = asset.partitions?.total ?? 0;
  const head = useApi<Partitions>(path, { offset: 0, limit: 1, dimension_keys: 1 });
  const dimensions = head.data?.dimensions ?? [];
  const [rows, columns] = [dimensions[0]?.total ?? 0, dimensions[1]?.total ?? 0];
  const matrix = dimensions.length === 2 && columns <= 400;
  const buckets = Math.max(50, Math.min(1000, Math.floor(width / 3)));
  const strip = useApi<Partitions>(width > 0 && !matrix && total > 0 ? path : null, { buckets });
  const cells = useApi<Partitions>(matrix ? path : null, {
    offset: Math.max(0, Number(search.offset) || 0),
    limit: matrix ? Math.max(1, Math.floor(20_000 / Math.max(1, columns))) * columns : 1000,
  });
  const list = useList<Item>(path, { state: search.state }, 200);
  const table: Column<Item>[] = [
    { key: "state", head: "State", width: "100px", cell: (p) => <State state={p.state} /> },
    {
      key: "key",
      head: "Partition",
      width: "minmax(0, 1fr)",
      cell: (p) => <span className="mono">{p.key}</span>,
    },
    { key: "at", head: "Made", width: "90px", cell: (p) => <Ago at={p.at} /> },
    {
      key: "run",
      head: "Run",
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
            {() => (strip.data?.buckets ? <Strip buckets={strip.data.buckets} /> : null)}
          </Await>
        )}
        {matrix && rows * columns > 20_000 ? (
          <p className="quiet small">The first {formatCount(20_000)} cells are drawn.</p>
        ) : null}
      </div>
      {total > 0 ? (
        <>
          <div className="filters">
            {["present", "failed", "missing", "running", "stale"].map((state) => (
              <button
                key={state}
                type="button"
                className="chip"
                aria-pressed={search.state === state}
                onClick={() => set({ state: search.state === state ? undefined : state })}
              >
                <Mark state={state} /> {wordOf(state)}
              </button>
            ))}
          </div>
          <Await of={list} what="the list">
            <div className="card fill">
              <Table
                label="Partitions"
                columns={table}
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

function Strip({ buckets }: { buckets: NonNullable<Partitions["buckets"]> }) {
  const first = buckets[0]?.first;
  const last = buckets.at(-1)?.last;
  return (
    <figure>
      <div className="strip" role="img" aria-label={`Partitions from ${first} to ${last}`}>
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
  items: Item[];
  columns: number;
  width: number;
  names: [string, string];
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = useDark();
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
          const box = event.currentTarget.getBoundingClientRect();
          const x = Math.floor((event.clientX - box.left) / cell);
          const y = Math.floor((event.clientY - box.top) / cell);
          const index = turned ? x * columns + y : y * columns + x;
          const item = items[index];
          setTip(item ? `${item.key}: ${wordOf(item.state)}` : null);
        }}
        onPointerLeave={() => setTip(null)}
      />
      <figcaption className="quiet small mono">
        {tip ?? `${names[turned ? 1 : 0]} down, ${names[turned ? 0 : 1]} across`}
      </figcaption>
    </figure>
  );
}
