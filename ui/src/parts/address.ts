// The page's address holds the whole state of a view: plain words in the query, no encoded JSON.

import { useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback } from "react";

export type Search = Record<string, string>;

/** `?state=failed,running&q=etl` and back. Empty values are left out. */
export function parseSearch(text: string): Search {
  const out: Search = {};
  for (const [key, value] of new URLSearchParams(text)) {
    if (value !== "" && key !== "__proto__") out[key] = value;
  }
  return out;
}

export function stringifySearch(search: Record<string, unknown>): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(search)) {
    if (value !== undefined && value !== null && value !== "") params.set(key, String(value));
  }
  const text = params
    .toString()
    .replaceAll("%2C", ",")
    .replaceAll("%3A", ":")
    .replaceAll("%2F", "/");
  return text ? `?${text}` : "";
}

export function listOf(value: string | undefined): string[] {
  return value ? value.split(",").filter(Boolean) : [];
}

/** Adds the word to a comma separated list, or takes it out. */
export function toggled(value: string | undefined, word: string): string {
  const list = listOf(value);
  return (list.includes(word) ? list.filter((w) => w !== word) : [...list, word]).join(",");
}

export type SetSearch = (patch: Record<string, string | undefined>, push?: boolean) => void;

/** The address's query and a way to change parts of it. Filters replace the entry in the history;
 * `push` makes a new one, for what Back should close. */
export function useAddress(): [Search, SetSearch] {
  const search = useSearch({ strict: false }) as Search;
  const navigate = useNavigate();
  const set = useCallback<SetSearch>(
    (patch, push = false) => {
      void navigate({
        to: ".",
        search: ((previous: Search) => {
          const next: Record<string, string | undefined> = { ...previous, ...patch };
          for (const key of Object.keys(next)) if (!next[key]) delete next[key];
          return next;
        }) as never,
        replace: !push,
        resetScroll: false,
        hash: true,
      });
    },
    [navigate],
  );
  return [search, set];
}
