// What can be done with runs: one from its page, many from a list.

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { request } from "../api/client";
import { useAction } from "../api/hooks";
import type { RunsBulk } from "../api/types";
import { formatCount, plural } from "../model/duration";
import { wordOf } from "../model/states";
import { Dialog, Loading, Problem, Segmented } from "../parts/basics";
import { Mark } from "../parts/mark";

export type RunsAction = "cancel" | "pause" | "resume" | "delete" | "clear_failed";

const WORDS: Record<RunsAction, [verb: string, done: string]> = {
  cancel: ["Cancel", "cancelled"],
  pause: ["Pause", "paused"],
  resume: ["Resume", "resumed"],
  delete: ["Delete", "deleted"],
  clear_failed: ["Rerun failed tasks of", "reopened"],
};

export function RunsBulkDialog({
  action,
  ids,
  filter,
  onClose,
  onDone,
}: {
  action: RunsAction;
  ids: string[] | null;
  filter?: Record<string, string> | null;
  onClose: () => void;
  onDone?: () => void;
}) {
  const body = { action, ids, filter: filter ?? null };
  const [typed, setTyped] = useState("");
  const preview = useQuery<RunsBulk, Error>({
    queryKey: ["/runs/bulk", body, "preview"],
    queryFn: ({ signal }) =>
      request<RunsBulk>("/runs/bulk", { method: "POST", body: { ...body, dry_run: true }, signal }),
    staleTime: 0,
    gcTime: 0,
    retry: false,
  });
  const [verb, done] = WORDS[action];
  const apply = useAction<RunsBulk>({
    run: (_, key) =>
      request<RunsBulk>("/runs/bulk", {
        method: "POST",
        body: { ...body, dry_run: false },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/runs", "/workflows", "/summary"],
    done: (result) => `${plural(result.count, "run")} ${done}`,
    onSuccess: () => {
      onDone?.();
      onClose();
    },
  });
  const count = preview.data?.count ?? 0;
  const refused = preview.data?.items.filter((item) => !item.ok) ?? [];
  const confirmed = action !== "delete" || typed === String(count);
  return (
    <Dialog
      title={`${verb} runs`}
      onClose={onClose}
      onSubmit={() => apply.mutate()}
      foot={
        <>
          <button type="button" className="button" onClick={onClose}>
            Leave as it is
          </button>
          <button
            type="submit"
            className={`button ${action === "delete" ? "danger" : "primary"}`}
            disabled={count === 0 || !confirmed || apply.isPending}
          >
            {verb} {plural(count, "run")}
          </button>
        </>
      }
    >
      {preview.error ? <Problem error={preview.error} /> : null}
      {!preview.data && !preview.error ? <Loading what="what would change" /> : null}
      {preview.data ? (
        <ul className="preview-list">
          {preview.data.items.map((item) => (
            <li key={item.id} className="row">
              <Mark state={item.state} title={wordOf(item.state)} />
              <span className="cut">{item.workflow}</span>
              <span className="mono quiet">{item.id.slice(-8)}</span>
              <span className="quiet cut">{item.ok ? "" : (item.message ?? "stays as it is")}</span>
            </li>
          ))}
          {preview.data.truncated ? (
            <li className="quiet">
              and {formatCount(preview.data.count - preview.data.items.length + refused.length)}{" "}
              more
            </li>
          ) : null}
        </ul>
      ) : null}
      {action === "delete" && count > 0 ? (
        <div className="field">
          <label htmlFor="delete-count">
            Deleted runs, their logs and artifacts cannot come back. Type {count} to go on.
          </label>
          <input
            id="delete-count"
            className="input"
            inputMode="numeric"
            value={typed}
            onChange={(event) => setTyped(event.target.value)}
          />
        </div>
      ) : null}
      {apply.error ? <Problem error={apply.error} /> : null}
    </Dialog>
  );
}

export function CancelRunDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const [mode, setMode] = useState<"cancel" | "stop" | "terminate">("cancel");
  const [reason, setReason] = useState("");
  const action = useAction({
    run: (_, key) =>
      request(`/runs/${id}/cancel`, {
        method: "POST",
        body: { mode, reason: reason || null },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/runs", "/summary", "/workflows"],
    onSuccess: onClose,
  });
  const help = {
    cancel: "Running tasks are killed, exit hooks run, the run ends as cancelled.",
    stop: "Running tasks are killed, exit hooks run, the run ends as failed.",
    terminate: "Running tasks are killed, no hook runs, the run ends as failed.",
  }[mode];
  return (
    <Dialog
      title="Stop this run"
      onClose={onClose}
      onSubmit={() => action.mutate()}
      foot={
        <>
          <button type="button" className="button" onClick={onClose}>
            Let it run
          </button>
          <button type="submit" className="button primary" disabled={action.isPending}>
            {action.isPending ? "Stopping…" : mode === "cancel" ? "Cancel the run" : "Stop the run"}
          </button>
        </>
      }
    >
      <Segmented
        label="How"
        value={mode}
        options={[
          ["cancel", "Cancel"],
          ["stop", "Stop"],
          ["terminate", "Terminate"],
        ]}
        onChange={setMode}
      />
      <p className="quiet">{help}</p>
      <div className="field">
        <label htmlFor="cancel-reason">
          Reason <span className="quiet">(kept in the audit log)</span>
        </label>
        <input
          id="cancel-reason"
          className="input"
          value={reason}
          maxLength={500}
          onChange={(event) => setReason(event.target.value)}
        />
      </div>
      {action.error ? <Problem error={action.error} /> : null}
    </Dialog>
  );
}
