//! The dialect on the real engine: with scripted bodies, and with real processes.

mod conformance;
mod driver;
mod flows;
mod rest;
