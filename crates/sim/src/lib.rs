//! The deterministic simulator: the engine, a store in memory and fake executors under one seed.
//!
//! Each seed makes its own workflows, outcomes and faults. After every step the invariants are
//! checked; at the end every run must have ended as the slow reference interpreter says, whatever
//! crashed in between. A seed that fails is a test: `Sim::new(seed).run(steps)`.

mod executor;
mod generate;
mod random;
mod reference;
mod store;
mod world;

pub use generate::workflow;
pub use random::Random;
pub use reference::interpret;
pub use world::{Failure, Report, Sim};
