import { useList } from "../../api/hooks";
import type { Run, Timeline, TimelineItem } from "../../api/types";
import { TimelineCanvas } from "../../canvas/timeline";
import { formatCount } from "../../model/duration";
import { Await, Empty } from "../../parts/basics";

export function RunTimeline({
  run,
  chosen,
  onOpen,
}: {
  run: Run;
  chosen: string | null;
  onOpen: (task: string) => void;
}) {
  const list = useList<TimelineItem, Timeline>(`/runs/${run.id}/timeline`, {}, 500);
  return (
    <Await of={list} what="the timeline">
      {() => {
        const first = list.first;
        if (!first || list.items.length === 0) {
          return (
            <Empty title="Nothing has started">
              <p>Each attempt becomes a row here: thin while it waits, solid while it runs.</p>
            </Empty>
          );
        }
        return (
          <>
            <TimelineCanvas
              items={list.items}
              start={Date.parse(first.start)}
              end={first.end ? Date.parse(first.end) : null}
              total={first.total ?? list.items.length}
              chosen={chosen}
              onOpen={(item) => onOpen(item.task)}
              onMore={
                list.hasNextPage && !list.isFetchingNextPage
                  ? () => void list.fetchNextPage()
                  : undefined
              }
            />
            <div className="legend quiet small">
              <span className="row">
                <i className="swatch thin look-pending" /> waits for upstream
              </span>
              <span className="row">
                <i className="swatch thin look-waiting" /> for a limit or a retry
              </span>
              <span className="row">
                <i className="swatch thin look-queued" /> for a worker
              </span>
              <span className="row">
                <i className="swatch look-succeeded" /> runs
              </span>
              <span className="row">
                <i className="swatch critical look-succeeded" /> on the critical path
              </span>
              <span className="grow" />
              {list.hasNextPage ? (
                <span>
                  {formatCount(list.items.length)} of{" "}
                  {formatCount(first.total ?? list.items.length)}
                </span>
              ) : null}
            </div>
          </>
        );
      }}
    </Await>
  );
}
