//! A network that we own: each process, and the clients together, in a network namespace of its own, whose only way to
//! the others is a router in this program. The router does to the packets of each link what the [`Rule`] of that link
//! says, and counts what it did: that is how a fault of the network is known to have happened.
//!
//! Needs root, /dev/net/tun and iproute2; nothing else of the system takes part, neither bridges nor packet filters.
//!
//! Where that is not to be had there is a proxy before each process instead. It knows who dials, so every link can be cut
//! off, made slow and flap; what happens to single packets cannot be had.

mod dialler;
mod host;
mod namespace;
mod proxies;
mod router;
mod rule;
mod traffic;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use self::namespace::Namespace;
use self::proxies::Proxies;
use self::router::Router;
use self::traffic::Traffic;
use crate::random::Seed;

pub use host::{Host, Link};
pub use rule::{Counts, Flapping, Reordering, Rule};

/// The hosts and what is between them. Dropping it takes the network away; a process that still runs in it reaches
/// nobody any more.
pub struct Network {
    between: Between,
}

enum Between {
    Router {
        router: Router,
        namespaces: BTreeMap<Host, Arc<Namespace>>,
    },
    Proxies(Proxies),
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

/// Why nothing can happen to single packets on this machine, if so.
pub fn packets_unavailable() -> Option<String> {
    unavailable().map(|reason| format!("proxies carry streams and have no packets; {reason}"))
}

impl Network {
    /// A network of these hosts, and the clients. What its rules draw, they draw from the seed.
    pub fn new(hosts: impl IntoIterator<Item = Host>, seed: Seed) -> io::Result<Self> {
        let between = Between::Router {
            router: Router::start(Traffic::new(seed))?,
            namespaces: BTreeMap::new(),
        };
        let mut network = Self { between };
        network.add(Host::Clients)?;
        for host in hosts {
            network.add(host)?;
        }
        Ok(network)
    }

    /// A network of proxies, with nobody behind them yet. The clients are in this process.
    pub fn of_proxies(seed: Seed) -> io::Result<Self> {
        let between = Between::Proxies(Proxies::start(seed)?);
        Ok(Self { between })
    }

    /// One more host. Nothing happens if it is there already.
    pub fn add(&mut self, host: Host) -> io::Result<()> {
        let Between::Router { router, namespaces } = &mut self.between else {
            return Err(io::Error::other(format!("{host} needs a proxy")));
        };
        if namespaces.contains_key(&host) {
            return Ok(());
        }
        let namespace = Namespace::create()?;
        let device = namespace.connect(host.address())?;
        router.attach(host, device)?;
        namespaces.insert(host, Arc::new(namespace));
        Ok(())
    }

    /// One more host, which listens at `behind`, and whoever wants to reach it dials this listener instead.
    pub fn add_proxy(&self, host: Host, listener: TcpListener, behind: SocketAddr) -> io::Result<()> {
        match &self.between {
            Between::Router { .. } => Err(io::Error::other(format!("{host} needs a namespace"))),
            Between::Proxies(proxies) => proxies.add(host, listener, behind),
        }
    }

    /// Everybody in it.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        let hosts: Vec<Host> = match &self.between {
            Between::Router { namespaces, .. } => namespaces.keys().copied().collect(),
            Between::Proxies(proxies) => proxies.hosts().into_iter().chain([Host::Clients]).collect(),
        };
        hosts.into_iter()
    }

    /// Whether each host has a network namespace of its own.
    pub fn has_namespaces(&self) -> bool {
        matches!(self.between, Between::Router { .. })
    }

    /// Does something where this host is, on a thread of its own: what it connects to, and the processes it starts, are
    /// there too.
    pub fn at<T: Send>(&self, host: Host, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.between {
            Between::Router { .. } => self.namespace(host)?.inside(act),
            Between::Proxies(_) => act(),
        }
    }

    /// What takes a thread to where this host is, for good.
    pub fn entrance(&self, host: Host) -> io::Result<impl Fn() -> io::Result<()> + Send + Sync + use<>> {
        let namespace = match &self.between {
            Between::Router { .. } => Some(Arc::clone(self.namespace(host)?)),
            Between::Proxies(_) => None,
        };
        Ok(move || namespace.as_ref().map_or(Ok(()), |namespace| namespace.enter()))
    }

    /// From now on this happens to what is sent on these links, and nothing else of what was set for them before.
    pub fn set(&self, links: &[Link], rule: Rule) {
        match &self.between {
            Between::Router { router, .. } => {
                let now = Instant::now();
                let mut traffic = router.traffic();
                for link in links {
                    traffic.set(*link, rule, now);
                }
            }
            Between::Proxies(proxies) => {
                assert!(!rule.is_about_packets(), "proxies have no packets: {rule:?}");
                proxies.set(links, rule);
            }
        }
    }

    /// What happened on these links together so far.
    pub fn counts(&self, links: &[Link]) -> Counts {
        let mut sum = Counts::default();
        for link in links {
            sum += match &self.between {
                Between::Router { router, .. } => router.traffic().counts(*link),
                Between::Proxies(proxies) => proxies.counts(*link),
            };
        }
        sum
    }

    fn namespace(&self, host: Host) -> io::Result<&Arc<Namespace>> {
        let namespace = match &self.between {
            Between::Router { namespaces, .. } => namespaces.get(&host),
            Between::Proxies(_) => None,
        };
        namespace.ok_or_else(|| io::Error::other(format!("{host} is not in the network")))
    }
}
