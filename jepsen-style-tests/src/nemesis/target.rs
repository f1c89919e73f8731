use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::NemesisError;
use crate::cluster::{Cluster, Layout, Member};

/// How long an election may take before a leader is looked for in vain.
pub(super) const ELECTION: Duration = Duration::from_secs(10);

/// Which processes a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The node that leads.
    Leader,
    /// A node that does not.
    Follower,
    /// A participant.
    Participant,
    /// Two or more, nodes and participants.
    Several,
    /// Every process.
    All,
}

impl Target {
    /// The leader, another node or a participant, each as often.
    pub(super) fn any_one(layout: Layout, random: &mut StdRng) -> Self {
        let mut targets = vec![Self::Leader, Self::Participant];
        if layout.coordinators > 1 {
            targets.push(Self::Follower);
        }
        targets.choose(random).copied().unwrap_or(Self::Participant)
    }

    /// The one process that this is.
    pub(super) async fn member(self, cluster: &Cluster, random: &mut StdRng) -> Result<Member, NemesisError> {
        match self.members(cluster, random).await?[..] {
            [member] => Ok(member),
            _ => Err(NemesisError::Other(format!("{self:?} is not one process"))),
        }
    }

    /// Which ones they are this time.
    pub(super) async fn members(
        self,
        cluster: &Cluster,
        random: &mut StdRng,
    ) -> Result<Vec<Member>, NemesisError> {
        let leader = match self {
            Self::Leader | Self::Follower => Some(cluster.wait_for_leader(ELECTION).await?),
            Self::Participant | Self::Several | Self::All => None,
        };
        self.draw(cluster.layout(), leader, random)
            .ok_or_else(|| NemesisError::Other(format!("{self:?}: there are too few processes")))
    }

    fn draw(self, layout: Layout, leader: Option<u64>, random: &mut StdRng) -> Option<Vec<Member>> {
        let mut nodes: Vec<Member> = layout.nodes().map(Member::Coordinator).collect();
        let mut participants: Vec<Member> = (1..=layout.participants).map(Member::Participant).collect();
        nodes.shuffle(random);
        participants.shuffle(random);
        let leader = leader.map(Member::Coordinator);
        Some(match self {
            Self::Leader => vec![leader?],
            Self::Follower => vec![nodes.into_iter().find(|node| Some(*node) != leader)?],
            Self::Participant => vec![participants.pop()?],
            Self::Several => {
                // One of each kind at least, and not everybody.
                let mut members = vec![nodes.pop()?, participants.pop()?];
                let mut rest = [nodes, participants].concat();
                rest.shuffle(random);
                rest.truncate(random.random_range(0..rest.len().max(1)));
                members.extend(rest);
                members
            }
            Self::All => layout.members().collect(),
        })
    }
}

/// The number of this process in the system.
pub(super) fn process_of(cluster: &Cluster, member: Member) -> Result<u32, NemesisError> {
    cluster
        .process(member)
        .ok_or_else(|| NemesisError::Other(format!("{member} does not run")))
}

/// Names of processes, for people.
pub(super) fn names(members: &[Member]) -> String {
    let names: Vec<String> = members.iter().map(Member::to_string).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Seed;

    const LAYOUT: Layout = Layout {
        coordinators: 3,
        participants: 3,
        replaced: 2,
    };

    fn draw(target: Target, turn: u64) -> Vec<Member> {
        target
            .draw(LAYOUT, Some(4), &mut Seed(turn).stream("target"))
            .unwrap()
    }

    #[test]
    fn those_are_drawn_that_are_there() {
        let mut numbers = BTreeSet::new();
        for turn in 0..100 {
            assert_eq!(draw(Target::Leader, turn), [Member::Coordinator(4)]);
            let follower = draw(Target::Follower, turn);
            assert!(
                matches!(follower[..], [Member::Coordinator(3 | 5)]),
                "{follower:?}"
            );
            let participant = draw(Target::Participant, turn);
            assert!(
                matches!(participant[..], [Member::Participant(1..=3)]),
                "{participant:?}"
            );
            assert_eq!(draw(Target::All, turn).len(), 6);
            let several: BTreeSet<Member> = draw(Target::Several, turn).into_iter().collect();
            assert!(
                several
                    .iter()
                    .any(|member| matches!(member, Member::Coordinator(3..=5)))
            );
            assert!(
                several
                    .iter()
                    .any(|member| matches!(member, Member::Participant(_)))
            );
            numbers.insert(several.len());
        }
        assert_eq!(numbers, (2..=5).collect());
    }

    #[test]
    fn a_single_node_has_no_follower() {
        let layout = Layout {
            coordinators: 1,
            ..LAYOUT
        };
        let random = &mut Seed(1).stream("target");
        assert_eq!(Target::Follower.draw(layout, Some(3), random), None);
    }
}
