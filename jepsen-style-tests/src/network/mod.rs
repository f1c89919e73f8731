//! A network that we own: each process, and the clients together, in a network namespace of its own, whose only way to
//! the others is a router in this program. The router does to the packets of each link what the [`Rule`] of that link
//! says, and counts what it did: that is how a fault of the network is known to have happened.
//!
//! Needs root, /dev/net/tun and iproute2; nothing else of the system takes part, neither bridges nor packet filters.

mod host;
mod namespace;
mod router;
mod rule;
mod traffic;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use self::namespace::Namespace;
use self::router::Router;
use self::traffic::Traffic;
use crate::random::Seed;

pub use host::{Host, Link};
pub use rule::{Counts, Flapping, Reordering, Rule};

/// The hosts and the router between them. Dropping it takes the network away; a process that still runs in it reaches
/// nobody any more.
pub struct Network {
    router: Router,
    namespaces: BTreeMap<Host, Arc<Namespace>>,
}

/// Why there can be no network of our own on this machine, if so. Found out once, by trying.
pub fn unavailable() -> Option<String> {
    static TRIED: OnceLock<Option<String>> = OnceLock::new();
    let tried = TRIED.get_or_init(|| {
        let network = Network::new([Host::Clients], Seed(0));
        network
            .err()
            .map(|error| format!("network namespaces with TUN devices need root: {error}"))
    });
    tried.clone()
}

impl Network {
    /// A network of these hosts, and the clients. What its rules draw, they draw from the seed.
    pub fn new(hosts: impl IntoIterator<Item = Host>, seed: Seed) -> io::Result<Self> {
        let mut network = Self {
            router: Router::start(Traffic::new(seed))?,
            namespaces: BTreeMap::new(),
        };
        network.add(Host::Clients)?;
        for host in hosts {
            network.add(host)?;
        }
        Ok(network)
    }

    /// One more host. Nothing happens if it is there already.
    pub fn add(&mut self, host: Host) -> io::Result<()> {
        if self.namespaces.contains_key(&host) {
            return Ok(());
        }
        let namespace = Namespace::create()?;
        let device = namespace.connect(host.address())?;
        self.router.attach(host, device)?;
        self.namespaces.insert(host, Arc::new(namespace));
        Ok(())
    }

    /// Everybody in it.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        self.namespaces.keys().copied()
    }

    /// Does something where this host is, on a thread of its own: what it connects to, and the processes it starts, are
    /// there too.
    pub fn at<T: Send>(&self, host: Host, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.namespace(host)?.inside(act)
    }

    /// What takes a thread to where this host is, for good.
    pub fn entrance(&self, host: Host) -> io::Result<impl Fn() -> io::Result<()> + Send + Sync + use<>> {
        let namespace = Arc::clone(self.namespace(host)?);
        Ok(move || namespace.enter())
    }

    /// From now on this happens to what is sent on these links, and nothing else of what was set for them before.
    pub fn set(&self, links: &[Link], rule: Rule) {
        let now = Instant::now();
        let mut traffic = self.router.traffic();
        for link in links {
            traffic.set(*link, rule, now);
        }
    }

    /// What happened on these links together so far.
    pub fn counts(&self, links: &[Link]) -> Counts {
        let traffic = self.router.traffic();
        let mut sum = Counts::default();
        for link in links {
            sum += traffic.counts(*link);
        }
        sum
    }

    fn namespace(&self, host: Host) -> io::Result<&Arc<Namespace>> {
        self.namespaces
            .get(&host)
            .ok_or_else(|| io::Error::other(format!("{host} is not in the network")))
    }
}
