//! A client's connection, with little between the load and the wire.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, bail};

/// One keep-alive connection.
pub(crate) struct Link {
    stream: TcpStream,
    host: String,
    prefix: String,
    buffer: Vec<u8>,
}

impl Link {
    /// To `host:port`, with an optional path that stands before all others.
    pub(crate) fn open(address: &str) -> anyhow::Result<Self> {
        let (host, prefix) = address.split_once('/').unwrap_or((address, ""));
        let stream = TcpStream::connect(host).context(host.to_owned())?;
        stream.set_nodelay(true)?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        Ok(Self { stream, host: host.to_owned(), prefix, buffer: vec![0; 1 << 16] })
    }

    /// Posts and waits; the answer's body. Another status than 200 or 201 is an error.
    pub(crate) fn post(&mut self, path: &str, kind: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nContent-Type: {kind}\r\n\r\n{body}",
            self.prefix,
            self.host,
            body.len()
        );
        self.stream.write_all(head.as_bytes())?;
        let mut reply = Vec::new();
        let (start, length) = loop {
            self.receive(&mut reply)?;
            if let Some(end) = reply.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
                if !head.starts_with("http/1.1 20") {
                    bail!("{path}: {}", head.lines().next().unwrap_or_default());
                }
                if head.lines().any(|l| l == "transfer-encoding: chunked") {
                    reply.drain(..end + 4);
                    return self.chunks(reply);
                }
                let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
                break (end + 4, length.context("no length")?.trim().parse::<usize>()?);
            }
        };
        while reply.len() < start + length {
            self.receive(&mut reply)?;
        }
        reply.drain(..start);
        Ok(reply)
    }

    /// A body in chunks; `raw` is what has come of it so far.
    fn chunks(&mut self, mut raw: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(line) = raw.windows(2).position(|w| w == b"\r\n") {
                    break line;
                }
                self.receive(&mut raw)?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&raw[..line])?.trim(), 16)?;
            while raw.len() < line + 2 + size + 2 {
                self.receive(&mut raw)?;
            }
            body.extend_from_slice(&raw[line + 2..line + 2 + size]);
            raw.drain(..line + 2 + size + 2);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> anyhow::Result<()> {
        let read = self.stream.read(&mut self.buffer)?;
        if read == 0 {
            bail!("the server hung up");
        }
        into.extend_from_slice(&self.buffer[..read]);
        Ok(())
    }
}
