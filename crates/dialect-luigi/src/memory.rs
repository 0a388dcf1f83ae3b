//! A scheduler whose rows live in memory: for conformance tests and trials without a store.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kobza_engine::{Machine as _, MachineOutput, MachineRequest};
use kobza_model::{Json, MachineRow, Now, RunId};
use kobza_runtime::Clock;

use crate::config::LuigiConfig;
use crate::http::{Call, HostError, MachineHost};
use crate::machine::LuigiMachine;

/// A machine with its rows and a clock.
pub struct MemoryHost {
    run: RunId,
    config: LuigiConfig,
    clock: Clock,
    inner: Mutex<Inner>,
}

struct Inner {
    machine: LuigiMachine,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryHost {
    #[must_use]
    pub fn new(run: RunId, config: LuigiConfig) -> Self {
        let machine = LuigiMachine::new(run, config.clone());
        let inner = Mutex::new(Inner { machine, rows: BTreeMap::new() });
        Self { run, config, clock: Clock::new(kobza_model::EngineTime(0)), inner }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The two clocks' readings.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// One call, at a given time.
    pub fn call_at(&self, now: Now, method: &str, arguments: &Json) -> Result<Json, String> {
        let mut inner = self.lock();
        let mut out = MachineOutput::default();
        let request = MachineRequest { now, method, arguments };
        let reply = inner.machine.call(request, &mut out);
        for (key, value) in out.rows {
            match value {
                Some(value) => inner.rows.insert(key, value),
                None => inner.rows.remove(&key),
            };
        }
        reply
    }

    /// Makes the machine anew from its rows.
    pub(crate) fn reload(&self) {
        let mut inner = self.lock();
        let rows = inner.rows.iter().map(|(key, value)| MachineRow {
            run: self.run,
            key: key.clone(),
            value: Some(value.clone()),
        });
        let mut fresh = LuigiMachine::new(self.run, self.config.clone());
        fresh.restore_for_comparison(rows.collect(), &inner.machine);
        inner.machine = fresh;
    }
}

impl MachineHost for MemoryHost {
    fn call(&self, _run: RunId, method: &str, arguments: Json) -> Call<'_> {
        let reply = self.call_at(self.now(), method, &arguments);
        Box::pin(std::future::ready(reply.map_err(HostError::Refused)))
    }
}
