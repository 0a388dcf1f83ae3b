import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useCallback, useMemo, useState } from "react";
import { TaskActionDialog, type TaskActionKind } from "../../act/tasks";
import { enc, request } from "../../api/client";
import type { Grid, WorkflowDetail } from "../../api/types";
import { GridCanvas } from "../../canvas/grid";
import { joinGrids } from "../../canvas/grid-geometry";
import { formatCount } from "../../model/duration";
import { useAddress } from "../../parts/address";
import { Await, Empty } from "../../parts/basics";
import { Mark } from "../../parts/mark";

type Chosen = { run: string; path: string; task: number; state: string }[];

export function WorkflowGrid({
  workflow,
  onStart,
}: {
  workflow: WorkflowDetail;
  onStart: () => void;
}) {
  const [search, set] = useAddress();
  const navigate = useNavigate();
  const [chosen, setChosen] = useState<Chosen>([]);
  const [action, setAction] = useState<TaskActionKind | null>(null);
  const path = `/workflows/${enc(workflow.name)}/grid`;
  const query = { state: search.state, trigger: search.trigger };
  const pages = useInfiniteQuery({
    queryKey: [path, query, "list"],
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      request<Grid>(path, { query: { ...query, limit: 60, cursor: pageParam }, signal }),
    getNextPageParam: (last) => last.next ?? undefined,
  });
  const grid = useMemo(() => joinGrids(pages.data?.pages ?? []), [pages.data]);
  const older = useCallback(() => {
    if (pages.hasNextPage && !pages.isFetchingNextPage) void pages.fetchNextPage();
  }, [pages.hasNextPage, pages.isFetchingNextPage, pages.fetchNextPage]);
  const openRun = useCallback(
    (id: string) => void navigate({ to: "/runs/$id", params: { id } }),
    [navigate],
  );
  const openCell = useCallback(
    (run: string, node: string, task: number, many: boolean) => {
      if (many || task < 0) {
        void navigate({ to: "/runs/$id", params: { id: run }, search: { node } as never });
      } else {
        set({ task: `${run}.${task}`, pane: undefined, attempt: undefined }, true);
      }
    },
    [navigate, set],
  );
  // Folded cells have no one task: they are not part of a bulk action by ids.
  const ids = chosen.filter((cell) => cell.task >= 0).map((cell) => `${cell.run}.${cell.task}`);
  return (
    <Await of={pages} what="the grid">
      {() =>
        grid && grid.runs.length > 0 ? (
          <>
            <GridCanvas
              grid={grid}
              onOpenRun={openRun}
              onOpenCell={openCell}
              onChoose={setChosen}
              onOlder={older}
            />
            <div className="legend quiet small">
              {chosen.length > 0 ? (
                <>
                  <span className="strong">{formatCount(chosen.length)} cells chosen</span>
                  {(["clear", "mark", "cancel"] as const).map((kind) => (
                    <button
                      key={kind}
                      type="button"
                      className="button"
                      disabled={ids.length === 0}
                      onClick={() => setAction(kind)}
                    >
                      {kind === "clear" ? "Rerun" : kind === "mark" ? "Mark" : "Cancel"}{" "}
                      {formatCount(ids.length)}…
                    </button>
                  ))}
                </>
              ) : (
                <>
                  {[
                    "succeeded",
                    "failed",
                    "running",
                    "retry_wait",
                    "upstream_failed",
                    "skipped",
                  ].map((state) => (
                    <span key={state} className="row">
                      <Mark state={state} />{" "}
                      {state.replaceAll("_", " ").replace("retry wait", "waits")}
                    </span>
                  ))}
                  <span className="grow" />
                  <span className="wide-only">
                    Drag to choose cells; a thin rule is a new version
                  </span>
                </>
              )}
            </div>
            {action ? (
              <TaskActionDialog action={action} target={{ ids }} onClose={() => setAction(null)} />
            ) : null}
          </>
        ) : (
          <Empty title="It has not run yet">
            <p>Each run becomes a column here, each task a row: history at one look.</p>
            <button type="button" className="button primary" onClick={onStart}>
              Run it now…
            </button>
          </Empty>
        )
      }
    </Await>
  );
}
