//! The decision table as Raft's state machine.
//!
//! What an entry changes and how far the log is applied go into the table in one batch, so after a crash the table
//! is in a state that it once had, and openraft applies the log again from there. Only an entry whose changes do not
//! fit into one batch goes in piece by piece, and may be applied again on top of a part of itself: the commands are
//! idempotent, so that does no harm.
//!
//! A snapshot shows the table as it was at one entry, although applying goes on: see
//! [`before_images`](super::before_images). It holds the decision records, the horizon, what idempotency keys stand for and the registrations; what follows from
//! them is worked out when it is installed.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Applied, Command};
use unanimo_core::{AbortReason, Decision, Members};
use unanimo_proto::storage::decode_commands;
use unanimo_proto::transport::{Clock as _, SystemClock};
use unanimo_table::{Batch, MAX_BATCH_BYTES, Table};

use super::applied_state::AppliedState;
use super::background;
use super::before_images::{BeforeImages, Past};
use super::failure::Failure;
use super::snapshot_install;
use super::snapshot_store::{SnapshotFile, SnapshotStore};
use super::table_view::{
    APPLIED, BINDINGS, HORIZON, INSTALLING, Overlay, RECORDS, REGISTRATIONS, ReadTableError,
};
use super::type_config::{Commands, Entry, LogId, Outcome, SnapshotMeta, StoredMembership, TypeConfig};
use super::{Background, StartError};

/// Entries share a batch until their changes add up to this, in bytes.
const BATCH_BYTES: usize = 1024 * 1024;
/// The changes of one entry go into several batches when they add up to this, in bytes: what a batch may hold, less
/// the changes of one command.
const ENTRY_BYTES: usize = MAX_BATCH_BYTES - 512 * 1024;
/// Entries that share a batch at most, so that proposers of the first do not wait for too many others.
const ENTRIES_PER_BATCH: usize = 256;

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// The decision table as Raft's state machine. A clone is another handle.
#[derive(Clone)]
pub(super) struct StateMachine {
    shared: Arc<Shared>,
}

struct Shared {
    table: Arc<dyn Table>,
    snapshots: Arc<SnapshotStore>,
    background: Background,
    failure: Failure,
    /// What the table says, in memory.
    applied: Mutex<AppliedState>,
    images: BeforeImages,
    /// Held while a snapshot is taken.
    taking: Mutex<()>,
}

impl StateMachine {
    /// Takes up the table where it stands. One that a snapshot was about to replace is emptied: openraft installs
    /// the snapshot again.
    pub(super) fn open(
        table: Arc<dyn Table>,
        snapshots: Arc<SnapshotStore>,
        background: Background,
        failure: Failure,
    ) -> Result<Self, StartError> {
        if table.get(INSTALLING)?.is_some() {
            tracing::warn!("a snapshot was not installed completely; it is installed again");
            snapshot_install::wipe(&*table)?;
        }
        let applied = table
            .get(APPLIED)?
            .map(|value| AppliedState::decode(&value))
            .transpose()?;
        let applied = Mutex::new(applied.unwrap_or_default());
        let (images, taking) = (BeforeImages::default(), Mutex::new(()));
        let shared = Arc::new(Shared {
            table,
            snapshots,
            background,
            failure,
            applied,
            images,
            taking,
        });
        Ok(Self { shared })
    }

    /// How far the log is applied.
    pub(super) fn applied(&self) -> AppliedState {
        self.shared.applied().clone()
    }

    /// The table as it is now, to be read later.
    #[cfg(test)]
    pub(super) fn past(&self) -> (Past<'_>, AppliedState) {
        self.shared.past()
    }

    /// Takes a snapshot of what is applied now, on this thread.
    pub(super) fn take_snapshot(&self) -> io::Result<SnapshotFile> {
        self.shared.build()
    }
}

impl Shared {
    fn applied(&self) -> MutexGuard<'_, AppliedState> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error here stops the replica: nobody knows what the table holds (R10).
    fn failed<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            self.failure
                .tell(format_args!("the decision table or its snapshot: {error}"))
        })
    }

    fn build(&self) -> io::Result<SnapshotFile> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.checkpoint().map_err(io::Error::other)?;
        let (past, state) = self.past();
        self.snapshots.build(&state, |writer| {
            for range in [RECORDS, HORIZON, BINDINGS, REGISTRATIONS] {
                past.read(range, |entries| {
                    entries.iter().try_for_each(|(key, value)| writer.put(key, value))
                })?;
            }
            Ok(())
        })
    }

    /// The table as it is now, to be read later, and its state.
    fn past(&self) -> (Past<'_>, AppliedState) {
        self.images.begin(&*self.table, || self.applied().clone())
    }

    fn install(&self, snapshot: SnapshotFile) -> io::Result<()> {
        let snapshot = self.snapshots.publish(snapshot)?;
        snapshot_install::install(&*self.table, &snapshot)?;
        *self.applied() = snapshot.state().clone();
        Ok(())
    }
}

