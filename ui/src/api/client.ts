// One way to the server: JSON in, JSON out, errors that say what to do.

export interface FieldError {
  path: string;
  line: number | null;
  column: number | null;
  message: string;
}

export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 when the server was not reached. */
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string | null = null,
    readonly fields: FieldError[] = [],
  ) {
    super(message);
    this.name = "ApiError";
  }

  get unreachable(): boolean {
    return this.status === 0;
  }
}

export type Query = Record<string, string | number | boolean | null | undefined>;

let currentNamespace = "default";

/** Follows the `namespace` of the page's address. */
export function setNamespace(namespace: string): void {
  currentNamespace = namespace;
}

export function apiUrl(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  if (currentNamespace !== "default") search.set("namespace", currentNamespace);
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") search.set(key, String(value));
  }
  const text = search.toString();
  return `/api/v1${path}${text ? `?${text}` : ""}`;
}

type Listener = (reached: boolean) => void;
const reachListeners = new Set<Listener>();

/** Told after each request whether the server answered at all. */
export function onReach(listener: Listener): () => void {
  reachListeners.add(listener);
  return () => reachListeners.delete(listener);
}

function reached(value: boolean): void {
  for (const listener of reachListeners) listener(value);
}

async function errorFrom(response: Response): Promise<ApiError> {
  let body: unknown = null;
  try {
    body = await response.json();
  } catch {
    // Not JSON: a proxy's page; the status has to do.
  }
  const error = (body as { error?: Partial<ApiError> } | null)?.error;
  if (error && typeof error.message === "string") {
    return new ApiError(
      response.status,
      error.code ?? "error",
      error.message,
      error.hint ?? null,
      error.fields ?? [],
    );
  }
  return new ApiError(
    response.status,
    "http",
    `The server answered ${response.status} ${response.statusText}`.trim(),
    "Its log says more.",
  );
}

export interface Request {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  query?: Query;
  body?: unknown;
  /** Sent as it is, with this content type, in place of JSON. */
  raw?: { type: string; text: string };
  signal?: AbortSignal;
  idempotencyKey?: string;
}

export async function request<T>(path: string, options: Request = {}): Promise<T> {
  const method = options.method ?? "GET";
  const headers: Record<string, string> = { accept: "application/json" };
  let body: string | undefined;
  if (options.raw) {
    headers["content-type"] = options.raw.type;
    body = options.raw.text;
  } else if (options.body !== undefined) {
    headers["content-type"] = "application/json";
    body = JSON.stringify(options.body);
  }
  if (method !== "GET") {
    headers["x-kobza-csrf"] = "1";
    headers["idempotency-key"] = options.idempotencyKey ?? crypto.randomUUID();
  }
  let response: Response;
  try {
    response = await fetch(apiUrl(path, options.query), {
      method,
      headers,
      body: body ?? null,
      signal: options.signal ?? null,
      credentials: "same-origin",
    });
  } catch (cause) {
    if (options.signal?.aborted) throw cause;
    reached(false);
    throw new ApiError(
      0,
      "unreachable",
      "The server does not answer.",
      method === "GET" ? "Shown is what was known before." : "Nothing was changed; try again.",
    );
  }
  // A proxy in front of a dead server answers for it.
  reached(response.status !== 502 && response.status !== 504);
  if (!response.ok) throw await errorFrom(response);
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

export const enc = encodeURIComponent;
