//! Expression and template languages. Pure: what a template may look at comes in as data.

pub mod argo_expr;
pub mod argo_template;
pub mod govaluate;
pub mod native;
