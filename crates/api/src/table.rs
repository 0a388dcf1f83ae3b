//! Every route with who may use it. The router, this table and the published description are
//! compared by a test; a route that is not here is refused.

use crate::auth::Role::{self, Admin, Editor, Operator, Viewer};

/// Where a route's namespace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// The query's `namespace`.
    Query,
    /// The run or task in the path.
    Run,
    /// Not of one namespace: a role that holds everywhere is needed.
    Global,
    /// The handler looks at each item that it touches.
    Handler,
    /// The trigger or backfill in the path.
    Object,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// `None`: without credentials.
    pub(crate) role: Option<Role>,
    pub(crate) space: Space,
    pub(crate) summary: &'static str,
}

const fn route(
    method: &'static str,
    path: &'static str,
    role: Option<Role>,
    space: Space,
    summary: &'static str,
) -> Route {
    Route { method, path, role, space, summary }
}

use Space::{Global, Handler, Object, Query, Run};

#[rustfmt::skip]
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/health", None, Global, "Whether the server works"),
    route("GET", "/openapi.json", None, Global, "This description"),
    route("POST", "/session", None, Global, "Sign in"),
    route("DELETE", "/session", None, Global, "Sign out"),
    route("GET", "/me", Some(Viewer), Handler, "Who asks"),
    route("GET", "/namespaces", Some(Viewer), Handler, "Namespaces"),
    route("GET", "/summary", Some(Viewer), Query, "What goes on"),
    route("GET", "/search", Some(Viewer), Query, "Find anything by name"),
    route("GET", "/workflows", Some(Viewer), Query, "Workflows"),
    route("POST", "/workflows", Some(Editor), Query, "Store a definition"),
    route("GET", "/workflows/{name}", Some(Viewer), Query, "A workflow"),
    route("PATCH", "/workflows/{name}", Some(Operator), Query, "Pause or resume a workflow"),
    route("DELETE", "/workflows/{name}", Some(Editor), Query, "Delete a workflow"),
    route("GET", "/workflows/{name}/graph", Some(Viewer), Query, "A workflow's graph"),
    route("GET", "/workflows/{name}/versions", Some(Viewer), Query, "Versions"),
    route("GET", "/workflows/{name}/versions/{version}", Some(Viewer), Query, "A version"),
    route("GET", "/workflows/{name}/grid", Some(Viewer), Query, "Runs by tasks"),
    route("GET", "/workflows/{name}/calendar", Some(Viewer), Query, "Runs by day"),
    route("GET", "/workflows/{name}/durations", Some(Viewer), Query, "How long tasks take"),
    route("POST", "/workflows/{name}/runs", Some(Operator), Query, "Start a run"),
    route("GET", "/runs", Some(Viewer), Query, "Runs"),
    route("POST", "/runs/bulk", Some(Operator), Handler, "One action on many runs"),
    route("GET", "/compare", Some(Viewer), Handler, "Runs next to each other"),
    route("GET", "/runs/{id}", Some(Viewer), Run, "A run"),
    route("PATCH", "/runs/{id}", Some(Operator), Run, "Note and labels of a run"),
    route("DELETE", "/runs/{id}", Some(Operator), Run, "Delete a run"),
    route("POST", "/runs/{id}/cancel", Some(Operator), Run, "Stop a run"),
    route("POST", "/runs/{id}/pause", Some(Operator), Run, "Pause a run"),
    route("POST", "/runs/{id}/resume", Some(Operator), Run, "Resume a run"),
    route("POST", "/runs/{id}/rerun", Some(Operator), Run, "Start it anew"),
    route("GET", "/runs/{id}/graph", Some(Viewer), Run, "A run's graph"),
    route("GET", "/runs/{id}/tasks", Some(Viewer), Run, "A run's tasks"),
    route("GET", "/runs/{id}/timeline", Some(Viewer), Run, "When tasks waited and ran"),
    route("POST", "/tasks/bulk", Some(Operator), Handler, "One action on many tasks"),
    route("GET", "/tasks/{id}", Some(Viewer), Run, "A task"),
    route("GET", "/tasks/{id}/why", Some(Viewer), Run, "Why it waits or ended so"),
    route("GET", "/tasks/{id}/attempts", Some(Viewer), Run, "Attempts"),
    route("GET", "/tasks/{id}/outputs", Some(Viewer), Run, "Outputs"),
    route("POST", "/tasks/{id}/approve", Some(Operator), Run, "Decide for a task that waits"),
    route("GET", "/tasks/{id}/attempts/{attempt}/log", Some(Viewer), Run, "Lines of a log"),
    route("GET", "/tasks/{id}/attempts/{attempt}/log/stream", Some(Viewer), Run, "A log as it grows"),
    route("GET", "/tasks/{id}/attempts/{attempt}/log/search", Some(Viewer), Run, "Lines that match"),
    route("GET", "/tasks/{id}/attempts/{attempt}/log/download", Some(Viewer), Run, "A log whole"),
    route("GET", "/assets", Some(Viewer), Query, "Assets"),
    route("GET", "/assets/{key}", Some(Viewer), Query, "An asset"),
    route("GET", "/assets/{key}/history", Some(Viewer), Query, "What happened to an asset"),
    route("GET", "/assets/{key}/partitions", Some(Viewer), Query, "Partitions"),
    route("GET", "/assets-graph", Some(Viewer), Query, "Lineage"),
    route("GET", "/triggers", Some(Viewer), Query, "Triggers"),
    route("GET", "/triggers/{id}", Some(Viewer), Object, "A trigger"),
    route("PATCH", "/triggers/{id}", Some(Operator), Object, "Pause or resume a trigger"),
    route("POST", "/triggers/{id}/fire", Some(Operator), Object, "Start its run now"),
    route("GET", "/triggers/{id}/decisions", Some(Viewer), Object, "What it decided, and why"),
    route("GET", "/triggers/{id}/upcoming", Some(Viewer), Object, "When it acts next"),
    route("GET", "/backfills", Some(Viewer), Query, "Backfills"),
    route("POST", "/backfills", Some(Operator), Query, "Preview or begin a backfill"),
    route("GET", "/backfills/{id}", Some(Viewer), Object, "A backfill"),
    route("GET", "/backfills/{id}/slots", Some(Viewer), Object, "Its runs"),
    route("POST", "/backfills/{id}/pause", Some(Operator), Object, "Start no more"),
    route("POST", "/backfills/{id}/resume", Some(Operator), Object, "Go on"),
    route("POST", "/backfills/{id}/cancel", Some(Operator), Object, "Cancel it"),
    route("POST", "/backfills/{id}/retry_failed", Some(Operator), Object, "Repeat what failed"),
    route("GET", "/limits", Some(Viewer), Handler, "Limits"),
    route("PUT", "/limits/{name}", Some(Editor), Global, "Set a limit"),
    route("DELETE", "/limits/{name}", Some(Editor), Global, "Remove a limit"),
    route("GET", "/limits/{name}/holders", Some(Viewer), Global, "Who holds it"),
    route("GET", "/limits/{name}/waiters", Some(Viewer), Global, "Who waits for it"),
    route("GET", "/connections", Some(Viewer), Query, "Connections, without what is secret"),
    route("PUT", "/connections/{name}", Some(Editor), Query, "Set a connection"),
    route("DELETE", "/connections/{name}", Some(Editor), Query, "Remove a connection"),
    route("GET", "/variables", Some(Viewer), Query, "Variables, without what is secret"),
    route("PUT", "/variables/{key}", Some(Editor), Query, "Set a variable"),
    route("DELETE", "/variables/{key}", Some(Editor), Query, "Remove a variable"),
    route("GET", "/events", Some(Viewer), Handler, "The event log"),
    route("GET", "/events/stream", Some(Viewer), Handler, "Events as they happen"),
    route("GET", "/audit", Some(Admin), Global, "Who changed what"),
    route("GET", "/users", Some(Admin), Global, "People"),
    route("POST", "/users", Some(Admin), Global, "Add or change a person"),
    route("DELETE", "/users/{name}", Some(Admin), Global, "Remove a person"),
    route("GET", "/tokens", Some(Admin), Global, "Tokens, without their text"),
    route("POST", "/tokens", Some(Admin), Global, "Make a token; its text is shown once"),
    route("DELETE", "/tokens/{id}", Some(Admin), Global, "Revoke a token"),
];

pub(crate) fn find(method: &str, path: &str) -> Option<&'static Route> {
    let method = if method == "HEAD" { "GET" } else { method };
    ROUTES.iter().find(|r| r.method == method && r.path == path)
}
