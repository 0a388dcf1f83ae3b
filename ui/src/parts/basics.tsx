import { X } from "lucide-react";
import { type ReactNode, useEffect, useId, useRef, useState } from "react";
import { ApiError } from "../api/client";
import { Mark } from "./mark";

/** What a view shows while its first answer is on the way: after 300 ms, and in words. */
export function Loading({ what }: { what: string }) {
  return (
    <div className="loading" role="status">
      Reading {what}…
    </div>
  );
}

/** An error that says what to do. */
export function Problem({ error, retry }: { error: Error; retry?: () => void }) {
  const api = error instanceof ApiError ? error : null;
  return (
    <div className="problem" role="alert">
      <Mark state="failed" />
      <div className="grow">
        <div className="strong">{error.message}</div>
        {api?.hint ? <div>{api.hint}</div> : null}
        {api?.fields.map((field) => (
          <div key={`${field.path}:${field.line}:${field.message}`}>
            {field.line === null || field.line === undefined ? null : (
              <span className="mono">
                {field.line}:{field.column ?? 1}{" "}
              </span>
            )}
            {field.path ? <code>{field.path}</code> : null} {field.message}
          </div>
        ))}
      </div>
      {retry ? (
        <button type="button" className="button" onClick={retry}>
          Try again
        </button>
      ) : null}
    </div>
  );
}

/** Nothing here yet, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

interface Answer {
  data?: unknown;
  error: Error | null;
  isPending: boolean;
  refetch: () => unknown;
}

/** Shows an answer's loading and failing, or its content. Old data beats an error. */
export function Await({
  of,
  what,
  children,
}: {
  of: Answer;
  what: string;
  children: ReactNode | (() => ReactNode);
}) {
  if (of.data === undefined || of.data === null) {
    if (of.error) return <Problem error={of.error} retry={() => void of.refetch()} />;
    return <Loading what={what} />;
  }
  return (
    <>
      {of.error && !(of.error instanceof ApiError && of.error.unreachable) ? (
        <Problem error={of.error} retry={() => void of.refetch()} />
      ) : null}
      {typeof children === "function" ? children() : children}
    </>
  );
}

/** A modal dialog. The browser's own: focus is kept and given back, Escape closes. */
export function Dialog({
  title,
  onClose,
  children,
  foot,
  width,
  onSubmit,
}: {
  title: ReactNode;
  onClose: () => void;
  children: ReactNode;
  foot?: ReactNode;
  width?: number;
  onSubmit?: () => void;
}) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    dialog?.showModal();
    // The first thing to fill in, not the button that closes.
    const first = dialog?.querySelector<HTMLElement>(
      ".dialog-body :is(input, select, textarea):not(:disabled), .dialog-foot [type=submit]:not(:disabled)",
    );
    first?.focus();
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  const body = (
    <>
      <div className="dialog-head">
        <h1 id={id} className="grow cut">
          {title}
        </h1>
        <button type="button" className="button plain square" aria-label="Close" onClick={onClose}>
          <X size={16} />
        </button>
      </div>
      <div className="dialog-body">{children}</div>
      {foot ? <div className="dialog-foot">{foot}</div> : null}
    </>
  );
  return (
    <dialog
      ref={ref}
      aria-labelledby={id}
      style={width ? ({ "--dialog-width": `${width}px` } as React.CSSProperties) : undefined}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      {onSubmit ? (
        <form
          style={{ display: "contents" }}
          noValidate
          onSubmit={(event) => {
            event.preventDefault();
            onSubmit();
          }}
        >
          {body}
        </form>
      ) : (
        body
      )}
    </dialog>
  );
}

/** A panel over the content from the right; the list behind stays as it is. */
export function SidePanel({
  label,
  head,
  onClose,
  children,
  bare,
}: {
  label: string;
  head: ReactNode;
  onClose: () => void;
  children: ReactNode;
  bare?: boolean;
}) {
  const ref = useRef<HTMLElement>(null);
  const close = useRef(onClose);
  close.current = onClose;
  useEffect(() => {
    const before = document.activeElement;
    ref.current?.focus({ preventScroll: true });
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || event.defaultPrevented) return;
      if (document.querySelector("dialog[open], [popover]:popover-open")) return;
      close.current();
    };
    document.addEventListener("keydown", onKey);
    return () => {
      document.removeEventListener("keydown", onKey);
      if (before instanceof HTMLElement && before.isConnected)
        before.focus({ preventScroll: true });
    };
  }, []);
  return (
    <aside className="side" ref={ref} tabIndex={-1} aria-label={label}>
      <div className="side-head">
        <div className="grow row">{head}</div>
        <button
          type="button"
          className="button plain square"
          aria-label="Close panel"
          onClick={onClose}
        >
          <X size={16} />
        </button>
      </div>
      {bare ? children : <div className="side-body">{children}</div>}
    </aside>
  );
}

