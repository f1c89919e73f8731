use std::collections::BTreeMap;

use unanimo_core::{
    BranchPhase, ClusterId, Contradiction, Finish, Generation, ParticipantId, Position, Prepared, Reach,
    Record, TransactionId, recover,
};
use unanimo_journal::Sequence;
use unanimo_proto::storage::decode_participant_record;

use crate::StartError;
use crate::branch_table::{BranchTable, Finished};
use crate::kept::Kept;

/// Records that are folded at a time. Only branches in doubt are kept from one fold to the next, so memory does
/// not grow with the journal.
const RECORDS_PER_FOLD: usize = 1024;

/// Folds the journal, record by record, into what recovery needs: the branches in doubt in memory, and every
/// finished branch in the branch table.
///
/// The table may have lost anything since its last checkpoint, or everything. It says up to which record it is
/// complete; what comes after is put into it again.
pub(crate) struct Replay<'a> {
    cluster: &'a ClusterId,
    name: &'a ParticipantId,
    table: &'a BranchTable,
    /// Up to here the table was complete when the replay began.
    complete: Sequence,
    /// Read and not folded yet.
    unfolded: Vec<(Sequence, Record)>,
    in_doubt: BTreeMap<TransactionId, (Sequence, Prepared)>,
    generation: Generation,
    reach: Reach,
    closed: Option<Closed>,
    kept: Kept,
    last: Sequence,
}

/// A promise that has to be kept, and where its record stands.
pub(crate) struct Promise {
    pub(crate) sequence: Sequence,
    pub(crate) transaction: TransactionId,
    pub(crate) prepared: Prepared,
}

/// Transactions below `below` are closed here, durably: the record at `sequence` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) below: TransactionId,
    pub(crate) sequence: Sequence,
}

/// What the journal says.
pub(crate) struct Replayed {
    /// In the order of their records.
    pub(crate) in_doubt: Vec<Promise>,
    /// The last life.
    pub(crate) generation: Generation,
    /// What to register the next life with.
    pub(crate) reach: Position,
    /// What is closed, if anything.
    pub(crate) closed: Option<Closed>,
    /// What is needed of the journal.
    pub(crate) kept: Kept,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(
        cluster: &'a ClusterId,
        name: &'a ParticipantId,
        table: &'a BranchTable,
    ) -> Result<Self, StartError> {
        Ok(Self {
            cluster,
            name,
            table,
            complete: table.complete()?,
            unfolded: Vec::new(),
            in_doubt: BTreeMap::new(),
            generation: Generation::default(),
            reach: Reach::default(),
            closed: None,
            kept: Kept::default(),
            last: Sequence::BEFORE_FIRST,
        })
    }

    /// Takes the next record.
    pub(crate) fn take(&mut self, sequence: Sequence, bytes: &[u8]) -> Result<(), StartError> {
        let (owner, record) =
            decode_participant_record(bytes).map_err(|source| StartError::Unreadable { sequence, source })?;
        self.last = sequence;
        self.reach.take(Position(sequence.get()), &record);
        self.kept.found(sequence, &record);
        match (owner, &record) {
            (Some(owner), Record::Started { cluster, generation }) => {
                self.check_owner(&owner, cluster)?;
                if *generation <= self.generation {
                    return Err(self.out_of_order(*generation));
                }
                self.generation = *generation;
            }
            (
                Some(owner),
                Record::Closed {
                    cluster,
                    generation,
                    below,
                },
            ) => {
                self.check_owner(&owner, cluster)?;
                // The start of its life stands before it, if it was not released.
                if self.generation == Generation::default() {
                    self.generation = *generation;
                } else if *generation != self.generation {
                    return Err(self.out_of_order(*generation));
                }
                let below = self.closed.map_or(*below, |closed| closed.below.max(*below));
                self.closed = Some(Closed { below, sequence });
            }
            (Some(_) | None, _) => self.unfolded.push((sequence, record)),
        }
        if self.unfolded.len() >= RECORDS_PER_FOLD {
            self.fold()?;
        }
        Ok(())
    }

    /// Says what is left when all records have been taken. The table is complete then.
    pub(crate) fn finish(mut self) -> Result<Replayed, StartError> {
        // What stands in the table was durable in the journal first.
        if self.complete > self.last {
            return Err(StartError::JournalBehind {
                table: self.complete,
                journal: self.last,
            });
        }
        self.fold()?;
        let promise = |(transaction, (sequence, prepared))| Promise {
            sequence,
            transaction,
            prepared,
        };
        let mut in_doubt: Vec<Promise> = self.in_doubt.into_iter().map(promise).collect();
        in_doubt.sort_by_key(|promise| promise.sequence);
        Ok(Replayed {
            in_doubt,
            generation: self.generation,
            reach: self.reach.position().unwrap_or(Position(self.last.get())),
            closed: self.closed,
            kept: self.kept,
        })
    }

