import { type ReactNode, useEffect, useSyncExternalStore } from "react";

export interface Crumb {
  key: string;
  node: ReactNode;
}

let trail: Crumb[] = [];
const listeners = new Set<() => void>();

function set(next: Crumb[]): void {
  trail = next;
  for (const listener of listeners) listener();
}

export const useTrail = () =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => trail,
  );

/** Names the page: in the top bar and as the document's title. */
export function useTitle(title: string, crumbs: Crumb[]): void {
  const signature = crumbs.map((crumb) => crumb.key).join(" / ");
  // biome-ignore lint/correctness/useExhaustiveDependencies: the signature stands for the crumbs
  useEffect(() => {
    document.title = `${title} · Kobza`;
    set(crumbs);
  }, [title, signature]);
}
