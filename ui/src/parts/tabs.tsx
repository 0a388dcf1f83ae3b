import { Link } from "@tanstack/react-router";
import type { Search } from "./address";

/** Tabs as links: each has its address, and what belonged to another tab stays in the query. */
export function Tabs({
  param,
  value,
  items,
  clears = [],
}: {
  param: string;
  value: string;
  items: (readonly [string, React.ReactNode])[];
  clears?: string[];
}) {
  return (
    <nav className="tabs" aria-label="Parts of this page">
      {items.map(([key, word]) => (
        <Link
          key={key}
          to="."
          search={
            ((previous: Search) => {
              const next: Search = { ...previous, [param]: key };
              for (const name of clears) delete next[name];
              return next;
            }) as never
          }
          replace
          preload={false}
          activeOptions={{ exact: true }}
          activeProps={{}}
          aria-current={value === key ? "page" : undefined}
        >
          {word}
        </Link>
      ))}
    </nav>
  );
}
