use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use unanimo_journal::{Journal, Options, RealDisk};
use unanimo_proto::internal::raft_record::Record;
use unanimo_proto::internal::{Entry, LogId, RaftRecord, Vote};

use super::journal::JournalError;
use super::{LogEvidence, LogsEvidence};

/// Findings of one kind that are written down. They tend to come in thousands.
const MOST: usize = 20;

/// What a node's log holds, record by record.
#[derive(Debug, Default)]
pub(super) struct NodeLog {
    /// Term and content of each entry.
    entries: BTreeMap<u64, (u64, u64)>,
    vote: Option<Vote>,
    committed: u64,
    /// The last entry that was committed while it stood here.
    present: u64,
    /// To whom it gave its vote in each term.
    granted: BTreeMap<u64, BTreeSet<u64>>,
    /// Whom it followed in each term. It may be another than the one that it voted for, whom a quorum voted for.
    followed: BTreeMap<u64, BTreeSet<u64>>,
    found: LogEvidence,
}

impl NodeLog {
    /// Reads the log of a node, which must not be running.
    pub(super) fn read(folder: &Path) -> Result<Self, JournalError> {
        let unreadable = |source| JournalError::Folder {
            path: folder.to_owned(),
            source,
        };
        // Opening it would make one.
        std::fs::metadata(folder).map_err(unreadable)?;
        let disk = RealDisk::open(folder).map_err(unreadable)?;
        let mut log = Self::default();
        Journal::open(Arc::new(disk), Options::new("raft log"), &mut |_, bytes| {
            let record = RaftRecord::decode(bytes).map_err(|error| error.to_string())?;
            log.take(record.record.ok_or("a record of an unknown kind")?);
            Ok(())
        })?;
        log.found.entries = log.entries.len() as u64;
        Ok(log)
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Identity(_) => {}
            Record::Entry(entry) => self.append(&entry),
            Record::Vote(vote) => self.save(vote),
            Record::Committed(id) => {
                self.committed = self.committed.max(id.index);
                // A position may come before what it is about, with a snapshot. Then it says nothing of what is here.
                if self
                    .entries
                    .get(&id.index)
                    .is_some_and(|(term, _)| *term == id.term)
                {
                    self.present = self.present.max(id.index);
                }
            }
            Record::Truncation(cut) => {
                self.carry(cut.vote, cut.committed);
                self.purge(cut.purged);
                let last = cut.last.map_or(0, |last| last.index);
                if let Some(index) = self
                    .entries
                    .keys()
                    .find(|index| last < **index && **index <= self.present)
                {
                    let (index, present) = (*index, self.present);
                    note(&mut self.found.committed_cut, || {
                        format!("cut after entry {last}; entry {index} was committed, up to {present}")
                    });
                }
                self.entries.retain(|index, _| *index <= last);
            }
            Record::Purge(purge) => {
                self.carry(purge.vote, purge.committed);
                self.purge(purge.purged);
            }
        }
    }

    /// An entry stands behind the vote for the leader that it came from.
    fn append(&mut self, entry: &Entry) {
        let id = entry.id.unwrap_or_default();
        let known = self.vote.as_ref().map_or(0, |vote| vote.term);
        if id.term > known {
            note(&mut self.found.uncovered, || {
                format!(
                    "entry {} is of term {}, the last vote before it of term {known}",
                    id.index, id.term
                )
            });
        }
        let mut content = DefaultHasher::new();
        entry.encode_to_vec().hash(&mut content);
        self.entries.insert(id.index, (id.term, content.finish()));
    }

    fn save(&mut self, vote: Vote) {
        self.found.votes += 1;
        if let Some(before) = self.vote.as_ref().filter(|before| before.term > vote.term) {
            let fell = format!("a vote of term {} after one of term {}", vote.term, before.term);
            note(&mut self.found.repeated, || fell);
        }
        let (what, nodes) = match vote.committed {
            false => ("votes for", &mut self.granted),
            true => ("leaders", &mut self.followed),
        };
        let nodes = nodes.entry(vote.term).or_default();
        nodes.insert(vote.node);
        if nodes.len() > 1 {
            let twice = format!("{what} {nodes:?} in term {}", vote.term);
            note(&mut self.found.repeated, || twice);
        }
        self.vote = Some(vote);
    }

    /// What such a record repeats of those that stood in what it replaces.
    ///
    /// Votes behind what is cut go with it, so the one that is carried may be newer than the last that is there.
    fn carry(&mut self, vote: Option<Vote>, committed: Option<LogId>) {
        let terms = [&self.vote, &vote].map(|vote| vote.as_ref().map_or(0, |vote| vote.term));
        if terms[1] < terms[0] {
            note(&mut self.found.repeated, || {
                format!(
                    "a vote of term {} was carried on as one of term {}",
                    terms[0], terms[1]
                )
            });
        }
        self.vote = vote;
        self.committed = self.committed.max(committed.map_or(0, |id| id.index));
    }

    fn purge(&mut self, upto: Option<LogId>) {
        if let Some(upto) = upto {
            self.entries = self.entries.split_off(&(upto.index + 1));
        }
    }

    /// Where two logs contradict each other.
    fn compare(&self, names: (u64, u64), other: &Self, disagree: &mut Vec<String>) -> u64 {
        let committed = self.committed.min(other.committed);
        let mut compared = 0;
        for (index, (term, content)) in &self.entries {
            let Some((other_term, other_content)) = other.entries.get(index) else {
                continue;
            };
            compared += 1;
            let (one, two) = names;
            if term == other_term && content != other_content {
                note(disagree, || {
                    format!("entry {index} of term {term} is not the same on c{one} and c{two}")
                });
            } else if term != other_term && *index <= committed {
                note(disagree, || {
                    format!(
                        "entry {index} is committed, of term {term} on c{one} and of term {other_term} on c{two}"
                    )
                });
            }
        }
        compared
    }
}

