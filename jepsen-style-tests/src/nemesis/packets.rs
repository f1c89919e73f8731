use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Fault, NemesisError};
use crate::cluster::Cluster;
use crate::network::{self, Counts, Host, Link, Reordering, Rule};

/// A bad network: what happens to some of the packets on every link.
struct Packets {
    what: Trouble,
    /// What was counted before, while it lasts.
    before: Option<(Vec<Link>, Counts)>,
}

#[derive(Clone, Copy)]
enum Trouble {
    Delay,
    Loss,
    Duplication,
    Reordering,
}

/// All that can happen to packets.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    [
        Trouble::Delay,
        Trouble::Loss,
        Trouble::Duplication,
        Trouble::Reordering,
    ]
    .into_iter()
    .map(|what| Box::new(Packets { what, before: None }) as Box<dyn Fault>)
    .collect()
}

impl Trouble {
    /// What happens to the packets, and the same in words.
    fn rule(self, random: &mut StdRng) -> (Rule, String) {
        let rule = Rule::default();
        match self {
            Self::Delay => {
                let delay = Duration::from_millis(random.random_range(5..150));
                let jitter = delay.mul_f64(random.random_range(0.1..1.0));
                let what = format!("every packet late by {delay:?}, and by up to {jitter:?} more");
                (
                    Rule {
                        delay,
                        jitter,
                        ..rule
                    },
                    what,
                )
            }
            Self::Loss => {
                let loss = random.random_range(0.01..0.2);
                let what = format!("{:.0} % of all packets lost", loss * 100.0);
                (Rule { loss, ..rule }, what)
            }
            Self::Duplication => {
                let duplication = random.random_range(0.05..0.5);
                let what = format!("{:.0} % of all packets twice", duplication * 100.0);
                (Rule { duplication, ..rule }, what)
            }
            Self::Reordering => {
                let share = random.random_range(0.05..0.5);
                let held = Duration::from_millis(random.random_range(5..50));
                let what = format!("{:.0} % of all packets held back by {held:?}", share * 100.0);
                let reordering = Some(Reordering { share, held });
                (Rule { reordering, ..rule }, what)
            }
        }
    }

    /// How many packets it happened to.
    fn happened(self, counts: Counts) -> u64 {
        match self {
            Self::Delay => counts.delayed,
            Self::Loss => counts.lost,
            Self::Duplication => counts.duplicated,
            Self::Reordering => counts.overtaken,
        }
    }
}

impl Fault for Packets {
    fn may_pass_unnoticed(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        match self.what {
            Trouble::Delay => "packet-delay",
            Trouble::Loss => "packet-loss",
            Trouble::Duplication => "packet-duplication",
            Trouble::Reordering => "packet-reordering",
        }
    }

    fn unavailable(&self) -> Option<String> {
        match self.what {
            // Of a stream as well as of packets.
            Trouble::Delay => None,
            Trouble::Loss | Trouble::Duplication | Trouble::Reordering => network::packets_unavailable(),
        }
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(1000..6000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let network = cluster.network();
            let hosts: Vec<Host> = network.hosts().collect();
            let pairs = hosts
                .iter()
                .flat_map(|from| hosts.iter().map(|to| Link { from: *from, to: *to }));
            let links: Vec<Link> = pairs.filter(|link| link.from != link.to).collect();
            let (rule, what) = self.what.rule(random);
            let before = network.counts(&links);
            network.set(&links, rule);
            self.before = Some((links, before));
            Ok(what)
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some((links, before)) = self.before.take() else {
                return Ok(None);
            };
            let network = cluster.network();
            network.set(&links, Rule::default());
            let counts = network.counts(&links) - before;
            Ok((self.what.happened(counts) > 0).then(|| counts.to_string()))
        }
        .boxed()
    }
}
