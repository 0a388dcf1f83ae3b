import { Link, useNavigate } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import { useApi, useList } from "../../api/hooks";
import type { Asset, AssetGraph } from "../../api/types";
import { useAddress } from "../../parts/address";
import { Await, Empty, Loading, SearchField, Segmented } from "../../parts/basics";
import { State } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Ago } from "../../parts/time";
import { useTitle } from "../../shell/crumbs";
import { Fresh } from "./fresh";
import { PartitionBar } from "./partitions";
import { assetPath } from "./path";

const Lineage = lazy(() => import("./lineage"));

export function AssetsView() {
  useTitle("Assets", [{ key: "assets", node: "Assets" }]);
  const [search, set] = useAddress();
  const shown = search.show ?? "list";
  return (
    <div className="view fixed">
      <div className="filters">
        <Segmented
          label="Show"
          value={shown}
          options={[
            ["list", "List"],
            ["lineage", "Lineage"],
          ]}
          onChange={(show) => set({ show: show === "list" ? undefined : show })}
        />
        <SearchField label="Key" value={search.q ?? ""} onChange={(q) => set({ q })} />
        {["failed", "stale", "missing", "ok"].map((health) => (
          <button
            key={health}
            type="button"
            className="chip"
            aria-pressed={search.health === health}
            onClick={() => set({ health: search.health === health ? undefined : health })}
          >
            <State state={health} />
          </button>
        ))}
      </div>
      {shown === "lineage" ? <LineageTab /> : <AssetTable />}
    </div>
  );
}

function LineageTab() {
  const [search] = useAddress();
  const navigate = useNavigate();
  const graph = useApi<AssetGraph>("/assets-graph", {
    focus: search.focus,
    q: search.q,
    depth: search.focus ? 3 : undefined,
  });
  return (
    <Await of={graph} what="the lineage">
      {() =>
        graph.data && graph.data.nodes.length > 0 ? (
          <Suspense fallback={<Loading what="the graph" />}>
            <Lineage
              graph={graph.data}
              focus={search.focus ?? null}
              onOpen={(key) => void navigate({ to: assetPath(key) } as never)}
            />
          </Suspense>
        ) : (
          <NoAssets filtered={Boolean(search.q)} />
        )
      }
    </Await>
  );
}

function NoAssets({ filtered }: { filtered: boolean }) {
  return filtered ? (
    <Empty title="No asset matches the filters" />
  ) : (
    <Empty title="No asset yet">
      <p>
        An asset is data that a task makes: a table, a file, a model. Say it in the workflow, and
        each run records what it made, for which partition, and whether its checks hold.
      </p>
      <pre>{`tasks:\n  load: {python: etl.load, produces: [warehouse/orders]}`}</pre>
    </Empty>
  );
}

function AssetTable() {
  const [search, set] = useAddress();
  const navigate = useNavigate();
  const list = useList<Asset>(
    "/assets",
    { q: search.q, health: search.health, sort: search.sort },
    100,
  );
  const columns: Column<Asset>[] = [
    { key: "health", head: "Health", width: "88px", cell: (a) => <State state={a.health} /> },
    {
      key: "key",
      head: "Asset",
      sort: "key",
      width: "minmax(130px, 1.4fr)",
      cell: (a) => (
        <span className="row">
          <Link to={assetPath(a.key) as never} className="mono strong cut" dir="auto">
            {a.key}
          </Link>
        </span>
      ),
    },
    {
      key: "fresh",
      head: "Freshness",
      wide: true,
      width: "116px",
      cell: (a) =>
        a.freshness.status === "none" ? (
          <span className="quiet">–</span>
        ) : (
          <Fresh freshness={a.freshness} />
        ),
    },
    {
      key: "last",
      head: "Made",
      sort: "last_at",
      width: "84px",
      cell: (a) => <Ago at={a.last?.at} />,
    },
    {
      key: "checks",
      head: "Checks",
      wide: true,
      width: "118px",
      cell: (a) =>
        a.checks.passed + a.checks.failed === 0 ? (
          <span className="quiet">none</span>
        ) : a.checks.failed > 0 ? (
          <State
            state="failed"
            word={`${a.checks.failed} of ${a.checks.passed + a.checks.failed} fail`}
          />
        ) : (
          <span className="quiet">{a.checks.passed} hold</span>
        ),
    },
    {
      key: "partitions",
      head: "Partitions",
      wide: true,
      width: "190px",
      cell: (a) =>
        a.partitions ? (
          <PartitionBar partitions={a.partitions} />
        ) : (
          <span className="quiet">–</span>
        ),
    },
    {
      key: "by",
      head: "Made by",
      wide: true,
      width: "minmax(0, 0.8fr)",
      cell: (a) => <span className="quiet">{a.producers.join(", ")}</span>,
    },
  ];
  return (
    <Await of={list} what="the assets">
      <div className="card fill">
        <Table
          label="Assets"
          columns={columns}
          rows={list.items}
          rowKey={(a) => a.key}
          more={list}
          sort={search.sort ?? "key"}
          onSort={(sort) => set({ sort })}
          onOpen={(a) => void navigate({ to: assetPath(a.key) } as never)}
          empty={<NoAssets filtered={Boolean(search.q || search.health)} />}
        />
      </div>
    </Await>
  );
}
