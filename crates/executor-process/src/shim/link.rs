//! The server at the other end: what it says, and what it is told.

use kobza_model::LaunchId;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::client::Client;
use super::loop_state::{CLIENT, Shim};
use crate::wire::{FromShim, Hello, PROTOCOL, ToShim, encode};

/// Launches that are over and confirmed, remembered against a late repetition.
const REMEMBERED: usize = 16 * 1024;

impl Shim {
    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let mut client = match Client::accept(stream) {
                Ok(client) => client,
                Err(error) => {
                    eprintln!("kobza shim: {error}");
                    continue;
                }
            };
            client.put(&self.hello());
            client.catch_up(&self.spool);
            self.asks.values().for_each(|frame| client.put(frame));
            let event = EpollEvent::new(EpollFlags::EPOLLIN, CLIENT);
            // The newest server is the right one: only one can own the store.
            self.drop_client();
            if self.epoll.add(client.fd(), event).is_ok() {
                self.client = Some(client);
            }
        }
    }

    fn hello(&self) -> Vec<u8> {
        let launches = self.known.keys().copied().collect();
        let hello = Hello { protocol: PROTOCOL, pid: std::process::id(), launches };
        let mut frame = Vec::new();
        if let Err(error) = encode(&FromShim::Hello(hello), &mut frame) {
            eprintln!("kobza shim: {error}");
        }
        frame
    }

    /// Puts a frame to the server, if one is there, behind all that was said before.
    pub(super) fn tell(&mut self, frame: &[u8]) {
        if let Some(client) = &mut self.client {
            client.catch_up(&self.spool);
            client.put(frame);
        }
    }

    fn drop_client(&mut self) {
        if let Some(client) = self.client.take() {
            let _ = self.epoll.delete(client.fd());
        }
    }

    pub(super) fn read_client(&mut self) {
        let Some(mut client) = self.client.take() else { return };
        let mut alive = match client.fill() {
            Ok(alive) => alive,
            Err(error) => {
                eprintln!("kobza shim: read from the server: {error}");
                false
            }
        };
        loop {
            match client.next() {
                Ok(Some(ToShim::List)) => client.put(&self.hello()),
                Ok(Some(command)) => self.command(command),
                Ok(None) => break,
                Err(error) => {
                    eprintln!("kobza shim: {error}");
                    alive = false;
                    break;
                }
            }
        }
        self.client = Some(client);
        if !alive {
            self.drop_client();
        }
    }

    pub(super) fn flush_client(&mut self) {
        let Some(client) = &mut self.client else { return };
        match client.flush(&self.spool) {
            Ok(more) if more == client.wants_write => {}
            Ok(more) => {
                client.wants_write = more;
                let mut flags = EpollFlags::EPOLLIN;
                flags.set(EpollFlags::EPOLLOUT, more);
                let _ = self.epoll.modify(client.fd(), &mut EpollEvent::new(flags, CLIENT));
            }
            Err(_) => self.drop_client(),
        }
    }

    fn command(&mut self, command: ToShim) {
        match command {
            ToShim::Launch(command) => {
                let launch = command.launch;
                if !self.known.contains_key(&launch) && !self.forgotten_set.contains(&launch) {
                    self.known.insert(launch, 0);
                    self.waiting.push_back(*command);
                }
            }
            ToShim::Kill { launch, reason } => self.kill(launch, reason),
            ToShim::Ack { numbers } => {
                for number in numbers {
                    if let Some(launch) = self.spool.confirm(number) {
                        self.forget(launch);
                    }
                }
            }
            ToShim::Answer { launch, number, answer } => self.answered(launch, number, answer),
            ToShim::ExitWhenIdle => self.exit_when_idle = true,
            ToShim::List => {}
        }
    }

    pub(super) fn forget(&mut self, launch: LaunchId) {
        let running = self.known.get(&launch).and_then(|serial| self.tasks.get_mut(serial));
        if let Some(task) = running {
            // It may still ask, and its processes must be known as its own.
            task.confirmed = true;
            return;
        }
        self.known.remove(&launch);
        if self.forgotten_set.insert(launch) {
            self.forgotten.push_back(launch);
        }
        if self.forgotten.len() > REMEMBERED
            && let Some(oldest) = self.forgotten.pop_front()
        {
            self.forgotten_set.remove(&oldest);
        }
    }
}
