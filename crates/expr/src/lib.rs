//! Expression and template languages. Pure: what a template may look at comes in as data.

pub mod native;
