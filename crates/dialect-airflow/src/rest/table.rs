//! Routes with who may use them.

use super::Rest;
use super::answer::{Call, Reply, RestError};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everybody.
    Open,
    /// Who may look.
    Read,
    /// Who may start, stop, repeat and mark.
    Operate,
    /// Who may change variables, connections and pools.
    Edit,
}

/// A route for those who check it.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub method: &'static str,
    /// `{name}` where something is to be filled in, `{*name}` where slashes are part of it.
    pub path: &'static str,
    pub level: Level,
}

pub(crate) type Act = fn(&Rest, &Call) -> Result<Reply, RestError>;

#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) level: Level,
    pub(crate) act: Act,
}

impl Route {
    pub(crate) fn access(&self) -> Access {
        Access { method: self.method, path: self.path, level: self.level }
    }
}

pub(crate) const fn get(path: &'static str, act: Act) -> Route {
    Route { method: "GET", path, level: Level::Read, act }
}

/// A request that only looks, though it is no GET.
pub(crate) const fn look(method: &'static str, path: &'static str, act: Act) -> Route {
    Route { method, path, level: Level::Read, act }
}

pub(crate) const fn operate(method: &'static str, path: &'static str, act: Act) -> Route {
    Route { method, path, level: Level::Operate, act }
}

pub(crate) const fn edit(method: &'static str, path: &'static str, act: Act) -> Route {
    Route { method, path, level: Level::Edit, act }
}

pub(crate) const fn open(method: &'static str, path: &'static str, act: Act) -> Route {
    Route { method, path, level: Level::Open, act }
}
