//! Who leads.

use super::{Leading, Role, Waiter};
use crate::counters::Sometimes;
use crate::event::Event;
use crate::message::Message;
use crate::node::Node;
use crate::schedule::{MS, Time};
use crate::world::{Timer, World};
use unanimo_core::mutants::{self, Mutant};

impl World {
    fn node(place: usize) -> Node {
        Node::Coordinator(place as u8)
    }

    pub(crate) fn others(&self, place: usize) -> impl Iterator<Item = Node> + use<> {
        let count = self.coordinators.len();
        (0..count).filter(move |other| *other != place).map(Self::node)
    }

    /// A timeout of its own for each term and life, so that two candidates do not stand in each other's way for long.
    fn election_timeout(&self, place: usize) -> Time {
        let node = &self.coordinators[place];
        let least = self.knobs.election_ms * MS;
        let count = node.replica.term << 24 ^ u64::from(node.life) << 8 ^ place as u64;
        self.duration("election", count, least, 2 * least)
    }

    pub(crate) fn hear_of_leader(&mut self, place: usize) {
        self.coordinators[place].replica.election_at = self.now + self.election_timeout(place);
    }

    pub(crate) fn watch_for_leader(&mut self, place: usize) {
        self.hear_of_leader(place);
        let wait = self.coordinators[place].replica.election_at - self.now;
        self.wait(Self::node(place), wait, Timer::Election);
    }

    pub(crate) fn election_due(&mut self, place: usize) {
        let replica = &self.coordinators[place].replica;
        let leads = matches!(replica.role, Role::Leader(_));
        if !leads && self.now >= replica.election_at {
            self.stand_for_election(place);
        }
        if self.coordinators[place].is_up {
            let due = self.coordinators[place].replica.election_at;
            let wait = due.saturating_sub(self.now).max(self.knobs.heartbeat_ms * MS);
            self.wait(Self::node(place), wait, Timer::Election);
        }
    }

    pub(crate) fn stand_for_election(&mut self, place: usize) {
        let node = &self.coordinators[place];
        if !node.is_up || matches!(node.replica.role, Role::Leader(_)) {
            return;
        }
        let replica = &mut self.coordinators[place].replica;
        replica.term += 1;
        replica.voted_for = Some(place as u8);
        replica.role = Role::Candidate { votes: 1 << place };
        replica.leader = None;
        replica.verified = 0;
        replica.save_vote();
        let (term, last_index, last_term) = (replica.term, replica.last_index(), replica.last_term());
        self.hear_of_leader(place);
        if self.ends_here(Self::node(place)) {
            return;
        }
        for other in self.others(place) {
            self.send(
                Self::node(place),
                other,
                Message::VoteAsked {
                    term,
                    last_index,
                    last_term,
                },
            );
        }
    }

    /// A higher term than one's own ends whatever one was.
    pub(crate) fn adopt_term(&mut self, place: usize, term: u64) {
        if term <= self.coordinators[place].replica.term {
            return;
        }
        self.resign(place, "there is a later term");
        let replica = &mut self.coordinators[place].replica;
        replica.term = term;
        replica.voted_for = None;
        replica.leader = None;
        replica.verified = 0;
        replica.save_vote();
    }

    /// Stops to lead or to stand for election.
    pub(crate) fn resign(&mut self, place: usize, why: &'static str) {
        let replica = &mut self.coordinators[place].replica;
        let role = std::mem::replace(&mut replica.role, Role::Follower);
        let term = replica.term;
        let Role::Leader(leading) = role else { return };
        let node = Self::node(place);
        self.watch.happened(&Event::Resigned { node, term });
        self.no_longer_ready(place, why);
        for waiter in leading.waiting.into_values() {
            if let Waiter::Caller(continuation) = waiter {
                self.go_on(place, continuation, None);
            }
        }
        for barrier in leading.barriers {
            self.watch.sometimes(Sometimes::StaleLeaderFoundOut);
            self.give_up(place, barrier.then);
        }
    }

    pub(crate) fn vote_asked(
        &mut self,
        place: usize,
        from: Node,
        life: u32,
        term: u64,
        (last_index, last_term): (u64, u64),
    ) {
        self.adopt_term(place, term);
        let Node::Coordinator(candidate) = from else {
            return;
        };
        let replica = &mut self.coordinators[place].replica;
        let up_to_date = (last_term, last_index) >= (replica.last_term(), replica.last_index());
        let free = replica.voted_for.is_none_or(|voted| voted == candidate);
        let granted = term == replica.term && up_to_date && free || mutants::is_on(Mutant::M10);
        if granted {
            replica.voted_for = Some(candidate);
            replica.save_vote();
        }
        let term = replica.term;
        if granted {
            self.hear_of_leader(place);
            if self.ends_here(Self::node(place)) {
                return;
            }
        }
        self.reply(
            Self::node(place),
            from,
            life,
            Message::VoteGiven { term, granted },
        );
    }

    pub(crate) fn vote_given(&mut self, place: usize, from: Node, term: u64, granted: bool) {
        self.adopt_term(place, term);
        let Node::Coordinator(voter) = from else { return };
        let count = self.coordinators.len();
        let replica = &mut self.coordinators[place].replica;
        let Role::Candidate { votes } = &mut replica.role else {
            return;
        };
        if !granted || term != replica.term {
            return;
        }
        *votes |= 1 << voter;
        if votes.count_ones() as usize > count / 2 {
            self.lead(place);
        }
    }

    fn lead(&mut self, place: usize) {
        let (count, now) = (self.coordinators.len(), self.now);
        let commits = &self.watch.history.committed_entries;
        let replica = &mut self.coordinators[place].replica;
        let last_index = replica.last_index();
        let mut matched = vec![0; count];
        matched[place] = replica.durable;
        replica.role = Role::Leader(Leading {
            next: vec![last_index + 1; count],
            matched,
            heard_at: vec![now; count],
            round: 0,
            echoed: vec![0; count],
            first: last_index + 1,
            waiting: std::collections::BTreeMap::new(),
            given_up: std::collections::BTreeSet::new(),
            barriers: Vec::new(),
        });
        replica.leader = Some(place as u8);
        let term = replica.term;
        // A vote may come so late that others lead a later term by then; what was committed there it need not have.
        let complete = match commits.range(..term).next_back() {
            None => true,
            Some((_, &(index, of_term))) => {
                index <= replica.snapshot.index || replica.term_at(index) == Some(of_term)
            }
        };
        let node = Self::node(place);
        self.watch.happened(&Event::Elected {
            node,
            term,
            last_index,
            complete,
        });
        let leads = |node: &crate::coordinator::Coordinator| {
            node.is_up && matches!(node.replica.role, Role::Leader(_))
        };
        if self.coordinators.iter().filter(|node| leads(node)).count() > 1 {
            self.watch.sometimes(Sometimes::TwoLeadersAtOnce);
        }
        self.propose(place, None, Waiter::Nobody);
        self.wait(node, self.knobs.heartbeat_ms * MS, Timer::Heartbeat { term });
        self.begin_to_lead(place, term);
    }
}
