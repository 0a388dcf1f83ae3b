// Choices that belong to the person at this browser: theme, zone, folded rail, wrapped logs.

import { useEffect, useSyncExternalStore } from "react";
import { isZone, type ZoneChoice, zoneName } from "../model/zone";

export interface Prefs {
  theme: "light" | "dark" | "system";
  zone: ZoneChoice;
  folded: boolean;
  wrap: boolean;
  logTimes: boolean;
}

const STANDARD: Prefs = {
  theme: "system",
  zone: "local",
  folded: false,
  wrap: false,
  logTimes: false,
};

const KEY = "kobza.prefs";

function load(): Prefs {
  try {
    return { ...STANDARD, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Prefs>) };
  } catch {
    return STANDARD;
  }
}

let prefs = load();
let workflowZone: string | null = null;
const listeners = new Set<() => void>();
const subscribe = (listener: () => void) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};

function tell(): void {
  for (const listener of listeners) listener();
}

export function setPrefs(patch: Partial<Prefs>): void {
  prefs = { ...prefs, ...patch };
  try {
    localStorage.setItem(KEY, JSON.stringify(prefs));
  } catch {
    // A browser that keeps nothing: the choice lasts as long as the page.
  }
  if (patch.theme !== undefined) applyTheme();
  tell();
}

export const usePrefs = (): Prefs => useSyncExternalStore(subscribe, () => prefs);

const dark = () => window.matchMedia?.("(prefers-color-scheme: dark)");

export function isDark(): boolean {
  return prefs.theme === "dark" || (prefs.theme === "system" && Boolean(dark()?.matches));
}

export function applyTheme(): void {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  tell();
}

export function startTheme(): void {
  applyTheme();
  dark()?.addEventListener("change", applyTheme);
}

export const useDark = (): boolean => useSyncExternalStore(subscribe, isDark);

/** The zone that all times on the page are shown in. */
export const useZone = (): string =>
  useSyncExternalStore(subscribe, () => zoneName(prefs.zone, workflowZone));

export const useWorkflowZoneName = (): string | null =>
  useSyncExternalStore(subscribe, () => workflowZone);

/** A page about one workflow names that workflow's zone. */
export function useWorkflowZone(zone: string | null | undefined): void {
  useEffect(() => {
    workflowZone = zone && isZone(zone) ? zone : null;
    tell();
    return () => {
      workflowZone = null;
      tell();
    };
  }, [zone]);
}