/// What the logs of all nodes say, by themselves and beside each other.
pub(super) fn together(logs: BTreeMap<u64, NodeLog>) -> LogsEvidence {
    let mut found = LogsEvidence::default();
    for (one, log) in &logs {
        for (two, other) in logs.range(one + 1..) {
            found.compared += log.compare((*one, *two), other, &mut found.disagree);
        }
    }
    found.nodes = logs.into_iter().map(|(node, log)| (node, log.found)).collect();
    found
}

fn note(notes: &mut Vec<String>, what: impl FnOnce() -> String) {
    if notes.len() < MOST {
        notes.push(what());
    }
}

#[cfg(test)]
mod tests {
    use unanimo_proto::internal::entry::{Blank, Payload};
    use unanimo_proto::internal::raft_record::{Purge, Truncation};

    use super::*;

    fn vote(term: u64, node: u64) -> Record {
        Record::Vote(Vote {
            term,
            node,
            committed: true,
        })
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    fn entry(term: u64, index: u64, commands: Option<&'static [u8]>) -> Record {
        let payload = commands.map_or(Payload::Blank(Blank {}), |bytes| Payload::Commands(bytes.into()));
        Record::Entry(Entry {
            id: Some(id(term, index)),
            payload: Some(payload),
        })
    }

    fn log(records: impl IntoIterator<Item = Record>) -> NodeLog {
        let mut log = NodeLog::default();
        for record in records {
            log.take(record);
        }
        log
    }

    #[test]
    fn an_entry_whose_vote_was_not_written_is_found() {
        let right = log([vote(1, 1), entry(1, 1, None), vote(2, 3), entry(2, 2, None)]);
        assert_eq!(right.found.uncovered, Vec::<String>::new());
        assert_eq!(right.found.votes, 2);
        let wrong = log([vote(1, 1), entry(1, 1, None), entry(2, 2, None)]);
        assert_eq!(
            wrong.found.uncovered,
            ["entry 2 is of term 2, the last vote before it of term 1"]
        );
        let none = log([entry(1, 1, None)]);
        assert_eq!(none.found.uncovered.len(), 1);
    }

    #[test]
    fn a_second_vote_in_a_term_and_a_vote_that_falls_are_found() {
        let granted = |term, node| {
            Record::Vote(Vote {
                term,
                node,
                committed: false,
            })
        };
        // It voted for itself, and another won.
        let right = log([vote(1, 1), granted(2, 3), vote(2, 1)]);
        assert_eq!(right.found.repeated, Vec::<String>::new());
        let twice = log([granted(2, 1), granted(2, 3)]);
        assert_eq!(twice.found.repeated, ["votes for {1, 3} in term 2"]);
        let leaders = log([vote(2, 1), vote(2, 3)]);
        assert_eq!(leaders.found.repeated, ["leaders {1, 3} in term 2"]);
        let fell = log([vote(3, 1), vote(2, 1)]);
        assert_eq!(fell.found.repeated, ["a vote of term 2 after one of term 3"]);
    }

    #[test]
    fn logs_that_contradict_each_other_are_found() {
        let committed = |index| Record::Committed(id(1, index));
        let compare = |one: NodeLog, two: NodeLog| together(BTreeMap::from([(1, one), (2, two)]));
        let right = compare(
            log([vote(1, 1), entry(1, 1, Some(b"x")), entry(1, 2, Some(b"y"))]),
            log([vote(1, 1), entry(1, 1, Some(b"x"))]),
        );
        assert_eq!((right.compared, right.disagree), (1, vec![]));
        let content = compare(
            log([vote(1, 1), entry(1, 1, Some(b"x"))]),
            log([vote(1, 1), entry(1, 1, Some(b"y"))]),
        );
        assert_eq!(
            content.disagree,
            ["entry 1 of term 1 is not the same on c1 and c2"]
        );
        // What is not committed may differ: one of them is going to be cut.
        let differ = |committed: Option<Record>| {
            let one = [vote(2, 1), entry(1, 1, None)]
                .into_iter()
                .chain(committed.clone());
            let two = [vote(2, 1), entry(2, 1, None)].into_iter().chain(committed);
            compare(log(one), log(two)).disagree
        };
        assert_eq!(differ(None), Vec::<String>::new());
        assert_eq!(
            differ(Some(committed(1))),
            ["entry 1 is committed, of term 1 on c1 and of term 2 on c2"]
        );
    }

    #[test]
    fn what_was_cut_or_released_is_not_compared() {
        let cut = Record::Truncation(Truncation {
            vote: Some(Vote {
                term: 2,
                node: 1,
                committed: true,
            }),
            last: Some(id(1, 1)),
            ..Truncation::default()
        });
        let log_cut = log([
            vote(1, 1),
            entry(1, 1, None),
            entry(1, 2, None),
            cut,
            entry(2, 2, None),
        ]);
        assert_eq!(log_cut.entries.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(log_cut.entries[&2].0, 2);
        assert_eq!(
            log_cut.found.uncovered,
            Vec::<String>::new(),
            "the cut carries the vote"
        );
        let purge = Record::Purge(Purge {
            vote: Some(Vote {
                term: 1,
                node: 1,
                committed: true,
            }),
            purged: Some(id(1, 1)),
            ..Purge::default()
        });
        let released = log([vote(1, 1), entry(1, 1, None), entry(1, 2, None), purge]);
        assert_eq!(released.entries.keys().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(released.found.repeated, Vec::<String>::new());
    }

    #[test]
    fn a_carried_vote_that_is_older_and_a_cut_below_what_was_committed_are_found() {
        let cut = |term, last| {
            let vote = Vote {
                term,
                node: 1,
                committed: true,
            };
            Record::Truncation(Truncation {
                vote: Some(vote),
                last: Some(id(1, last)),
                ..Truncation::default()
            })
        };
        let committed = |index| Record::Committed(id(1, index));
        let before = || {
            [
                vote(2, 1),
                entry(1, 1, None),
                entry(1, 2, None),
                entry(1, 3, None),
            ]
        };
        let right = log(before().into_iter().chain([committed(2), cut(3, 2)]));
        assert_eq!(right.found.repeated, Vec::<String>::new());
        assert_eq!(right.found.committed_cut, Vec::<String>::new());
        // A snapshot of up to 9 was coming.
        let snapshot = log(before().into_iter().chain([committed(9), cut(2, 1)]));
        assert_eq!(snapshot.found.committed_cut, Vec::<String>::new());
        let older = log(before().into_iter().chain([cut(1, 2)]));
        assert_eq!(
            older.found.repeated,
            ["a vote of term 2 was carried on as one of term 1"]
        );
        let below = log(before().into_iter().chain([committed(2), cut(2, 1)]));
        assert_eq!(
            below.found.committed_cut,
            ["cut after entry 1; entry 2 was committed, up to 2"]
        );
    }
}
