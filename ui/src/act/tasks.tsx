// Rerun (clear), mark and cancel tasks: what will change is shown before, and the button says it.

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { request } from "../api/client";
import { useAction } from "../api/hooks";
import type { Bulk } from "../api/types";
import { formatCount, plural } from "../model/duration";
import { wordOf } from "../model/states";
import { Dialog, Loading, Problem, Segmented } from "../parts/basics";
import { Mark } from "../parts/mark";

export interface TaskTarget {
  ids?: string[];
  run?: string;
  nodes?: string[];
  states?: string[];
}

export type TaskActionKind = "clear" | "mark" | "cancel";

const VERBS: Record<TaskActionKind, string> = {
  clear: "Rerun",
  mark: "Mark",
  cancel: "Cancel",
};

export function TaskActionDialog({
  action,
  target,
  onClose,
  onlyFailed = false,
}: {
  action: TaskActionKind;
  target: TaskTarget;
  onClose: () => void;
  onlyFailed?: boolean;
}) {
  const [downstream, setDownstream] = useState(action === "clear");
  const [upstream, setUpstream] = useState(false);
  const [failed, setFailed] = useState(onlyFailed);
  const [state, setState] = useState<"succeeded" | "failed" | "skipped">("succeeded");
  const [reason, setReason] = useState("");
  const body = {
    action,
    ids: target.ids ?? null,
    run: target.run ?? null,
    nodes: target.nodes ?? null,
    states: target.states ?? null,
    ...(action === "mark" ? { state } : {}),
    ...(action === "clear" ? { downstream, upstream, only_failed: failed } : {}),
  };
  const preview = useQuery<Bulk, Error>({
    queryKey: ["/tasks/bulk", body, "preview"],
    queryFn: ({ signal }) =>
      request<Bulk>("/tasks/bulk", { method: "POST", body: { ...body, dry_run: true }, signal }),
    staleTime: 0,
    gcTime: 0,
    retry: false,
  });
  const apply = useAction<Bulk>({
    run: (_, key) =>
      request<Bulk>("/tasks/bulk", {
        method: "POST",
        body: { ...body, dry_run: false, reason: reason || null },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/runs", "/tasks", "/workflows", "/summary"],
    done: (result) => {
      const expected = preview.data?.count;
      const changed =
        expected !== undefined && expected !== result.count
          ? ` (${formatCount(expected)} were expected: others changed meanwhile)`
          : "";
      const done =
        action === "clear" ? "reopened" : action === "mark" ? `marked ${state}` : "cancelled";
      return `${plural(result.count, "task")} ${done}${changed}`;
    },
    onSuccess: onClose,
  });
  const count = preview.data?.count ?? 0;
  const verb =
    action === "mark"
      ? `Mark ${plural(count, "task")} ${state}`
      : `${VERBS[action]} ${plural(count, "task")}`;
  return (
    <Dialog
      title={action === "mark" ? "Mark tasks" : action === "clear" ? "Rerun tasks" : "Cancel tasks"}
      width={620}
      onClose={onClose}
      onSubmit={() => apply.mutate()}
      foot={
        <>
          <button type="button" className="button" onClick={onClose}>
            Leave as it is
          </button>
          <button
            type="submit"
            className="button primary"
            disabled={preview.data === undefined || count === 0 || apply.isPending}
          >
            {apply.isPending ? `${verb}…` : preview.data === undefined ? VERBS[action] : verb}
          </button>
        </>
      }
    >
      {action === "clear" ? (
        <div className="row wrap" style={{ gap: "4px 18px" }}>
          <label className="check">
            <input
              type="checkbox"
              checked={downstream}
              onChange={(event) => setDownstream(event.target.checked)}
            />
            and what depends on them
          </label>
          <label className="check">
            <input
              type="checkbox"
              checked={upstream}
              onChange={(event) => setUpstream(event.target.checked)}
            />
            and what they depend on
          </label>
          <label className="check">
            <input
              type="checkbox"
              checked={failed}
              onChange={(event) => setFailed(event.target.checked)}
            />
            only failed ones
          </label>
        </div>
      ) : null}
      {action === "mark" ? (
        <Segmented
          label="New state"
          value={state}
          options={[
            ["succeeded", "Succeeded"],
            ["failed", "Failed"],
            ["skipped", "Skipped"],
          ]}
          onChange={setState}
        />
      ) : null}
      <BulkPreview preview={preview.data} error={preview.error} />
      <div className="field">
        <label htmlFor="act-reason">
          Reason <span className="quiet">(kept in the audit log)</span>
        </label>
        <input
          id="act-reason"
          className="input"
          value={reason}
          maxLength={500}
          onChange={(event) => setReason(event.target.value)}
        />
      </div>
      {apply.error ? <Problem error={apply.error} /> : null}
    </Dialog>
  );
}

function BulkPreview({ preview, error }: { preview: Bulk | undefined; error: Error | null }) {
  if (error) return <Problem error={error} />;
  if (!preview) return <Loading what="what would change" />;
  if (preview.count === 0) {
    return (
      <p className="quiet">
        Nothing would change
        {preview.refused[0] ? `: ${preview.refused[0].message}` : " with these choices."}
      </p>
    );
  }
  const many = preview.items.length;
  return (
    <div className="stack" style={{ gap: 6 }}>
      <h2>What changes</h2>
      <ul className="preview-list">
        {preview.items.map((item) => (
          <li key={item.id} className="row">
            <Mark state={item.state} title={wordOf(item.state)} />
            <span aria-hidden className="quiet">
              →
            </span>
            <Mark state={item.becomes} title={wordOf(item.becomes)} />
            <span className="cut">
              {item.path || item.name}
              {item.map_index === null ? "" : ` [${item.map_index}]`}
            </span>
          </li>
        ))}
        {preview.truncated ? (
          <li className="quiet">and {formatCount(preview.count - many)} more</li>
        ) : null}
      </ul>
      {preview.runs.map((run) => (
        <p key={run.id} className="row">
          <span className="quiet">The run of</span> <span className="cut">{run.workflow}</span>
          <Mark state={run.state} title={wordOf(run.state)} />
          <span className="quiet">becomes</span>
          <Mark state={run.becomes} />
          {wordOf(run.becomes).toLowerCase()}
        </p>
      ))}
      {preview.refused.length > 0 ? (
        <p className="quiet">
          {plural(preview.refused.length, "task")} stay: {preview.refused[0]?.message}
        </p>
      ) : null}
    </div>
  );
}
