import { useEffect, useMemo, useState } from "react";
import { enc, request } from "../api/client";
import { useAction, useApi } from "../api/hooks";
import type {
  Backfill,
  BackfillPreview,
  Dimension,
  WorkflowDetail,
  WorkflowPage,
} from "../api/types";
import { formatCount, plural } from "../model/duration";
import { wordOf } from "../model/states";
import { Dialog, Problem, Segmented } from "../parts/basics";
import { Mark } from "../parts/mark";
import { Interval } from "../parts/time";
import { useZone } from "../shell/prefs";
import { dateInZone } from "./dates";
import { fieldsOf, readForm } from "./schema";
import { SchemaFields } from "./start-run";

const DRAFT = "kobza.draft.backfill";

interface Draft {
  workflow: string;
  from: string;
  to: string;
  /** Partitions as people write them, where the workflow has some. */
  set: string;
  only: "all" | "missing" | "failed";
  order: "ascending" | "descending";
  parallelism: string;
  params: Record<string, string>;
}

function load(workflow: string, only: string): Draft {
  const fresh: Draft = {
    workflow,
    from: "",
    to: "",
    set: "",
    only: only === "all" || only === "failed" ? only : "missing",
    order: "ascending",
    parallelism: "4",
    params: {},
  };
  try {
    const kept = JSON.parse(sessionStorage.getItem(DRAFT) ?? "null") as Draft | null;
    if (kept && (!workflow || kept.workflow === workflow)) return { ...fresh, ...kept };
  } catch {
    // What was kept cannot be read: begin anew.
  }
  return fresh;
}

/** The newest pieces of each dimension, as one would write them. */
function exampleSet(dimensions: Dimension[]): string {
  return dimensions
    .map((d) =>
      d.kind === "time" ? `${d.first}..${d.last}` : (d.keys ?? []).slice(0, 2).join(","),
    )
    .join("|");
}