    fn out_of_order(&self, found: Generation) -> StartError {
        StartError::StartsOutOfOrder {
            known: self.generation,
            found,
        }
    }

    fn check_owner(&self, owner: &ParticipantId, cluster: &ClusterId) -> Result<(), StartError> {
        if cluster != self.cluster {
            return Err(StartError::OtherCluster {
                expected: self.cluster.clone(),
                found: cluster.clone(),
            });
        }
        if owner != self.name {
            return Err(StartError::OtherParticipant {
                expected: self.name.clone(),
                found: owner.clone(),
            });
        }
        Ok(())
    }

    /// Folds the branches in doubt and the records read since, and puts what has finished into the table.
    fn fold(&mut self) -> Result<(), StartError> {
        let Some((first_new, _)) = self.unfolded.first() else {
            return self.put(&[]);
        };
        let first_new = *first_new;
        let mut last_record = BTreeMap::new();
        let mut records = Vec::new();
        for (transaction, (sequence, prepared)) in std::mem::take(&mut self.in_doubt) {
            last_record.insert(transaction, sequence);
            records.push(Record::Prepared(transaction, prepared));
        }
        for (sequence, record) in self.unfolded.drain(..) {
            match &record {
                Record::Prepared(transaction, _)
                | Record::Committed { transaction, .. }
                | Record::Aborted { transaction, .. } => last_record.insert(*transaction, sequence),
                Record::Started { .. } | Record::Registered { .. } | Record::Closed { .. } => None,
            };
            records.push(record);
        }
        let mut finished = Vec::new();
        for (transaction, branch) in recover(records)? {
            let sequence = last_record[&transaction];
            match branch.phase() {
                BranchPhase::Prepared(prepared) => {
                    self.keep_promise(sequence, transaction, prepared, sequence >= first_new)?;
                }
                // The table has these, and compared them when it got them.
                BranchPhase::Finished(_) if sequence <= self.complete => {}
                BranchPhase::Finished(finish) => {
                    self.check_finish(transaction, finish)?;
                    finished.extend(Finished::new(sequence, &branch));
                }
                phase => unreachable!("recovery leaves no branch in {phase:?}"),
            }
        }
        self.put(&finished)
    }

    fn put(&self, finished: &[Finished]) -> Result<(), StartError> {
        Ok(self.table.put(finished, self.complete.max(self.last))?)
    }

    /// A promise is kept until its end is read; it must not come after its end.
    fn keep_promise(
        &mut self,
        sequence: Sequence,
        transaction: TransactionId,
        prepared: &Prepared,
        is_new: bool,
    ) -> Result<(), StartError> {
        // What the table had when the replay began may be the end that is still to be read.
        if is_new
            && sequence > self.complete
            && let Some(known) = self.table.finish(transaction)?
        {
            return Err(contradiction(transaction, name(&known), "Prepared"));
        }
        self.in_doubt.insert(transaction, (sequence, prepared.clone()));
        Ok(())
    }

    fn check_finish(&self, transaction: TransactionId, found: &Finish) -> Result<(), StartError> {
        let Some(known) = self.table.finish(transaction)? else {
            return Ok(());
        };
        let same = match (&known, found) {
            (Finish::Committed { request_hash: known }, Finish::Committed { request_hash: found }) => {
                known == found
            }
            (Finish::Aborted { .. }, Finish::Aborted { .. }) => true,
            (Finish::Committed { .. } | Finish::Aborted { .. } | Finish::ReadOnly { .. }, _) => false,
        };
        if same {
            Ok(())
        } else {
            Err(contradiction(transaction, name(&known), name(found)))
        }
    }
}

const fn name(finish: &Finish) -> &'static str {
    match finish {
        Finish::Committed { .. } => "Committed",
        Finish::Aborted { .. } => "Aborted",
        Finish::ReadOnly { .. } => "ReadOnly",
    }
}

fn contradiction(transaction: TransactionId, known: &'static str, found: &'static str) -> StartError {
    StartError::Contradiction(Contradiction {
        transaction,
        known,
        found,
    })
}
