// Keys that act on what is on the screen. Each view says which it has; `?` lists them.

import { useEffect, useRef, useSyncExternalStore } from "react";

export interface KeyAction {
  /** `c`, `shift+c`, `ctrl+k`, `g w` (one after the other). */
  keys: string;
  word: string;
  run: () => void;
}

let groups: { title: string; actions: KeyAction[] }[] = [];
const listeners = new Set<() => void>();

function tell(): void {
  groups = [...groups];
  for (const listener of listeners) listener();
}

export const useKeyGroups = () =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => groups,
  );

export function useKeys(title: string, actions: KeyAction[]): void {
  const current = useRef(actions);
  current.current = actions;
  const signature = actions.map((action) => action.keys).join(" | ");
  // biome-ignore lint/correctness/useExhaustiveDependencies: the signature stands for the actions
  useEffect(() => {
    const group = {
      title,
      actions: current.current.map((action, i) => ({
        ...action,
        run: () => current.current[i]?.run(),
      })),
    };
    groups.push(group);
    tell();
    return () => {
      groups = groups.filter((other) => other !== group);
      tell();
    };
  }, [title, signature]);
}

function typing(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable) return true;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio"].includes(target.type);
  return target.matches("textarea, select");
}

export function keyText(event: KeyboardEvent): string {
  const parts: string[] = [];
  if (event.ctrlKey || event.metaKey) parts.push("ctrl");
  if (event.altKey) parts.push("alt");
  const letter = event.key.length === 1 && /[a-z]/i.test(event.key);
  if (event.shiftKey && letter) parts.push("shift");
  parts.push(event.key.toLowerCase());
  return parts.join("+");
}

let prefix: string | null = null;
let prefixTimer: ReturnType<typeof setTimeout> | null = null;

export function startKeys(): () => void {
  const onKey = (event: KeyboardEvent) => {
    if (event.defaultPrevented || event.isComposing) return;
    const text = keyText(event);
    const modified = text.startsWith("ctrl+") || text.startsWith("alt+");
    if (typing(event.target) && !modified) return;
    if (document.querySelector("dialog[open]") && !modified) return;
    const wanted = prefix ? `${prefix} ${text}` : text;
    prefix = null;
    if (prefixTimer !== null) clearTimeout(prefixTimer);
    // The view's own keys come before the frame's.
    for (const group of [...groups].reverse()) {
      for (const action of group.actions) {
        if (action.keys === wanted) {
          event.preventDefault();
          action.run();
          return;
        }
      }
    }
    if (groups.some((g) => g.actions.some((action) => action.keys.startsWith(`${text} `)))) {
      prefix = text;
      prefixTimer = setTimeout(() => {
        prefix = null;
      }, 1200);
    }
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}
