/** An asset's page: its key's parts are the path's. */
export function assetPath(key: string): string {
  return `/asset/${key.split("/").map(encodeURIComponent).join("/")}`;
}
