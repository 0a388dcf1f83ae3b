/** `key=value` lines as an object; the value is everything after the first `=`. */
export function readKeyValues(text: string): Record<string, string> {
  const out: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const at = line.indexOf("=");
    if (at <= 0) continue;
    const key = line.slice(0, at).trim();
    if (key && key !== "__proto__") out[key] = line.slice(at + 1).trim();
  }
  return out;
}
