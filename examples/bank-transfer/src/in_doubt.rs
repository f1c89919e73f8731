//! How long branches were in doubt, and which of them when a leader died.

use hdrhistogram::Histogram;
use serde::Serialize;
use unanimo_core::Timestamp;

use crate::BankFiles;
use crate::distribution::{Quantiles, new_histogram};

/// How long branches were in doubt, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct InDoubt {
    /// The times.
    #[serde(flatten)]
    pub times: Quantiles,
    /// How many branches they are of.
    pub count: u64,
}

/// Times in doubt over all banks, added up.
#[derive(Clone, Debug)]
pub(crate) struct InDoubtTimes {
    all: Histogram<u64>,
    at_leader_deaths: Histogram<u64>,
}

impl InDoubtTimes {
    /// Adds up what the banks' files tell.
    ///
    /// A branch counts as in doubt from the moment that its journal gives for the promise, which is before the record is
    /// durable, until the bank is called with the decision, which is after the participant has heard it: a little longer
    /// than it was. All clocks are this machine's. A branch whose decision nobody noted counts until `end`.
    pub(crate) fn new<'a>(
        banks: impl IntoIterator<Item = &'a BankFiles>,
        leader_deaths: &[(Timestamp, Timestamp)],
        end: Timestamp,
    ) -> Self {
        let mut times = Self {
            all: new_histogram(),
            at_leader_deaths: new_histogram(),
        };
        for bank in banks {
            for (transaction, &promised) in &bank.promised {
                let heard = bank.heard.get(transaction).copied().unwrap_or(end);
                let milliseconds = u64::try_from(heard.since(promised).as_millis()).unwrap_or(u64::MAX);
                times.all.saturating_record(milliseconds);
                let was_in_doubt = |&(from, to): &(Timestamp, Timestamp)| promised <= to && from <= heard;
                if leader_deaths.iter().any(was_in_doubt) {
                    times.at_leader_deaths.saturating_record(milliseconds);
                }
            }
        }
        times
    }

    /// Every branch that was prepared.
    pub(crate) fn all(&self) -> InDoubt {
        summary(&self.all)
    }

    /// Those that were in doubt when a leader died.
    pub(crate) fn at_leader_deaths(&self) -> InDoubt {
        summary(&self.at_leader_deaths)
    }
}

fn summary(times: &Histogram<u64>) -> InDoubt {
    InDoubt {
        times: Quantiles::of(times, 1.0),
        count: times.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unanimo_core::TransactionId;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(milliseconds)
    }

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(at(number), 0)
    }

    #[test]
    fn those_count_that_were_in_doubt_when_a_leader_died() {
        // Over before, promised before and resolved after, promised while it died, begun after.
        let spans = [(100, 190), (150, 900), (205, 230), (211, 1211)];
        let mut bank = BankFiles::default();
        for (number, (promised, heard)) in (1..).zip(spans) {
            bank.promised.insert(tx(number), at(promised));
            bank.heard.insert(tx(number), at(heard));
        }
        let times = InDoubtTimes::new([&bank], &[(at(200), at(210))], at(9999));
        assert_eq!((times.all().count, times.at_leader_deaths().count), (4, 2));
        assert_eq!(times.all().times.max, 1000.0);
        assert_eq!(times.at_leader_deaths().times.max, 750.0);
        assert_eq!(
            InDoubtTimes::new([&bank], &[], at(9999)).at_leader_deaths().count,
            0
        );
    }

    #[test]
    fn a_branch_that_never_heard_counts_until_the_end() {
        let mut bank = BankFiles::default();
        bank.promised.insert(tx(1), at(100));
        let times = InDoubtTimes::new([&bank, &BankFiles::default()], &[(at(500), at(501))], at(60_100));
        assert!(times.at_leader_deaths().times.max >= 60_000.0);
    }
}
