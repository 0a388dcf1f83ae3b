import { X } from "lucide-react";
import { useSyncExternalStore } from "react";
import { Mark } from "./mark";

export interface Toast {
  kind: "done" | "error";
  text: string;
  hint?: string | null;
  action?: { word: string; run: () => void };
}

let shown: (Toast & { id: number })[] = [];
let nextId = 1;
const listeners = new Set<() => void>();

function set(list: typeof shown): void {
  shown = list;
  for (const listener of listeners) listener();
}

const dismiss = (id: number) => set(shown.filter((t) => t.id !== id));

/** Says what was done or what went wrong. Errors stay until they are closed. */
export function toast(message: Toast): void {
  const id = nextId;
  nextId += 1;
  set([...shown.filter((t) => t.text !== message.text).slice(-3), { ...message, id }]);
  if (message.kind === "done") setTimeout(() => dismiss(id), message.action ? 10_000 : 5_000);
}

export function Toasts() {
  const list = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => shown,
  );
  return (
    <section className="toasts" aria-live="polite" aria-label="Messages">
      {list.map((t) => (
        <div key={t.id} className="toast" role={t.kind === "error" ? "alert" : "status"}>
          <Mark state={t.kind === "error" ? "failed" : "succeeded"} />
          <div className="grow">
            <div>{t.text}</div>
            {t.hint ? <div className="quiet">{t.hint}</div> : null}
          </div>
          {t.action ? (
            <button
              type="button"
              className="button plain"
              onClick={() => {
                t.action?.run();
                dismiss(t.id);
              }}
            >
              {t.action.word}
            </button>
          ) : null}
          <button
            type="button"
            className="button plain square"
            aria-label="Close message"
            onClick={() => dismiss(t.id)}
          >
            <X size={14} />
          </button>
        </div>
      ))}
    </section>
  );
}
