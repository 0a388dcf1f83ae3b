// Queries are keyed by the address they read, so that an event can say which ones it made old.

import {
  keepPreviousData,
  QueryClient,
  useInfiniteQuery,
  useMutation,
  useQuery,
  useQueryClient,
} from "@tanstack/react-query";
import { useMemo, useRef } from "react";
import { toast } from "../parts/toast";
import { ApiError, type Query, request } from "./client";
import type { Page } from "./types";

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      // Events say when something is old; there is no polling.
      staleTime: 30_000,
      gcTime: 600_000,
      refetchOnWindowFocus: false,
      refetchOnReconnect: true,
      networkMode: "always",
      placeholderData: keepPreviousData,
      retry: (count, error) =>
        count < 2 && error instanceof ApiError && (error.unreachable || error.status >= 500),
      retryDelay: (count) => 400 * 2 ** count,
    },
    mutations: { networkMode: "always" },
  },
});

function clean(query: Query): Query {
  return Object.fromEntries(
    Object.entries(query).filter(
      ([, value]) => value !== undefined && value !== "" && value !== null,
    ),
  );
}

/** Reads one resource. `null` as path waits; `every` asks again after so many milliseconds, for what
 * no event tells. */
export function useApi<T>(
  path: string | null,
  query: Query = {},
  options: { keep?: boolean; every?: number } = {},
) {
  const cleaned = clean(query);
  return useQuery<T, Error>({
    queryKey: [path ?? "", cleaned],
    enabled: path !== null,
    queryFn: ({ signal }) => request<T>(path ?? "", { query: cleaned, signal }),
    ...(options.keep === false ? { placeholderData: undefined } : {}),
    ...(options.every ? { refetchInterval: options.every } : {}),
  });
}

/** Reads a list page by page; `items` is what has come so far. */
export function useList<T, P extends Page<T> = Page<T>>(
  path: string | null,
  query: Query = {},
  limit = 100,
) {
  const cleaned = clean(query);
  const result = useInfiniteQuery({
    queryKey: [path ?? "", { ...cleaned, limit }, "list"],
    enabled: path !== null,
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      request<P>(path ?? "", { query: { ...cleaned, limit, cursor: pageParam }, signal }),
    getNextPageParam: (last) => last.next ?? undefined,
    maxPages: 0,
  });
  const items = useMemo(
    () => result.data?.pages.flatMap((page) => page.items) ?? [],
    [result.data],
  );
  const first = result.data?.pages[0];
  return { ...result, items, first, total: first?.total };
}

export interface ActionOptions<T, V> {
  run: (variables: V, key: string) => Promise<T>;
  /** Address beginnings whose queries are old afterwards. */
  touches?: string[] | ((result: T, variables: V) => string[]);
  done?: string | ((result: T, variables: V) => string | null);
  onSuccess?: (result: T, variables: V) => void;
  /** The form shows the error itself. */
  quiet?: boolean;
}

/** A write. One idempotency key per try of the same variables, kept while the server cannot be
 * reached, so that "try again" never does a thing twice. */
export function useAction<T, V = void>(options: ActionOptions<T, V>) {
  const client = useQueryClient();
  const pending = useRef<{ variables: string; key: string } | null>(null);
  return useMutation<T, Error, V>({
    mutationFn: (variables) => {
      const text = JSON.stringify(variables ?? null);
      if (pending.current?.variables !== text) {
        pending.current = { variables: text, key: crypto.randomUUID() };
      }
      return options.run(variables, pending.current.key);
    },
    onSuccess: (result, variables) => {
      pending.current = null;
      const touches =
        typeof options.touches === "function"
          ? options.touches(result, variables)
          : options.touches;
      if (touches) void invalidate(client, touches);
      const text =
        typeof options.done === "function" ? options.done(result, variables) : options.done;
      if (text) toast({ kind: "done", text });
      options.onSuccess?.(result, variables);
    },
    onError: (error) => {
      if (!(error instanceof ApiError && error.unreachable)) pending.current = null;
      if (!options.quiet) toastError(error);
    },
  });
}

export function toastError(error: Error): void {
  const hint = error instanceof ApiError ? error.hint : null;
  toast({ kind: "error", text: error.message, hint });
}

export function invalidate(client: QueryClient, prefixes: Iterable<string>): Promise<void> {
  const list = [...prefixes];
  return client.invalidateQueries({
    predicate: (query) => {
      const path = String(query.queryKey[0] ?? "");
      return list.some((prefix) => path === prefix || path.startsWith(`${prefix}/`));
    },
  });
}
