use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;

use super::{Addresses, Layout};

/// Where the processes live.
pub enum Place {
    /// On the loopback interface, each at a port of its own. Needs no rights; the network cannot be disturbed.
    Loopback {
        /// Held until the end, so that nobody else takes the port of a process that is being restarted.
        claims: Vec<TcpListener>,
    },
}

/// Ports below those that systems hand out by themselves.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

impl Place {
    /// Addresses on the loopback interface.
    pub fn loopback(layout: Layout) -> io::Result<(Self, Addresses)> {
        let mut claims = Vec::new();
        let mut addresses = BTreeMap::new();
        let mut members = layout.members().peekable();
        // Each even port is the claim on the odd one after it.
        let mut ports = PORTS
            .step_by(2)
            .cycle()
            .skip(std::process::id() as usize % 4000)
            .take(5000);
        while let Some(member) = members.peek() {
            let port = ports.next().ok_or_else(|| io::Error::other("no free ports"))?;
            let (Ok(claim), Ok(_)) = (bind(port), bind(port + 1)) else {
                continue;
            };
            claims.push(claim);
            addresses.insert(*member, format!("127.0.0.1:{}", port + 1));
            members.next();
        }
        Ok((Self::Loopback { claims }, Addresses::new(addresses)))
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
}
