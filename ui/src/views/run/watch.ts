import { useEffect } from "react";
import { watchRun } from "../../api/live";

/** Asks for the run's task events while the page shows it. */
export function useWatchedRun(run: string | null): void {
  useEffect(() => {
    if (!run) return;
    watchRun(run);
    return () => watchRun(null);
  }, [run]);
}