/// Entries that go into the table together.
struct Group<'a> {
    shared: &'a Shared,
    overlay: Overlay<'a>,
    state: AppliedState,
    entries: usize,
    answers: Vec<(ApplyResponder<TypeConfig>, Outcome)>,
}

impl<'a> Group<'a> {
    fn new(shared: &'a Shared) -> Self {
        let overlay = Overlay::new(&*shared.table);
        let state = shared.applied().clone();
        Self {
            shared,
            overlay,
            state,
            entries: 0,
            answers: Vec::new(),
        }
    }

    fn add(
        &mut self,
        entry: &Entry,
        responder: Option<ApplyResponder<TypeConfig>>,
    ) -> Result<(), ReadTableError> {
        let (outcome, membership) = match &entry.payload {
            EntryPayload::Blank => (Vec::new(), None),
            EntryPayload::Normal(commands) => (self.carry_out(commands)?, None),
            EntryPayload::Membership(membership) => (Vec::new(), Some(membership)),
        };
        self.state.advance(entry, membership);
        self.entries += 1;
        // Nobody is answered before the changes are in the table.
        self.answers
            .extend(responder.map(|responder| (responder, Outcome(outcome))));
        Ok(())
    }

    fn carry_out(&mut self, commands: &Commands) -> Result<Vec<Applied>, ReadTableError> {
        let mut outcome = Vec::new();
        for command in decode_commands(commands.0.clone())? {
            let command = judged_by_this_clock(command);
            let (changes, applied) = unanimo_core::table::apply(&self.overlay, &command)?;
            for change in changes {
                self.overlay.put(change);
            }
            outcome.push(applied);
            if self.overlay.bytes() > ENTRY_BYTES {
                // Goes into the table before the note that the entry is applied: if the rest is lost, all of the
                // entry is applied again.
                let batch = self.take_batch();
                self.shared.images.apply(&*self.shared.table, batch, || ())?;
            }
        }
        Ok(outcome)
    }

    fn take_batch(&mut self) -> Batch {
        std::mem::replace(&mut self.overlay, Overlay::new(&*self.shared.table)).into_batch()
    }

    fn is_full(&self) -> bool {
        self.entries >= ENTRIES_PER_BATCH || self.overlay.bytes() > BATCH_BYTES
    }

    /// Puts everything into the table and answers.
    fn finish(mut self) -> Result<(), ReadTableError> {
        if self.entries == 0 {
            return Ok(());
        }
        let mut batch = self.take_batch();
        batch.put(APPLIED, self.state.encode());
        let (shared, state) = (self.shared, self.state);
        shared
            .images
            .apply(&*shared.table, batch, || *shared.applied() = state)?;
        for (responder, outcome) in self.answers {
            responder.send(outcome);
        }
        Ok(())
    }
}

/// What is applied depends on what is proposed and nothing else: the command as it is.
fn judged_by_this_clock(mut command: Command) -> Command {
    if mutants::is_on(Mutant::M24)
        && let Command::Decide(proposal) = &mut command
        && SystemClock.now().since(proposal.decided_at) > Duration::from_millis(500)
    {
        let missing = Members::new();
        proposal.decision = Decision::Abort(AbortReason::DeadlinePassed { missing });
    }
    command
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.applied();
        Ok((applied.last_applied, applied.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let shared = &*self.shared;
        let mut group = Group::new(shared);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            shared.failed(group.add(&entry, responder).map_err(io::Error::from))?;
            if group.is_full() {
                shared.failed(group.finish().map_err(io::Error::from))?;
                group = Group::new(shared);
            }
        }
        shared.failed(group.finish().map_err(io::Error::from))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        assert!(
            *meta == snapshot.state().meta(),
            "the snapshot is of {:?}, not of {meta}",
            snapshot.state()
        );
        let shared = Arc::clone(&self.shared);
        background::run(self.shared.background, move || {
            shared.failed(shared.install(snapshot))
        })
        .await?
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.shared.snapshots.newest().map(as_snapshot))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let shared = Arc::clone(&self.shared);
        let built = background::run(self.shared.background, move || shared.failed(shared.build())).await??;
        Ok(as_snapshot(built))
    }
}

fn as_snapshot(snapshot: SnapshotFile) -> Snapshot {
    Snapshot {
        meta: snapshot.state().meta(),
        snapshot,
    }
}
