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

interface Item {
  value: string;
  words: string;
  run: () => void;
  node: React.ReactNode;
}

interface Section {
  heading: string;
  items: Item[];
}

const CHOICES: Item[] = [
  ...(
    [
      ["light", "Theme: light"],
      ["dark", "Theme: dark"],
      ["system", "Theme: as the system"],
    ] as const
  ).map(([theme, words]) => ({
    value: `theme ${theme}`,
    words,
    run: () => setPrefs({ theme }),
    node: words,
  })),
  ...(
    [
      ["utc", "Times in UTC"],
      ["local", "Times in this browser's zone"],
      ["workflow", "Times in the workflow's zone"],
    ] as const
  ).map(([zone, words]) => ({
    value: `zone ${zone}`,
    words,
    run: () => setPrefs({ zone }),
    node: words,
  })),
];

/** Every typed word begins or is inside of one of the item's. */
export function matches(words: string, typed: string): boolean {
  const text = words.toLowerCase();
  return typed
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

export default function Palette({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  const [asked, setAsked] = useState("");
  const [chosen, setChosen] = useState("");
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
    // The list's own root can hold focus and would take it.
    dialog.current?.querySelector("input")?.focus();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);

  const go = (run: () => void) => {
    onClose();
    run();
  };
  const hits = asked && text.trim() ? (found.data?.items ?? []) : [];
  const sections: Section[] = [
    {
      heading: "Found",
      items: hits.map((hit) => ({
        value: `${hit.kind}:${hit.id}`,
        words: text,
        run: () => void navigate({ href: hitAddress(hit) } as never),
        node: (
          <>
            {hit.state ? <Mark state={hit.state} /> : <span style={{ width: 12 }} />}
            <span className="cut">{hit.title}</span>
            <span className="quiet cut grow">{hit.detail}</span>
            <span className="chip">{hit.kind}</span>
          </>
        ),
      })),
    },
    ...groups
      .filter((group) => group.title !== "Everywhere")
      .map((group) => ({
        heading: group.title,
        items: group.actions.map((action) => ({
          value: `${group.title} ${action.keys}`,
          words: action.word,
          run: action.run,
          node: (
            <>
              <span className="grow">{action.word}</span>
              <kbd>{action.keys}</kbd>
            </>
          ),
        })),
      })),
    {
      heading: "Go to",
      items: PAGES.map((page) => ({
        value: `page ${page.to}`,
        words: `go to ${page.word}`,
        run: () => void navigate({ to: page.to }),
        node: (
          <>
            <page.icon size={15} aria-hidden />
            <span className="grow">{page.word}</span>
            <kbd>g {page.key}</kbd>
          </>
        ),
      })),
    },
    { heading: "This page", items: CHOICES },
  ]
    .map((section) => ({
      ...section,
      items: section.items.filter((item) => matches(item.words, text)),
    }))
    .filter((section) => section.items.length > 0);
  const empty = sections.length === 0;
  const first = sections[0]?.items[0]?.value ?? "";
  // The best is chosen, also when it comes after the typing.
  useEffect(() => setChosen(first), [first]);
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
      <Command
        label="Search and commands"
        loop
        shouldFilter={false}
        value={chosen}
        onValueChange={setChosen}
      >
        <Command.Input
          value={text}
          onValueChange={setText}
          placeholder="A workflow, run, task, asset, or what to do"
        />
        <Command.List>
          {empty ? (
            <div className="palette-empty" role="status">
              {found.isFetching || asked !== text.trim()
                ? "Searching…"
                : "Nothing has that in its name."}
            </div>
          ) : null}
          {sections.map((section) => (
            <Command.Group key={section.heading} heading={section.heading}>
              {section.items.map((item) => (
                <Command.Item key={item.value} value={item.value} onSelect={() => go(item.run)}>
                  {item.node}
                </Command.Item>
              ))}
            </Command.Group>
          ))}
        </Command.List>
      </Command>
    </dialog>
  );
}