/** A new backfill: what it would do is asked first, from the server, and shown. */
export default function BackfillForm({
  workflow,
  only,
  onClose,
  onMade,
}: {
  workflow: string;
  only: string;
  onClose: () => void;
  onMade: (id: string) => void;
}) {
  const [draft, setDraft] = useState(() => load(workflow, only));
  const patch = (change: Partial<Draft>) => setDraft((before) => ({ ...before, ...change }));
  useEffect(() => {
    try {
      sessionStorage.setItem(DRAFT, JSON.stringify(draft));
    } catch {
      // Kept only as long as the dialog.
    }
  }, [draft]);
  const names = useApi<WorkflowPage>("/workflows", { limit: 500 });
  const detail = useApi<WorkflowDetail>(
    draft.workflow ? `/workflows/${enc(draft.workflow)}` : null,
    {},
    { keep: false },
  );
  const pageZone = useZone();
  const zone = detail.data?.timezone ?? pageZone;
  const fields = useMemo(() => fieldsOf(detail.data?.params ?? null, null), [detail.data]);
  const { values, errors } = readForm(fields, draft.params);
  const parallelism = Number(draft.parallelism);
  const dimensions = detail.data?.partitions ?? [];
  const byPartition = dimensions.length > 0;
  const complete =
    draft.workflow !== "" &&
    (byPartition
      ? draft.set.trim() !== ""
      : draft.from !== "" && draft.to !== "" && draft.from <= draft.to) &&
    Number.isInteger(parallelism) &&
    parallelism > 0 &&
    Object.keys(errors).length === 0;
  const body = complete
    ? {
        workflow: draft.workflow,
        ...(byPartition
          ? { set: draft.set.trim() }
          : { from: dateInZone(draft.from, zone, 0), to: dateInZone(draft.to, zone, 1) }),
        order: draft.order,
        parallelism,
        only: draft.only,
        params: values,
      }
    : null;
  const signature = JSON.stringify(body);
  const preview = useAction<BackfillPreview>({
    run: (_, key) =>
      request("/backfills", {
        method: "POST",
        body: { ...body, dry_run: true },
        idempotencyKey: key,
      }),
    quiet: true,
  });
  const previewOf = preview.mutate;
  const reset = preview.reset;
  // The preview follows the form, a little later than the typing.
  useEffect(() => {
    reset();
    if (signature === "null") return;
    const timer = setTimeout(() => previewOf(), 250);
    return () => clearTimeout(timer);
  }, [signature, previewOf, reset]);
  const make = useAction<Backfill>({
    run: (_, key) =>
      request("/backfills", {
        method: "POST",
        body: { ...body, dry_run: false },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/backfills", "/runs"],
    done: (backfill) => `Backfill of ${plural(backfill.total, "run")} started`,
    onSuccess: (backfill) => {
      sessionStorage.removeItem(DRAFT);
      onMade(backfill.id);
    },
  });
  const todo = (preview.data?.counts.create ?? 0) + (preview.data?.counts.rerun ?? 0);
  return (
    <Dialog
      title="New backfill"
      width={640}
      onClose={onClose}
      onSubmit={() => make.mutate()}
      foot={
        <>
          <button type="button" className="button" onClick={onClose}>
            Not now
          </button>
          <button
            type="submit"
            className="button primary"
            disabled={!complete || todo === 0 || make.isPending || preview.isPending}
          >
            {make.isPending ? "Starting…" : todo > 0 ? `Start ${plural(todo, "run")}` : "Start"}
          </button>
        </>
      }
    >
      <div className="field">
        <label htmlFor="bf-workflow">Workflow</label>
        <select
          id="bf-workflow"
          className="select"
          value={draft.workflow}
          onChange={(event) => patch({ workflow: event.target.value, params: {}, set: "" })}
        >
          <option value="">Choose…</option>
          {draft.workflow && !names.data?.items.some((w) => w.name === draft.workflow) ? (
            <option value={draft.workflow}>{draft.workflow}</option>
          ) : null}
          {names.data?.items.map((w) => (
            <option key={w.name} value={w.name}>
              {w.name}
              {w.schedule ? ` (${w.schedule})` : ""}
            </option>
          ))}
        </select>
      </div>
      <div className="columns tight">
        {byPartition ? (
          <div className="field wide">
            <label htmlFor="bf-set">Partitions</label>
            <input
              id="bf-set"
              className="input mono"
              value={draft.set}
              placeholder={exampleSet(dimensions)}
              aria-describedby="bf-set-help"
              onChange={(event) => patch({ set: event.target.value })}
            />
          </div>
        ) : (
          <>
            <div className="field">
              <label htmlFor="bf-from">First day</label>
              <input
                id="bf-from"
                type="date"
                className="input"
                value={draft.from}
                onChange={(event) => patch({ from: event.target.value })}
              />
            </div>
            <div className="field">
              <label htmlFor="bf-to">Last day</label>
              <input
                id="bf-to"
                type="date"
                className="input"
                value={draft.to}
                aria-invalid={draft.from !== "" && draft.to !== "" && draft.from > draft.to}
                onChange={(event) => patch({ to: event.target.value })}
              />
            </div>
          </>
        )}
        <div className="field">
          <label htmlFor="bf-parallel">Runs at once</label>
          <input
            id="bf-parallel"
            className="input"
            inputMode="numeric"
            value={draft.parallelism}
            onChange={(event) => patch({ parallelism: event.target.value })}
          />
        </div>
      </div>
      {byPartition ? (
        <p className="field-help" id="bf-set-help">
          Keys and ranges, separated by commas; <code>*</code> is all.{" "}
          {dimensions.length > 1 ? (
            <>
              Dimensions are separated by <code>|</code>:{" "}
            </>
          ) : null}
          {dimensions.map((d) => `${d.name} from ${d.first ?? "–"} to ${d.last ?? "–"}`).join(", ")}
          .
        </p>
      ) : (
        <p className="field-help">Days are whole days in {zone}; both ends are included.</p>
      )}
      <div className="row wrap">
        <Segmented
          label="Which slots"
          value={draft.only}
          options={[
            ["missing", "Only missing"],
            ["failed", "Only failed"],
            ["all", "All"],
          ]}
          onChange={(value) => patch({ only: value })}
        />
        <Segmented
          label="Order"
          value={draft.order}
          options={[
            ["ascending", "Oldest first"],
            ["descending", "Newest first"],
          ]}
          onChange={(value) => patch({ order: value })}
        />
      </div>
      <SchemaFields
        fields={fields}
        texts={draft.params}
        errors={errors}
        onChange={(name, text) => patch({ params: { ...draft.params, [name]: text } })}
      />
      {preview.error ? <Problem error={preview.error} /> : null}
      {preview.data ? (
        <section className="stack" style={{ gap: 6 }} aria-live="polite">
          <h2>
            {formatCount(preview.data.count)} {byPartition ? "partitions" : "slots"}:{" "}
            {formatCount(preview.data.counts.create ?? 0)} new runs,{" "}
            {formatCount(preview.data.counts.rerun ?? 0)} rerun,{" "}
            {formatCount(preview.data.counts.skip ?? 0)} left as they are
          </h2>
          {preview.data.warnings.map((warning) => (
            <div key={warning} className="problem mild">
              <Mark state="retry_wait" /> <span>{warning}</span>
            </div>
          ))}
          <ul className="preview-list">
            {preview.data.items.map((item) => (
              <li key={`${item.interval_start}${item.partition}`} className="row">
                <span className="chip">{item.action}</span>
                {item.interval_start ? (
                  <Interval start={item.interval_start} end={item.interval_end} />
                ) : (
                  <span className="mono">{item.partition}</span>
                )}
                {item.existing ? (
                  <span className="quiet row">
                    has <Mark state={item.existing.state} />{" "}
                    {wordOf(item.existing.state).toLowerCase()}
                  </span>
                ) : null}
              </li>
            ))}
            {preview.data.truncated ? (
              <li className="quiet">
                and {formatCount(preview.data.count - preview.data.items.length)} more
              </li>
            ) : null}
          </ul>
        </section>
      ) : !preview.error ? (
        <p className="quiet">
          {preview.isPending
            ? "Asking what it would do…"
            : `Choose a workflow and ${byPartition ? "partitions" : "days"} to see which runs it would make.`}
        </p>
      ) : null}
      {make.error ? <Problem error={make.error} /> : null}
    </Dialog>
  );
}
