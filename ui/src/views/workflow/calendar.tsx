import { useNavigate } from "@tanstack/react-router";
import { enc } from "../../api/client";
import { useApi } from "../../api/hooks";
import type { WorkflowDetail } from "../../api/types";
import { barShares, countsText, lookOf, totalOf, worstState } from "../../model/states";
import { useAddress } from "../../parts/address";
import { Await } from "../../parts/basics";
import { useZone } from "../../shell/prefs";
import { weeksOf } from "./months";

interface Day {
  date: string;
  counts: Record<string, number>;
  planned: number;
}

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];

/** A year of days: the worst run of each, and how many are planned on those to come. */
export function Calendar({ workflow }: { workflow: WorkflowDetail }) {
  const zone = useZone();
  const navigate = useNavigate();
  const [search, set] = useAddress();
  const thisYear = new Date().getUTCFullYear();
  const year = Number(search.year) || thisYear;
  const query = useApi<{ days: Day[] }>(`/workflows/${enc(workflow.name)}/calendar`, {
    from: `${year}-01-01`,
    to: `${year}-12-31`,
    timezone: zone,
  });
  const byDate = new Map((query.data?.days ?? []).map((day) => [day.date, day]));
  return (
    <Await of={query} what="the calendar">
      {() => (
        <div className="stack">
          <div className="row">
            <button
              type="button"
              className="button"
              aria-label="The year before"
              onClick={() => set({ year: String(year - 1) })}
            >
              ←
            </button>
            <span className="strong">{year}</span>
            <button
              type="button"
              className="button"
              aria-label="The year after"
              onClick={() => set({ year: String(year + 1) })}
            >
              →
            </button>
            <span className="quiet">days in {zone}</span>
          </div>
          <div className="months">
            {MONTHS.map((name, month) => (
              <section key={name} aria-label={`${name} ${year}`}>
                <h2>{name}</h2>
                <div className="month">
                  {weeksOf(year, month)
                    .flat()
                    .map((date, i) => {
                      if (!date) return <span key={`gap${i}`} />;
                      const day = byDate.get(date);
                      const worst = day ? worstState(day.counts) : null;
                      const n = day ? totalOf(day.counts) : 0;
                      const words = day
                        ? `${date}: ${n > 0 ? countsText(day.counts) : ""}${day.planned > 0 ? `${n > 0 ? "; " : ""}${day.planned} planned` : ""}`
                        : `${date}: no run`;
                      const className = `day${worst ? " has" : ""}${!worst && day && day.planned > 0 ? " planned" : ""}`;
                      const label = (
                        <>
                          {Number(date.slice(8))}
                          <span className="hidden-visually">{words}</span>
                          {day && n > 0 ? (
                            <span className="day-bar">
                              {barShares(day.counts, 0.2).map((part) => (
                                <i
                                  key={part.state}
                                  className={`look-${lookOf(part.state)}`}
                                  style={{ flexGrow: part.share }}
                                />
                              ))}
                            </span>
                          ) : null}
                        </>
                      );
                      return n > 0 ? (
                        <button
                          key={date}
                          type="button"
                          className={className}
                          title={words}
                          onClick={() =>
                            void navigate({
                              to: ".",
                              search: {
                                tab: "runs",
                                since: `${date}T00:00:00Z`,
                                until: `${date}T23:59:59Z`,
                              } as never,
                            })
                          }
                        >
                          {label}
                        </button>
                      ) : (
                        <span key={date} className={className} title={words}>
                          {label}
                        </span>
                      );
                    })}
                </div>
              </section>
            ))}
          </div>
        </div>
      )}
    </Await>
  );
}
