import { useNavigate } from "@tanstack/react-router";
import { Command } from "cmdk";
import { useEffect, useRef, useState } from "react";
import { useApi } from "../api/hooks";
import type { SearchHit } from "../api/types";
import { Mark } from "../parts/mark";
import { useKeyGroups } from "./keys";
import { PAGES } from "./pages";
import { setPrefs } from "./prefs";

export function hitAddress(hit: SearchHit): string {
  const id = encodeURIComponent(hit.id);
  switch (hit.kind) {
    case "workflow":
      return `/workflows/${id}`;
    case "run":
      return `/runs/${id}`;
    case "task":
      return `/tasks/${id}`;
    case "asset":
      return `/asset/${hit.id.split("/").map(encodeURIComponent).join("/")}`;
    case "trigger":
      return `/triggers?trigger=${id}`;
    case "backfill":
      return `/backfills?backfill=${id}`;
    case "limit":
      return `/limits?limit=${id}`;
    case "connection":
      return `/connections?q=${id}`;
    default:
      return `/variables?q=${id}`;
  }
}

export default function Palette({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  const [asked, setAsked] = useState("");
  const navigate = useNavigate();
  const groups = useKeyGroups();
  const found = useApi<{ items: SearchHit[] }>(asked ? "/search" : null, { q: asked, limit: 20 });

  useEffect(() => {
    const timer = setTimeout(() => setAsked(text.trim()), 120);
    return () => clearTimeout(timer);
  }, [text]);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);

  const go = (run: () => void) => {
    onClose();
    run();
  };
  const here = groups.filter((group) => group.title !== "Everywhere");
  return (
    <dialog
      ref={dialog}
      className="palette"
      aria-label="Search and commands"
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        if (event.target === dialog.current) onClose();
      }}
      onKeyDown={(event) => event.stopPropagation()}
    >
      <Command label="Search and commands" loop shouldFilter={true}>
        <Command.Input
          autoFocus
          value={text}
          onValueChange={setText}
          placeholder="A workflow, run, task, asset, or what to do"
        />
        <Command.List>
          <Command.Empty>
            {found.isFetching ? "Searching…" : "Nothing has that in its name."}
          </Command.Empty>
          {asked && found.data && found.data.items.length > 0 ? (
            <Command.Group heading="Found" forceMount>
              {found.data.items.map((hit) => (
                <Command.Item
                  key={`${hit.kind}:${hit.id}`}
                  value={`${hit.kind}:${hit.id}`}
                  forceMount
                  onSelect={() => go(() => void navigate({ href: hitAddress(hit) } as never))}
                >
                  {hit.state ? <Mark state={hit.state} /> : <span style={{ width: 12 }} />}
                  <span className="cut">{hit.title}</span>
                  <span className="quiet cut grow">{hit.detail}</span>
                  <span className="chip">{hit.kind}</span>
                </Command.Item>
              ))}
            </Command.Group>
          ) : null}
          {here.map((group) => (
            <Command.Group key={group.title} heading={group.title}>
              {group.actions.map((action) => (
                <Command.Item
                  key={action.keys}
                  value={`${action.word} ${action.keys}`}
                  onSelect={() => go(action.run)}
                >
                  <span className="grow">{action.word}</span>
                  <kbd>{action.keys}</kbd>
                </Command.Item>
              ))}
            </Command.Group>
          ))}
          <Command.Group heading="Go to">
            {PAGES.map((page) => (
              <Command.Item
                key={page.to}
                value={`go to ${page.word}`}
                onSelect={() => go(() => void navigate({ to: page.to }))}
              >
                <page.icon size={15} aria-hidden />
                <span className="grow">{page.word}</span>
                <kbd>g {page.key}</kbd>
              </Command.Item>
            ))}
          </Command.Group>
          <Command.Group heading="This page">
            {(["light", "dark", "system"] as const).map((theme) => (
              <Command.Item
                key={theme}
                value={`theme ${theme}`}
                onSelect={() => go(() => setPrefs({ theme }))}
              >
                Theme: {theme === "system" ? "as the system" : theme}
              </Command.Item>
            ))}
            {(["utc", "local", "workflow"] as const).map((zone) => (
              <Command.Item
                key={zone}
                value={`times time zone ${zone}`}
                onSelect={() => go(() => setPrefs({ zone }))}
              >
                Times in{" "}
                {zone === "utc"
                  ? "UTC"
                  : zone === "local"
                    ? "this browser's zone"
                    : "the workflow's zone"}
              </Command.Item>
            ))}
          </Command.Group>
        </Command.List>
      </Command>
    </dialog>
  );
}
