import { Link } from "@tanstack/react-router";
import { useApi } from "../../api/hooks";
import type { TaskDetail, Why } from "../../api/types";
import { Await } from "../../parts/basics";
import { Mark } from "../../parts/mark";
import { Ago } from "../../parts/time";

function ReasonLink({ link }: { link: { kind: string; id: string } }) {
  const props = { className: "button" };
  switch (link.kind) {
    case "task":
      return (
        <Link {...props} to="/tasks/$id" params={{ id: link.id }}>
          Show the task
        </Link>
      );
    case "run":
      return (
        <Link {...props} to="/runs/$id" params={{ id: link.id }}>
          Show the run
        </Link>
      );
    case "limit":
      return (
        <Link {...props} to="/limits" search={{ limit: link.id } as never}>
          Who holds it
        </Link>
      );
    case "workflow":
      return (
        <Link {...props} to="/workflows/$name" params={{ name: link.id }}>
          Show the workflow
        </Link>
      );
    case "trigger":
      return (
        <Link {...props} to="/triggers" search={{ trigger: link.id } as never}>
          Show the trigger
        </Link>
      );
    default:
      return null;
  }
}

/** Every condition for it to go on: which hold, which do not, and what can be done. */
export function WhyPanel({ task }: { task: TaskDetail }) {
  const why = useApi<Why>(`/tasks/${task.id}/why`);
  return (
    <Await of={why} what="its conditions">
      {() =>
        why.data ? (
          <div className="stack">
            <p className="strong" style={{ fontSize: "var(--t-title)" }}>
              {why.data.summary}
            </p>
            <ul className="reasons" hidden={why.data.reasons.length === 0}>
              {why.data.reasons.map((reason) => (
                <li key={`${reason.kind}${reason.text}`}>
                  <Mark
                    state={reason.met ? "succeeded" : "retry_wait"}
                    title={reason.met ? "holds" : "does not hold"}
                  />
                  <div className="grow">
                    <div>{reason.text}</div>
                    {reason.hint ? <div className="quiet">{reason.hint}</div> : null}
                    {reason.since || reason.until ? (
                      <div className="quiet small">
                        {reason.since ? <Ago at={reason.since} prefix="since " /> : null}{" "}
                        {reason.until ? <Ago at={reason.until} prefix="until " /> : null}
                      </div>
                    ) : null}
                  </div>
                  {reason.link ? <ReasonLink link={reason.link} /> : null}
                </li>
              ))}
            </ul>
          </div>
        ) : null
      }
    </Await>
  );
}
