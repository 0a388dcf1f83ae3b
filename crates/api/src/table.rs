//! Routes with who may use them and what they take and give. There is no other way to add one, so
//! none is open or undescribed by mistake.

use std::collections::HashMap;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};

use crate::auth::Role;
use crate::describe::{Describe, Described};
use crate::state::ApiState;

/// Who may use a route.
#[derive(Clone, Debug)]
pub struct Access {
    pub method: &'static str,
    /// With its base; `{name}` where something is to be filled in.
    pub path: String,
    /// `None`: without credentials.
    pub role: Option<Role>,
    pub space: Space,
}

impl From<Route> for Access {
    fn from(route: Route) -> Self {
        Self { method: route.method, path: route.path, role: route.role, space: route.space }
    }
}

/// Where a route's namespace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
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

pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// With its base.
    pub(crate) path: String,
    /// `None`: without credentials.
    pub(crate) role: Option<Role>,
    pub(crate) space: Space,
    /// What it does, in a few words.
    pub(crate) summary: &'static str,
    pub(crate) describe: Describe,
}

/// Routes below one base path.
pub(crate) struct Routes {
    base: &'static str,
    pub(crate) router: Router<ApiState>,
    pub(crate) table: Vec<Route>,
}

impl Routes {
    pub(crate) fn below(base: &'static str) -> Self {
        Self { base, router: Router::new(), table: Vec::new() }
    }

    /// Below the API's base.
    pub(crate) fn new() -> Self {
        Self::below(crate::gate::BASE)
    }

    fn add<H, X, D>(
        mut self,
        method: (&'static str, MethodFilter),
        path: &'static str,
        (role, space): (Option<Role>, Space),
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<X, ApiState> + Described<D>,
        X: 'static,
    {
        let path = format!("{}{path}", self.base);
        self.router = self.router.route(&path, on(method.1, handler));
        let describe = <H as Described<D>>::DESCRIBE;
        self.table.push(Route { method: method.0, path, role, space, summary, describe });
        self
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.table.extend(other.table);
        self
    }
}

macro_rules! methods {
    ($($name:ident $word:literal $filter:ident,)+) => {
        impl Routes {
            $(
                pub(crate) fn $name<H, X, D>(
                    self,
                    path: &'static str,
                    access: (impl Into<Option<Role>>, Space),
                    summary: &'static str,
                    handler: H,
                ) -> Self
                where
                    H: Handler<X, ApiState> + Described<D>,
                    X: 'static,
                {
                    let access = (access.0.into(), access.1);
                    self.add(($word, MethodFilter::$filter), path, access, summary, handler)
                }
            )+
        }
    };
}

methods! {
    get "GET" GET,
    post "POST" POST,
    put "PUT" PUT,
    patch "PATCH" PATCH,
    delete "DELETE" DELETE,
}

/// The table by method and path.
pub(crate) struct Table(HashMap<(&'static str, String), Route>);

impl Table {
    pub(crate) fn new(routes: Vec<Route>) -> Self {
        Self(routes.into_iter().map(|r| ((r.method, r.path.clone()), r)).collect())
    }

    pub(crate) fn find(&self, method: &str, path: &str) -> Option<&Route> {
        let method = if method == "HEAD" { "GET" } else { method };
        // The few methods are static texts.
        let method =
            ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter().find(|m| *m == method)?;
        self.0.get(&(method, path.to_owned()))
    }
}
