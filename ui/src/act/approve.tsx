import { useMemo, useState } from "react";
import { request } from "../api/client";
import { useAction } from "../api/hooks";
import type { JsonSchema, TaskDetail } from "../api/types";
import { Problem } from "../parts/basics";
import { fieldsOf, readForm } from "./schema";
import { SchemaFields } from "./start-run";

/** The question that a suspended task asks a person. */
export function ApproveForm({
  task,
  approval,
}: {
  task: TaskDetail;
  approval: { prompt: string | null; fields: JsonSchema | null };
}) {
  const fields = useMemo(() => fieldsOf(approval.fields, null), [approval.fields]);
  const [texts, setTexts] = useState<Record<string, string>>({});
  const [comment, setComment] = useState("");
  const [tried, setTried] = useState(false);
  const { values, errors } = readForm(fields, texts);
  // A choice among options has no yes and no: what is chosen is the answer.
  const chooses = fields.some((field) => field.name === "chosen_options");
  const action = useAction<unknown, boolean>({
    run: (approved, key) =>
      request(`/tasks/${task.id}/approve`, {
        method: "POST",
        body: { approved, comment: comment || null, values: approved ? values : {} },
        idempotencyKey: key,
      }),
    quiet: true,
    touches: ["/tasks", "/runs", "/summary"],
    done: (_, approved) =>
      approved ? `${chooses ? "Answered" : "Approved"}: the run goes on` : "Refused",
  });
  return (
    <form
      className="card approve"
      onSubmit={(event) => {
        event.preventDefault();
        setTried(true);
        if (Object.keys(errors).length === 0) action.mutate(true);
      }}
    >
      <div className="body stack">
        <p className="strong pre-line">{approval.prompt}</p>
        <SchemaFields
          fields={fields}
          texts={texts}
          errors={tried ? errors : {}}
          onChange={(name, text) => setTexts({ ...texts, [name]: text })}
        />
        <input
          className="input"
          aria-label="Comment"
          placeholder="Comment"
          maxLength={500}
          value={comment}
          onChange={(event) => setComment(event.target.value)}
        />
        <div className="row">
          <button type="submit" className="button primary" disabled={action.isPending}>
            {chooses ? "Answer" : "Approve"}
          </button>
          {chooses ? null : (
            <button
              type="button"
              className="button danger"
              disabled={action.isPending}
              onClick={() => action.mutate(false)}
            >
              Refuse
            </button>
          )}
        </div>
        {action.error ? <Problem error={action.error} /> : null}
      </div>
    </form>
  );
}
