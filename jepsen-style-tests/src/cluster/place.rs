use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::runtime::{Builder, Runtime};

use super::{Addresses, Layout, Member};
use crate::network::{self, Host, Network};
use crate::random::Seed;

/// Where the processes live.
pub enum Place {
    /// On the loopback interface, each at a port of its own behind a proxy at another one. Needs no rights; links can be
    /// disturbed, packets cannot. Each proxy keeps others away from the port of its process while that is restarted.
    Loopback(Network),
    /// Each in a network namespace of its own, and the clients in another. Needs root.
    Namespaces(Network),
}

/// Where everybody serves who has an address of its own.
const PORT: u16 = 7000;

/// Ports below those that systems hand out by themselves.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

impl Place {
    /// The best that this machine allows: namespaces, or else the loopback interface.
    pub fn best(layout: Layout, seed: Seed) -> io::Result<(Self, Addresses)> {
        match network::unavailable() {
            None => Self::namespaces(layout, seed),
            Some(reason) => {
                tracing::warn!(
                    reason,
                    "on the loopback interface: its packets cannot be disturbed"
                );
                Self::loopback(layout, seed)
            }
        }
    }

    /// A network namespace for each process and one for the clients.
    pub fn namespaces(layout: Layout, seed: Seed) -> io::Result<(Self, Addresses)> {
        let network = Network::new(layout.members().map(Host::Member), seed)?;
        let addresses = layout
            .members()
            .map(|member| (member, format!("{}:{PORT}", Host::Member(member).address())))
            .collect();
        Ok((Self::Namespaces(network), Addresses::new(addresses)))
    }

    /// Addresses on the loopback interface.
    pub fn loopback(layout: Layout, seed: Seed) -> io::Result<(Self, Addresses)> {
        let mut place = Self::Loopback(Network::of_proxies(seed)?);
        let mut addresses = BTreeMap::new();
        for member in layout.members() {
            addresses.insert(member, place.add(member)?);
        }
        Ok((place, Addresses::new(addresses)))
    }

    /// Where one more process is to be reached.
    pub(super) fn add(&mut self, member: Member) -> io::Result<String> {
        match self {
            Self::Loopback(network) => {
                let (proxy, port) = claim()?;
                let address = proxy.local_addr()?.to_string();
                network.add_proxy(Host::Member(member), proxy, behind(port))?;
                Ok(address)
            }
            Self::Namespaces(network) => {
                let host = Host::Member(member);
                network.add(host)?;
                Ok(format!("{}:{PORT}", host.address()))
            }
        }
    }

    /// What carries out what is to be done where the clients are, and from where every process can be asked.
    pub fn clients_runtime(&self) -> io::Result<Runtime> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name("clients");
        if let Self::Namespaces(network) = self {
            let enter = network.entrance(Host::Clients)?;
            builder.on_thread_start(move || {
                if let Err(error) = enter() {
                    // What this thread connects to it does not reach: the run fails, and says why here.
                    tracing::error!(%error, "a thread of the clients is not in their namespace");
                }
            });
        }
        builder.build()
    }

    /// The network between them.
    pub fn network(&self) -> &Network {
        match self {
            Self::Loopback(network) | Self::Namespaces(network) => network,
        }
    }

    /// Where a process listens that is reached at this address.
    pub(super) fn listens(&self, reached_at: &str) -> String {
        match self {
            Self::Namespaces(_) => reached_at.to_owned(),
            Self::Loopback(_) => match reached_at.parse::<SocketAddr>() {
                Ok(proxy) => behind(proxy.port() + 1).to_string(),
                Err(error) => unreachable!("{reached_at:?} is an address of ours: {error}"),
            },
        }
    }

    /// Does something where this process lives: what it starts lives there too.
    pub(super) fn at<T: Send>(
        &self,
        member: Member,
        act: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        match self {
            Self::Loopback(_) => act(),
            Self::Namespaces(network) => network.at(Host::Member(member), act),
        }
    }
}

/// A free port, and what keeps others away from it: each even port is that of the proxy of the odd one after it.
fn claim() -> io::Result<(TcpListener, u16)> {
    let ports = PORTS
        .step_by(2)
        .cycle()
        .skip(std::process::id() as usize % 4000)
        .take(5000);
    for port in ports {
        if let (Ok(claim), Ok(_)) = (bind(port), bind(port + 1)) {
            return Ok((claim, port + 1));
        }
    }
    Err(io::Error::other("no free ports"))
}

fn behind(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
}
