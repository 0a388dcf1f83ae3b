// What every route answers with: pages, refusals, filters.

export class Refused extends Error {
  constructor(status, code, message, hint = null, fields = []) {
    super(message);
    Object.assign(this, { status, code, hint, fields });
  }
}
export const missing = (what) =>
  new Refused(404, "not_found", `${what} does not exist`, "It may have been deleted.");

export function page(list, q, view = (x) => x, standard = 50) {
  const limit = Math.min(1000, Number(q.get("limit")) || standard);
  const from = Number(q.get("cursor")) || 0;
  return {
    items: list.slice(from, from + limit).map(view),
    next: from + limit < list.length ? String(from + limit) : null,
    total: list.length,
  };
}
export const words = (text) => (text ? text.split(",") : null);
export const has = (text, q) => !q || text.toLowerCase().includes(q.toLowerCase());
