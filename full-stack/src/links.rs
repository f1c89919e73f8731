//! The links of the simulated network, when several faults want something of the same one.

use std::collections::BTreeMap;

use turmoil::Sim;

/// What a fault does to the link between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// What the first sends does not reach the second.
    FirstIsMute,
    /// What the second sends does not reach the first.
    SecondIsMute,
    /// What is sent arrives later.
    Held,
    /// Nothing passes.
    Cut,
}

/// All links, and who troubles them.
#[derive(Default)]
pub(crate) struct Links {
    /// By fault and by the two hosts, in the order of their names.
    wanted: BTreeMap<(String, String), BTreeMap<u64, Trouble>>,
    standing: BTreeMap<(String, String), Trouble>,
}

impl Links {
    /// Lets a fault trouble the link between two hosts.
    pub(crate) fn trouble(&mut self, sim: &Sim<'_>, fault: u64, from: &str, to: &str, trouble: Trouble) {
        let (pair, trouble) = ordered(from, to, trouble);
        self.wanted
            .entry(pair.clone())
            .or_default()
            .insert(fault, trouble);
        self.settle(sim, &pair);
    }

    /// Ends what a fault has done.
    pub(crate) fn end(&mut self, sim: &Sim<'_>, fault: u64) {
        let pairs: Vec<_> = self.wanted.keys().cloned().collect();
        for pair in pairs {
            let ended = self
                .wanted
                .get_mut(&pair)
                .and_then(|faults| faults.remove(&fault));
            if ended.is_some() {
                self.settle(sim, &pair);
            }
        }
    }

    /// Brings a link to what the worst of its faults wants. The network knows no mixtures, so one ends before the next
    /// begins.
    fn settle(&mut self, sim: &Sim<'_>, pair: &(String, String)) {
        let worst = |faults: &BTreeMap<u64, Trouble>| faults.values().max().copied();
        let wanted = self.wanted.get(pair).and_then(worst);
        let standing = self.standing.get(pair).copied();
        if wanted == standing {
            return;
        }
        let (first, second) = (pair.0.as_str(), pair.1.as_str());
        match standing {
            None => {}
            Some(Trouble::FirstIsMute) => sim.repair_oneway(first, second),
            Some(Trouble::SecondIsMute) => sim.repair_oneway(second, first),
            Some(Trouble::Held) => sim.release(first, second),
            Some(Trouble::Cut) => sim.repair(first, second),
        }
        match wanted {
            None => {}
            Some(Trouble::FirstIsMute) => sim.partition_oneway(first, second),
            Some(Trouble::SecondIsMute) => sim.partition_oneway(second, first),
            Some(Trouble::Held) => sim.hold(first, second),
            Some(Trouble::Cut) => sim.partition(first, second),
        }
        match wanted {
            None => self.standing.remove(pair),
            Some(trouble) => self.standing.insert(pair.clone(), trouble),
        };
    }
}

fn ordered(from: &str, to: &str, trouble: Trouble) -> ((String, String), Trouble) {
    if from < to {
        return ((from.to_owned(), to.to_owned()), trouble);
    }
    let trouble = match trouble {
        Trouble::FirstIsMute => Trouble::SecondIsMute,
        Trouble::SecondIsMute => Trouble::FirstIsMute,
        Trouble::Held | Trouble::Cut => trouble,
    };
    ((to.to_owned(), from.to_owned()), trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_names_does_not_change_who_is_mute() {
        let muted = |from, to| ordered(from, to, Trouble::FirstIsMute);
        assert_eq!(muted("a", "b"), (("a".into(), "b".into()), Trouble::FirstIsMute));
        assert_eq!(muted("b", "a"), (("a".into(), "b".into()), Trouble::SecondIsMute));
    }
}