/** A button with a list below it. */
export function Menu({
  label,
  button,
  children,
  className = "button",
}: {
  label: string;
  button: ReactNode;
  children: ReactNode;
  className?: string;
}) {
  const id = useId();
  const list = useRef<HTMLDivElement>(null);
  const opener = useRef<HTMLButtonElement>(null);
  const [open, setOpen] = useState(false);
  const place = () => {
    const box = opener.current?.getBoundingClientRect();
    const popup = list.current;
    if (!box || !popup) return;
    const width = popup.offsetWidth || 200;
    const height = popup.offsetHeight;
    popup.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - width - 8))}px`;
    const below = box.bottom + 4;
    popup.style.top = `${below + height > window.innerHeight - 8 && box.top > height ? box.top - height - 4 : below}px`;
  };
  const move = (event: React.KeyboardEvent) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const items = [
      ...(list.current?.querySelectorAll<HTMLElement>("button:not(:disabled), a") ?? []),
    ];
    const at = items.indexOf(document.activeElement as HTMLElement);
    items[(at + step + items.length) % items.length]?.focus();
  };
  return (
    <span className="menu">
      <button
        ref={opener}
        type="button"
        className={className}
        aria-label={label}
        title={label}
        aria-expanded={open}
        aria-haspopup="true"
        popoverTarget={id}
      >
        {button}
      </button>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: it closes when an item in it is chosen */}
      <div
        id={id}
        ref={list}
        popover="auto"
        className="menu-list"
        onKeyDown={move}
        onClick={(event) => {
          if ((event.target as HTMLElement).closest("button, a")) list.current?.hidePopover();
        }}
        onToggle={(event) => {
          const now = (event as unknown as { newState: string }).newState === "open";
          setOpen(now);
          if (now) {
            place();
            list.current?.querySelector<HTMLElement>("button:not(:disabled), a")?.focus();
          }
        }}
      >
        {children}
      </div>
    </span>
  );
}

export function Segmented<T extends string>({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset would bring its own look
    <span className="segmented" role="group" aria-label={label}>
      {options.map(([key, word]) => (
        <button key={key} type="button" aria-pressed={key === value} onClick={() => onChange(key)}>
          {word}
        </button>
      ))}
    </span>
  );
}

/** A text filter that follows the typing, a little later. */
export function SearchField({
  value,
  onChange,
  label,
  width = 220,
  inputRef,
}: {
  value: string;
  onChange: (value: string) => void;
  label: string;
  width?: number;
  inputRef?: React.Ref<HTMLInputElement>;
}) {
  const [text, setText] = useState(value);
  const sent = useRef(value);
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  useEffect(() => {
    // Only a change from elsewhere (Back, a link) replaces what is typed.
    if (value !== sent.current) {
      sent.current = value;
      setText(value);
    }
  }, [value]);
  const send = (next: string) => {
    sent.current = next;
    onChange(next);
  };
  return (
    <input
      ref={inputRef}
      className="input"
      type="search"
      data-filter
      style={{ width, flex: "0 1 auto" }}
      placeholder={label}
      aria-label={label}
      value={text}
      onChange={(event) => {
        const next = event.target.value;
        setText(next);
        if (timer.current !== null) clearTimeout(timer.current);
        timer.current = setTimeout(() => send(next), 180);
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter") {
          if (timer.current !== null) clearTimeout(timer.current);
          send(text);
        }
      }}
    />
  );
}

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  return (
    <button
      type="button"
      className="button"
      onClick={() => {
        void navigator.clipboard?.writeText(text).then(() => {
          setDone(true);
          setTimeout(() => setDone(false), 1500);
        });
      }}
    >
      {done ? "Copied" : label}
    </button>
  );
}

/** First characters of an id or a hash; the whole on hover. */
export function ShortId({ id, length = 8 }: { id: string; length?: number }) {
  return (
    <span className="mono" title={id}>
      {id.slice(0, length)}
    </span>
  );
}

/** The distinguishing end of a run's id: ids made in one moment share their beginning. */
export function runLabel(id: string): string {
  return id.slice(-8);
}
