import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  type RouteComponent,
  retainSearchParams,
} from "@tanstack/react-router";
import { setNamespace } from "./api/client";
import { parseSearch, type Search, stringifySearch } from "./parts/address";
import { Empty, Loading, Problem } from "./parts/basics";
import { Frame } from "./shell/frame";
import { HomeView } from "./views/home";

const root = createRootRoute({
  component: Frame,
  validateSearch: (search: Record<string, unknown>) => search as Search,
  search: { middlewares: [retainSearchParams(["namespace"] as never)] },
  beforeLoad: ({ search }) => setNamespace((search as Search).namespace ?? "default"),
  notFoundComponent: () => (
    <div className="view">
      <Empty title="There is no such page">
        <p>The address may be cut off. Ctrl-K finds workflows, runs, assets and pages by name.</p>
      </Empty>
    </div>
  ),
});

const route = <P extends string>(path: P, component: RouteComponent) =>
  createRoute({
    getParentRoute: () => root,
    path,
    component,
    validateSearch: (search: Record<string, unknown>) => search as Search,
  });

const tree = root.addChildren([
  route("/", HomeView),
  route(
    "/workflows",
    lazyRouteComponent(() => import("./views/workflows"), "WorkflowsView"),
  ),
  route(
    "/workflows/$name",
    lazyRouteComponent(() => import("./views/workflow/workflow"), "WorkflowView"),
  ),
  route(
    "/runs",
    lazyRouteComponent(() => import("./views/runs"), "RunsView"),
  ),
  route(
    "/runs/$id",
    lazyRouteComponent(() => import("./views/run/run"), "RunView"),
  ),
  route(
    "/tasks/$id",
    lazyRouteComponent(() => import("./views/task/task"), "TaskView"),
  ),
  route(
    "/compare",
    lazyRouteComponent(() => import("./views/compare"), "CompareView"),
  ),
  route(
    "/assets",
    lazyRouteComponent(() => import("./views/assets/assets"), "AssetsView"),
  ),
  route(
    "/asset/$",
    lazyRouteComponent(() => import("./views/assets/asset"), "AssetView"),
  ),
  route(
    "/backfills",
    lazyRouteComponent(() => import("./views/backfills"), "BackfillsView"),
  ),
  route(
    "/triggers",
    lazyRouteComponent(() => import("./views/triggers"), "TriggersView"),
  ),
  route(
    "/limits",
    lazyRouteComponent(() => import("./views/limits"), "LimitsView"),
  ),
  route(
    "/events",
    lazyRouteComponent(() => import("./views/events"), "EventsView"),
  ),
  route(
    "/connections",
    lazyRouteComponent(() => import("./views/settings/connections"), "ConnectionsView"),
  ),
  route(
    "/variables",
    lazyRouteComponent(() => import("./views/settings/variables"), "VariablesView"),
  ),
  route(
    "/admin",
    lazyRouteComponent(() => import("./views/settings/admin"), "AdminView"),
  ),
]);

export const router = createRouter({
  routeTree: tree,
  parseSearch,
  stringifySearch,
  defaultPreload: "intent",
  defaultPreloadDelay: 40,
  defaultPendingMs: 300,
  defaultPendingComponent: () => <Loading what="the page" />,
  defaultErrorComponent: ({ error, reset }) => (
    <div className="view">
      <Problem error={error instanceof Error ? error : new Error(String(error))} retry={reset} />
    </div>
  ),
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
