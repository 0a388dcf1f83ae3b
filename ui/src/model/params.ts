/** A run's parameters by name; nothing where it has none. */
export function paramsOf(run: { params: unknown }): Record<string, unknown> {
  const { params } = run;
  return params !== null && typeof params === "object" && !Array.isArray(params)
    ? (params as Record<string, unknown>)
    : {};
}
