use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::{Fault, NemesisError};
use crate::cluster::{Cluster, Layout, Member};
use crate::network::{Counts, Flapping, Host, Link, Rule};

/// How long an election may take before a leader is looked for in vain.
const ELECTION: Duration = Duration::from_secs(10);

/// Links on which no packet passes for a while.
struct Partition {
    shape: Shape,
    cut: Option<Cut>,
}

/// Who does not reach whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Everybody is on one of two sides.
    Halves,
    /// The leader reaches nobody, and nobody reaches it.
    Leader,
    /// So it is for less than half of the nodes; they do reach each other.
    Minority,
    /// Each node reaches its two neighbours only; of three, the leader and one other do not reach each other.
    Ring,
    /// The leader reaches nobody, but is reached by all.
    OneWay,
    /// The clients do not reach some of the nodes, the leader among them.
    Clients,
    /// A participant reaches nobody but the clients.
    Participants,
    /// The leader and the other nodes do not reach each other. Participants and clients reach all.
    Raft,
    /// The leader is alone and is not, in turn, at the rate of elections.
    Flapping,
}

/// What was done.
struct Cut {
    links: Vec<Link>,
    before: Counts,
}

/// Every partition.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    let shapes = [
        Shape::Halves,
        Shape::Leader,
        Shape::Minority,
        Shape::Ring,
        Shape::OneWay,
        Shape::Clients,
        Shape::Participants,
        Shape::Raft,
        Shape::Flapping,
    ];
    shapes
        .into_iter()
        .map(|shape| Box::new(Partition { shape, cut: None }) as Box<dyn Fault>)
        .collect()
}

impl Fault for Partition {
    fn may_pass_unnoticed(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        match self.shape {
            Shape::Halves => "partition-halves",
            Shape::Leader => "partition-leader",
            Shape::Minority => "partition-minority",
            Shape::Ring => "partition-ring",
            Shape::OneWay => "partition-one-way",
            Shape::Clients => "partition-clients",
            Shape::Participants => "partition-participants",
            Shape::Raft => "partition-raft",
            Shape::Flapping => "flapping",
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
            let leader = if self.shape.needs_leader() {
                cluster.wait_for_leader(ELECTION).await?
            } else {
                1
            };
            let network = cluster.network();
            let (links, what) = self.shape.links(cluster.layout(), leader, random);
            if links.is_empty() {
                return Err(NemesisError::Other(format!(
                    "{}: there are too few nodes",
                    self.name()
                )));
            }
            let before = network.counts(&links);
            network.set(&links, self.shape.rule(random));
            self.cut = Some(Cut { links, before });
            Ok(what)
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(Cut { links, before }) = self.cut.take() else {
                return Ok(None);
            };
            let network = cluster.network();
            network.set(&links, Rule::default());
            let happened = network.counts(&links) - before;
            Ok((happened.cut > 0).then(|| happened.to_string()))
        }
        .boxed()
    }
}

impl Shape {
    fn needs_leader(self) -> bool {
        match self {
            Self::Leader | Self::Ring | Self::OneWay | Self::Clients | Self::Raft | Self::Flapping => true,
            Self::Halves | Self::Minority | Self::Participants => false,
        }
    }

    fn rule(self, random: &mut StdRng) -> Rule {
        match self {
            Self::Flapping => {
                let mut draw = || Duration::from_millis(random.random_range(200..1200));
                Rule {
                    flapping: Some(Flapping {
                        down: draw(),
                        up: draw(),
                    }),
                    ..Rule::default()
                }
            }
            _ => Rule::cut(),
        }
    }

    /// The links it concerns, and what it is in words.
    fn links(self, layout: Layout, leader: u64, random: &mut StdRng) -> (Vec<Link>, String) {
        let nodes: BTreeSet<Host> = layout.nodes().map(node).collect();
        let everybody: BTreeSet<Host> = layout
            .members()
            .map(Host::Member)
            .chain([Host::Clients])
            .collect();
        let rest =
            |some: &BTreeSet<Host>| -> BTreeSet<Host> { everybody.difference(some).copied().collect() };
        let alone = BTreeSet::from([node(leader)]);
        match self {
            Self::Halves => {
                let side = some_of(&everybody, everybody.len() / 2, random);
                (both_ways(&side, &rest(&side)), sides(&side, &rest(&side)))
            }
            Self::Leader | Self::Flapping => {
                let how = match self {
                    Self::Flapping => "again and again",
                    _ => "all the time",
                };
                let what = format!("{}, the leader, alone {how}", node(leader));
                (both_ways(&alone, &rest(&alone)), what)
            }
            Self::Minority => {
                let side = some_of(&nodes, (nodes.len() - 1) / 2, random);
                (both_ways(&side, &rest(&side)), sides(&side, &rest(&side)))
            }
            Self::Ring => {
                let mut ring: Vec<Host> = nodes.difference(&alone).copied().collect();
                ring.shuffle(random);
                // At an end, where an open ring is cut: two others would hardly notice, as they have little to say.
                ring.insert(0, node(leader));
                (not_neighbours(&ring), format!("a ring of {}", names(&ring)))
            }
            Self::OneWay => {
                let what = format!("{}, the leader, hears all and is not heard", node(leader));
                (one_way(&alone, &rest(&alone)), what)
            }
            Self::Clients => {
                let mut lost = some_of(&nodes, random.random_range(0..nodes.len()), random);
                lost.insert(node(leader));
                let clients = BTreeSet::from([Host::Clients]);
                (both_ways(&clients, &lost), sides(&clients, &lost))
            }
            Self::Participants => {
                let number = random.random_range(1..=layout.participants);
                let lost = BTreeSet::from([Host::Member(Member::Participant(number))]);
                let mut others = rest(&lost);
                others.remove(&Host::Clients);
                (both_ways(&lost, &others), sides(&lost, &others))
            }
            Self::Raft => {
                let others: BTreeSet<Host> = nodes.difference(&alone).copied().collect();
                (both_ways(&alone, &others), sides(&alone, &others))
            }
        }
    }
}

fn node(node: u64) -> Host {
    Host::Member(Member::Coordinator(node))
}

fn some_of(hosts: &BTreeSet<Host>, number: usize, random: &mut StdRng) -> BTreeSet<Host> {
    let mut hosts: Vec<Host> = hosts.iter().copied().collect();
    hosts.shuffle(random);
    hosts.into_iter().take(number).collect()
}

fn one_way(from: &BTreeSet<Host>, to: &BTreeSet<Host>) -> Vec<Link> {
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(|to| Link { from: *from, to: *to }));
    pairs.collect()
}

fn both_ways(some: &BTreeSet<Host>, others: &BTreeSet<Host>) -> Vec<Link> {
    let mut links = one_way(some, others);
    links.extend(one_way(others, some));
    links
}

/// The links, both ways, between those that are not beside each other. A ring of three has none, so it is opened.
fn not_neighbours(ring: &[Host]) -> Vec<Link> {
    let mut links = Vec::new();
    let closed = ring.len() > 3;
    for (place, one) in ring.iter().enumerate() {
        for (other_place, other) in ring.iter().enumerate().skip(place + 2) {
            let around = place == 0 && other_place == ring.len() - 1;
            if !(closed && around) {
                links.extend(both_ways(&BTreeSet::from([*one]), &BTreeSet::from([*other])));
            }
        }
    }
    links
}

fn names<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> String {
    let names: Vec<String> = hosts.into_iter().map(Host::to_string).collect();
    names.join(" ")
}

fn sides(some: &BTreeSet<Host>, others: &BTreeSet<Host>) -> String {
    format!("{} | {}", names(some), names(others))
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
