import { Link, useParams } from "@tanstack/react-router";
import { enc, type Query } from "../../api/client";
import { useApi, useList } from "../../api/hooks";
import type { AssetDetail, AssetEvent } from "../../api/types";
import { useAddress } from "../../parts/address";
import { Await, Empty } from "../../parts/basics";
import { Mark, State } from "../../parts/mark";
import { type Column, Table } from "../../parts/table";
import { Tabs } from "../../parts/tabs";
import { Ago } from "../../parts/time";
import { Value } from "../../parts/value";
import { useTitle } from "../../shell/crumbs";
import { Fresh } from "./fresh";
import { PartitionsTab } from "./partitions";
import { assetPath } from "./path";

export function AssetView() {
  const { _splat } = useParams({ strict: false }) as { _splat: string };
  const key = _splat;
  const asset = useApi<AssetDetail>(`/assets/${enc(key)}`, {}, { keep: false });
  useTitle(key, [
    { key: "assets", node: <Link to="/assets">Assets</Link> },
    { key, node: <span className="mono">{key}</span> },
  ]);
  const data = asset.data;
  return (
    <div className="view fixed">
      <Await of={asset} what="the asset">
        {() => (data ? <AssetBody asset={data} /> : null)}
      </Await>
    </div>
  );
}

function AssetBody({ asset }: { asset: AssetDetail }) {
  const [search] = useAddress();
  const tab = search.tab ?? (asset.partitions ? "partitions" : "history");
  const producer = asset.producers[0];
  return (
    <>
      <div className="page-head">
        <div className="row wrap">
          <State state={asset.health} />
          <h1 className="mono cut" dir="auto">
            {asset.key}
          </h1>
          <span className="grow" />
          <Link
            to="/assets"
            search={{ show: "lineage", focus: asset.key } as never}
            className="button"
          >
            Lineage
          </Link>
          {producer ? (
            <Link
              to="/backfills"
              search={{ new: "1", workflow: producer, only: "missing" } as never}
              className="button"
            >
              Backfill missing…
            </Link>
          ) : null}
        </div>
        <div className="row wrap quiet" style={{ gap: "2px 16px" }}>
          {asset.freshness.status === "none" ? null : <Fresh freshness={asset.freshness} />}
          <span>
            made <Ago at={asset.last?.at} />
            {asset.last?.run ? (
              <>
                {" by "}
                <Link to="/runs/$id" params={{ id: asset.last.run }} className="text-link">
                  run {asset.last.run.slice(-8)}
                </Link>
              </>
            ) : null}
          </span>
          {asset.producers.map((name) => (
            <Link key={name} to="/workflows/$name" params={{ name }} className="text-link">
              {name}
            </Link>
          ))}
        </div>
      </div>
      <Tabs
        param="tab"
        value={tab}
        clears={["state", "offset", "from", "check"]}
        items={[
          ["partitions", "Partitions"],
          ["checks", `Checks${asset.checks.failed > 0 ? ` (${asset.checks.failed} fail)` : ""}`],
          ["history", "History"],
          ["about", "About"],
        ]}
      />
      <div className="tab-body">
        {tab === "partitions" ? <PartitionsTab asset={asset} /> : null}
        {tab === "checks" ? <Checks asset={asset} /> : null}
        {tab === "history" ? <Events assetKey={asset.key} /> : null}
        {tab === "about" ? <About asset={asset} /> : null}
      </div>
    </>
  );
}

function Checks({ asset }: { asset: AssetDetail }) {
  const [search, set] = useAddress();
  if (asset.check_results.length === 0) {
    return (
      <Empty title="No check looks at it">
        <p>A green run can still make wrong data. A check of a task says whether the data holds:</p>
        <pre>{`checks: [{name: prices, sql: "select count(*) = 0 from orders where price < 0", connection: db}]`}</pre>
      </Empty>
    );
  }
  return (
    <>
      <div className="card">
        {asset.check_results.map((check) => (
          <div key={check.name} className="line">
            <State
              state={check.passed ? "succeeded" : "failed"}
              word={check.passed ? "holds" : "fails"}
            />
            <button
              type="button"
              className="link-button strong cut"
              aria-pressed={search.check === check.name}
              title={`Only results of ${check.name}`}
              onClick={() => set({ check: search.check === check.name ? undefined : check.name })}
            >
              {check.name}
            </button>
            <span className="quiet cut grow" title={check.detail ?? undefined}>
              {check.detail}
            </span>
            {check.blocking ? <span className="chip">blocks</span> : null}
            {check.run ? (
              <Link to="/runs/$id" params={{ id: check.run }} className="text-link">
                run
              </Link>
            ) : null}
            <Ago at={check.at} />
          </div>
        ))}
      </div>
      <h2>{search.check ? `Results of ${search.check}` : "All results"}</h2>
      <Events
        assetKey={asset.key}
        query={{ kind: "checked", check: search.check }}
        label="Results of checks"
      />
    </>
  );
}

/** What happened to it, newest first: all of it, or results of checks only. */
function Events({
  assetKey,
  query = {},
  label = "History",
}: {
  assetKey: string;
  query?: Query;
  label?: string;
}) {
  const list = useList<AssetEvent>(`/assets/${enc(assetKey)}/history`, query, 100);
  const columns: Column<AssetEvent>[] = [
    { key: "at", head: "When", width: "84px", cell: (e) => <Ago at={e.at} /> },
    {
      key: "what",
      head: "What",
      width: "minmax(112px, 1fr)",
      cell: (e) => (
        <span className="row">
          <Mark state={e.passed === false ? "failed" : "succeeded"} />
          <span className="cut">
            {e.check ? `${e.check} ${e.passed ? "holds" : "fails"}` : e.kind}
          </span>
        </span>
      ),
    },
    ...(query.kind === "checked"
      ? []
      : [
          {
            key: "partition",
            head: "Partition",
            width: "minmax(128px, 0.8fr)",
            cell: (e: AssetEvent) => <span className="mono">{e.partition}</span>,
          },
        ]),
    {
      key: "detail",
      head: "Detail",
      wide: true,
      width: "minmax(0, 1.4fr)",
      cell: (e) => (
        <span className="quiet" title={e.detail ?? undefined}>
          {e.detail}
        </span>
      ),
    },
    {
      key: "run",
      head: "Run",
      width: "80px",
      wide: query.kind !== "checked",
      cell: (e) =>
        e.run ? (
          <Link to="/runs/$id" params={{ id: e.run }} className="mono">
            {e.run.slice(-8)}
          </Link>
        ) : null,
    },
  ];
  return (
    <Await of={list} what="its history">
      <div className="card fill">
        <Table
          label={label}
          columns={columns}
          rows={list.items}
          rowKey={(e) => String(e.seq)}
          rowHeight={32}
          more={list}
          empty={<Empty title="It has not been made yet" />}
        />
      </div>
    </Await>
  );
}

function About({ asset }: { asset: AssetDetail }) {
  const links = (title: string, keys: string[]) => (
    <section className="card">
      <header>
        <h2>{title}</h2>
      </header>
      {keys.map((key) => (
        <Link key={key} to={assetPath(key) as never} className="line mono">
          {key}
        </Link>
      ))}
      {keys.length === 0 ? <p className="line quiet">Nothing.</p> : null}
    </section>
  );
  return (
    <div className="columns">
      {links("Made from", asset.upstream)}
      {links("Used for", asset.downstream)}
      <section className="card">
        <header>
          <h2>Last metadata</h2>
        </header>
        <div className="body">
          <Value value={asset.metadata} empty="The last run told nothing more." />
        </div>
      </section>
    </div>
  );
}
