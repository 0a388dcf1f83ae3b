//! Wakes the loop when a child ends or the shim is told to end.
//!
//! A signal handler and an event counter rather than a signalfd: that needs the signal blocked, and
//! children would inherit the block.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static COUNTER: AtomicI32 = AtomicI32::new(-1);
static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

pub(super) struct Wake {
    counter: EventFd,
}

extern "C" fn on_signal(signal: i32) {
    if signal == Signal::SIGTERM as i32 {
        TOLD_TO_END.store(true, Ordering::Relaxed);
    }
    let one = 1u64.to_ne_bytes();
    #[expect(unsafe_code, reason = "the only way to write from a signal handler")]
    // SAFETY: `write` is async-signal-safe, `one` is valid for 8 bytes, and a bad descriptor only
    // makes it fail. It may change errno; the interrupted code is saved from that below.
    unsafe {
        let errno = nix::libc::__errno_location();
        let before = *errno;
        nix::libc::write(COUNTER.load(Ordering::Relaxed), one.as_ptr().cast(), 8);
        *errno = before;
    }
}

impl Wake {
    pub(super) fn install() -> nix::Result<Self> {
        let counter =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        COUNTER.store(counter.as_fd().as_raw_fd(), Ordering::Relaxed);
        let action =
            SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGCHLD, Signal::SIGTERM] {
            #[expect(unsafe_code, reason = "installing a signal handler")]
            // SAFETY: the handler does only async-signal-safe things: atomics and `write`.
            unsafe {
                sigaction(signal, &action)?;
            }
        }
        Ok(Self { counter })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }

    pub(super) fn clear(&self) {
        let _ = self.counter.read();
    }

    pub(super) fn told_to_end(&self) -> bool {
        TOLD_TO_END.load(Ordering::Relaxed)
    }
}
