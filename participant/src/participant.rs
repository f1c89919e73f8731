use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use unanimo_client::{Client, ClientOptions};
use unanimo_core::table::Witness;
use unanimo_core::{BranchInput, Generation, JoinAnswer, JoinRequest, Operation, Position, TransactionId};
use unanimo_journal::RealDisk;
use unanimo_proto::transport::{Clock, MAX_MESSAGE_BYTES, SystemClock, TcpConnector};
use unanimo_proto::v1::participant_server::ParticipantServer;
use unanimo_proto::{BadContext, BranchReport, BranchState, Context};
use unanimo_table::{SledOptions, SledTable};

use crate::background::{aside, blocking, forget, hear, remember};
use crate::branch_table::BranchTable;
use crate::branches::{Branches, Completion, Surroundings};
use crate::doubts::Doubts;
use crate::entry::Asker;
use crate::error::Refusal;
use crate::gate::{Gate, spawn_watched};
use crate::inquiry::Inquirer;
use crate::observer::observe;
use crate::pause::Jitter;
use crate::registration::Registrar;
use crate::replay::Promise;
use crate::resource::AnyResourceManager;
use crate::resource_calls::ResourceCalls;
use crate::service::Answering;
use crate::statistics::Counters;
use crate::store::{Store, Writers};
use crate::{
    Bytes, Endpoint, JoinError, ParticipantOptions, Parts, ResourceManager, StartError, Statistics,
    StopReason, Writing,
};

/// A participant at work. Cheap to clone; clones are the same participant.
///
/// It stops when [`shutdown`](Self::shutdown) is called, or by itself when it must not go on: see
/// [`stopped`](Self::stopped). Dropping all clones does not stop it; a process that wants an orderly end calls
/// `shutdown`, and one that is killed instead loses nothing that it has promised.
#[derive(Clone)]
pub struct Participant {
    inner: Arc<Inner>,
}

struct Inner {
    options: Arc<ParticipantOptions>,
    generation: Generation,
    reach: Position,
    store: Arc<Store>,
    branches: Arc<Branches>,
    doubts: Arc<Doubts>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    jitter: Arc<Jitter>,
    clock: Arc<dyn Clock>,
    client: Client,
    writing: Writing,
    tasks: TaskTracker,
    completions: mpsc::UnboundedSender<Completion>,
    /// Taken by the recovery.
    promises: Mutex<Option<Vec<Promise>>>,
    /// Taken by the shutdown.
    writers: Mutex<Option<Writers>>,
    /// Whether the shutdown is over.
    ended: watch::Sender<bool>,
}

impl Participant {
    /// Starts on this machine: real disk, sled, TCP. When it returns, every promise of earlier lives is kept again
    /// (its holds are restored) and messages are answered.
    ///
    /// Waits for the resource manager as long as it is unavailable, but not for the coordinators: registering, and
    /// asking about branches in doubt, go on in the background. New transactions are refused, with a hint to
    /// repeat, until the registration is confirmed.
    ///
    /// # Errors
    ///
    /// [`StartError`]; in each case nothing was answered.
    pub async fn start(
        options: ParticipantOptions,
        manager: impl ResourceManager,
    ) -> Result<Self, StartError> {
        let participant = Self::open(options, manager).await?;
        participant.recover().await?;
        Ok(participant)
    }

    /// Like [`start`](Self::start), with the parts that the caller brings.
    ///
    /// # Errors
    ///
    /// [`StartError`]; in each case nothing was answered.
    pub async fn start_with(
        options: ParticipantOptions,
        parts: Parts,
        manager: impl ResourceManager,
    ) -> Result<Self, StartError> {
        let participant = Self::open_with(options, parts, manager).await?;
        participant.recover().await?;
        Ok(participant)
    }

    /// The first half of [`start`](Self::start), for a service that wants to listen while it recovers: reads the
    /// journal and counts the start. Until [`recover`](Self::recover) has returned, messages are refused as
    /// recovering.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn open(
        options: ParticipantOptions,
        manager: impl ResourceManager,
    ) -> Result<Self, StartError> {
        let folder = options.data.clone();
        let opened = aside(move || -> Result<_, StartError> {
            let data = |source| StartError::Data {
                path: folder.clone(),
                source,
            };
            let disk = RealDisk::open(folder.join("journal")).map_err(data)?;
            let opened = SledTable::open(folder.join("branches"), SledOptions::new("branch"))?;
            Ok((disk, opened))
        });
        let (disk, opened) = opened.await?;
        let table = Arc::new(opened.table);
        if let Some(set_aside) = &opened.set_aside {
            tracing::warn!(
                participant = %options.name,
                set_aside = %set_aside.display(),
                "the branch table was damaged and is rebuilt from the journal"
            );
        }
        let clock = SystemClock::shared();
        let parts = Parts {
            disk: Arc::new(disk),
            table: Arc::clone(&table) as _,
            connector: TcpConnector::shared(),
            seed: rand::random(),
            random: rand::random(),
            clock,
            writing: Writing::Threads,
        };
        let participant = Self::open_with(options, parts, manager).await?;
        if opened.set_aside.is_some() {
            aside(move || table.rebuilt()).await?;
        }
        Ok(participant)
    }

    /// Like [`open`](Self::open), with the parts that the caller brings.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn open_with(
        options: ParticipantOptions,
        parts: Parts,
        manager: impl ResourceManager,
    ) -> Result<Self, StartError> {
        let client_options =
            ClientOptions::new(options.cluster.clone(), options.coordinators.iter().cloned());
        let client = Client::new(client_options, parts.connector.as_ref())?;
        let options = Arc::new(options);
        let (store, writer, replayed) = {
            let (options, disk) = (Arc::clone(&options), parts.disk);
            let table = BranchTable::new(parts.table);
            blocking(parts.writing, move || Store::open(&options, disk, table)).await?
        };
        let store = Arc::new(store);
        let gate = Arc::new(Gate::new());
        let watched = Arc::clone(&gate);
        store.on_failure(move |reason| watched.close(reason));
        let writers = Writers::start(writer, parts.writing).map_err(|source| StartError::Data {
            path: options.data.clone(),
            source,
        })?;
        let generation = replayed.generation.next(parts.random);
        store.record_start(&options, generation).await?;
        let start = Witness {
            generation,
            position: replayed.reach,
        };
        let manager: Arc<dyn AnyResourceManager> = Arc::new(manager);
        let counters = Arc::new(Counters::new(&options.name));
        let jitter = Arc::new(Jitter::new(parts.seed));
        let doubts = Arc::new(Doubts::new(options.inquiry_after));
        let tasks = TaskTracker::new();
        let (completions, completed) = mpsc::unbounded_channel();
        let branches = Arc::new(Branches::new(Surroundings {
            options: Arc::clone(&options),
            start,
            store: Arc::clone(&store),
            calls: ResourceCalls::new(
                manager,
                &options,
                Arc::clone(&gate),
                Arc::clone(&counters),
                Arc::clone(&jitter),
            ),
            doubts: Arc::clone(&doubts),
            gate: Arc::clone(&gate),
            counters: Arc::clone(&counters),
            clock: Arc::clone(&parts.clock),
            completions: completions.clone(),
            tasks: tasks.clone(),
        }));
        spawn_watched(&gate, hear(completed, Arc::clone(&branches), Arc::clone(&gate)));
        let remembering = remember(
            Arc::clone(&store),
            Arc::clone(&branches),
            Arc::clone(&gate),
            parts.writing,
        );
        spawn_watched(&gate, remembering);
        spawn_watched(
            &gate,
            forget(
                Arc::clone(&store),
                Arc::clone(&branches),
                Arc::clone(&gate),
                generation,
                parts.writing,
            ),
        );
        spawn_watched(
            &gate,
            observe(
                counters.metrics.gauges(),
                Arc::downgrade(&branches),
                Arc::clone(&doubts),
                Arc::clone(&gate),
                Arc::clone(&parts.clock),
            ),
        );
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                generation,
                reach: start.position,
                store,
                branches,
                doubts,
                gate,
                counters,
                jitter,
                clock: parts.clock,
                client,
                writing: parts.writing,
                tasks,
                completions,
                promises: Mutex::new(Some(replayed.in_doubt)),
                writers: Mutex::new(Some(writers)),
                ended: watch::Sender::new(false),
            }),
        })
    }

    /// The second half of [`start`](Self::start): restores the holds of every promise, and opens for traffic. Calling
    /// it again does nothing.
    ///
    /// # Errors
    ///
    /// [`StartError::ResourceManagerBehind`] or
    /// [`StartError::ResourceManagerHoldsClosed`], and [`StartError::Stopped`] if the participant stopped meanwhile.
    /// Nothing was answered.
    pub async fn recover(&self) -> Result<(), StartError> {
        let inner = &self.inner;
        let promises = inner
            .promises
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(promises) = promises else {
            // Whoever is listed as prepared by now may have been promised since, and asks by itself.
            return Ok(());
        };
        let in_doubt = promises.len();
        match inner.branches.recover(promises).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                self.shutdown().await;
                return Err(error);
            }
            None => return Err(StartError::Stopped(self.stopped().await)),
        }
        let (participant, generation) = (&inner.options.name, inner.generation);
        if in_doubt > 0 {
            tracing::warn!(%participant, %generation, in_doubt, "recovered with branches in doubt");
        } else {
            tracing::info!(%participant, %generation, "recovered");
        }
        inner.gate.serve();
        spawn_watched(
            &inner.gate,
            Registrar {
                client: inner.client.clone(),
                options: Arc::clone(&inner.options),
                generation,
                reach: inner.reach,
                store: Arc::clone(&inner.store),
                gate: Arc::clone(&inner.gate),
                jitter: Arc::clone(&inner.jitter),
            }
            .run(),
        );
        spawn_watched(
            &inner.gate,
            Inquirer {
                client: inner.client.clone(),
                options: Arc::clone(&inner.options),
                branches: Arc::clone(&inner.branches),
                doubts: Arc::clone(&inner.doubts),
                gate: Arc::clone(&inner.gate),
                counters: Arc::clone(&inner.counters),
                jitter: Arc::clone(&inner.jitter),
            }
            .run(),
        );
        Ok(())
    }

    /// The gRPC service, with the message limits of Unanimo, for a server that serves other things as well. A
    /// service that serves nothing else uses [`serve`](Self::serve).
    pub fn service(&self) -> ParticipantServer<Endpoint> {
        let answering = Answering {
            options: Arc::clone(&self.inner.options),
            branches: Arc::clone(&self.inner.branches),
            gate: Arc::clone(&self.inner.gate),
            clock: Arc::clone(&self.inner.clock),
        };
        ParticipantServer::new(Endpoint {
            answering,
            metrics: self.inner.counters.metrics.clone(),
        })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Does one operation of an interactive transaction, and holds it until the transaction's commit asks for the
    /// vote, or until its time is over. Services use it through [`JoinLayer`](crate::JoinLayer).
    ///
    /// # Errors
    ///
    /// [`JoinError`] says what became of the operation.
    pub async fn join(&self, context: &Context, operation: Bytes) -> Result<(), JoinError> {
        let joined = self.try_join(context, operation).await;
        self.count_join(&joined);
        joined
    }

    /// Counts an operation by what became of it.
    pub(crate) fn count_join(&self, joined: &Result<(), JoinError>) {
        self.inner.counters.metrics.joined(joined);
        if let Err(JoinError::BadContext(error)) = joined {
            self.count_bad_context(error);
        }
    }

    async fn try_join(&self, context: &Context, operation: Bytes) -> Result<(), JoinError> {
        let inner = &self.inner;
        if let Err(refused) = inner.gate.admit() {
            return Err(JoinError::NotStarted(refused.into()));
        }
        let (bytes, limit) = (operation.len(), inner.options.request.operation_bytes);
        if bytes > limit {
            return Err(JoinError::TooLarge { bytes, limit });
        }
        if context.cluster != inner.options.cluster {
            return Err(JoinError::BadContext(BadContext::OtherCluster {
                ours: inner.options.cluster.clone(),
                found: context.cluster.clone(),
            }));
        }
        inner
            .branches
            .check_time(context.transaction)
            .map_err(JoinError::BadContext)?;
        let remaining = context.remaining.min(inner.options.joined_for_at_most);
        let request = JoinRequest {
            cluster: context.cluster.clone(),
            operation: Operation::new(operation),
            deadline: inner.clock.now().after(remaining),
        };
        let (sender, told) = oneshot::channel();
        let input = BranchInput::Join(request);
        inner
            .branches
            .step(context.transaction, input, Asker::Join(sender));
        // What was told before the participant stopped still holds, so it is looked at first. Both only wait; the
        // timer of the branch makes sure that there is an end.
        let told = tokio::select! {
            biased;
            told = told => told.ok(),
            _ = inner.gate.stopped() => None,
        };
        match told {
            Some(Ok(JoinAnswer::Joined)) => Ok(()),
            Some(Ok(JoinAnswer::Refused { reason })) => Err(JoinError::Refused { reason }),
            Some(Ok(JoinAnswer::Busy)) => Err(JoinError::Busy),
            Some(Err(refused @ Refusal::Stopped(_))) => Err(JoinError::Unknown(refused.into())),
            Some(Err(refused)) => Err(JoinError::NotStarted(refused.into())),
            None => {
                let refused = Refusal::Stopped(inner.gate.stopped().await);
                Err(JoinError::Unknown(refused.into()))
            }
        }
    }

    /// Reads the context of a call, and counts one that is not fit for use.
    pub(crate) fn read_context(&self, text: Result<&str, BadContext>) -> Result<Context, BadContext> {
        let context = text.and_then(|text| Context::from_wire(text, &self.inner.options.cluster));
        if let Err(error) = &context {
            self.count_bad_context(error);
        }
        context
    }

    fn count_bad_context(&self, error: &BadContext) {
        self.inner.counters.bad_contexts.increment();
        self.inner.counters.metrics.bad_context(error);
        tracing::warn!(participant = %self.inner.options.name, %error, "a call was refused");
    }

    /// What the reply to a call says about its branch.
    pub(crate) fn report(&self, transaction: TransactionId, state: BranchState) -> BranchReport {
        BranchReport {
            cluster: self.inner.options.cluster.clone(),
            transaction,
            participant: self.inner.options.name.clone(),
            generation: self.inner.generation,
            state,
        }
    }

    /// This life of the participant: how often it has started, this time included, and what tells it from a life that
    /// began from a copy of its data.
    pub fn generation(&self) -> Generation {
        self.inner.generation
    }

    /// What it has done since it started.
    pub fn statistics(&self) -> Statistics {
        let (inner, counters) = (&self.inner, &self.inner.counters);
        let (in_doubt, oldest) = inner.doubts.survey();
        Statistics {
            in_flight: inner.branches.in_flight(),
            in_doubt,
            oldest_in_doubt: oldest.map(|since| inner.clock.now().since(since)),
            recovered_in_doubt: counters.recovered_in_doubt.get(),
            voted_yes: counters.voted_yes.get(),
            voted_read_only: counters.voted_read_only.get(),
            voted_no: counters.voted_no.get(),
            committed: counters.committed.get(),
            aborted: counters.aborted.get(),
            inquiries: counters.inquiries.get(),
            inquiry_calls: counters.inquiry_calls.get(),
            inquiries_refused: counters.inquiries_refused.get(),
            joined: counters.joined.get(),
            joins_refused: counters.joins_refused.get(),
            joins_expired: counters.joins_expired.get(),
            bad_contexts: counters.bad_contexts.get(),
            duplicates: counters.duplicates.get(),
            violations: counters.violations.get(),
            expired: counters.expired.get(),
            watermarks_ignored: counters.watermarks_ignored.get(),
            overloads: counters.overloads.get(),
            resource_manager_errors: counters.resource_manager_errors.get(),
            registered: inner.gate.is_registered(),
            in_doubt_times: counters.in_doubt_times(),
        }
    }

    /// Resolves when the participant serves no longer, with the reason. Unless that is
    /// [`StopReason::Shutdown`], the process should end with an error: somebody has to look.
    pub fn stopped(&self) -> impl Future<Output = StopReason> + Send + 'static {
        let gate = Arc::clone(&self.inner.gate);
        async move { gate.stopped().await }
    }

    /// Stops in order: takes no new calls, waits a while for what runs, and makes everything durable. What did not
    /// finish is taken up again at the next start. Returns when the participant has stopped; calling it again
    /// does nothing. The data folder is free once every clone, and every server with its
    /// [`service`](Self::service), has been dropped as well.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.gate.stop();
        let writers = inner
            .writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writers) = writers {
            // On its own, so that a caller who goes away does not leave it half done.
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                let ending = Arc::clone(&inner);
                // However it ended, nobody is to wait for it any longer; the gate knows of a panic.
                let _ = spawn_watched(&inner.gate, async move { ending.end(writers).await }).await;
                inner.ended.send_replace(true);
            });
        }
        // Fails only if the sender is gone, and it is ours.
        let _ = inner.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.inner.gate
    }
}

impl Inner {
    async fn end(&self, writers: Writers) {
        self.tasks.close();
        if timeout(self.options.shutdown_patience, self.tasks.wait())
            .await
            .is_err()
        {
            let (participant, calls) = (&self.options.name, self.tasks.len());
            tracing::warn!(%participant, calls, "calls of the resource manager did not end in time");
        }
        self.store.close();
        writers.ended().await;
        // Whoever waits for what has become durable now is told before the end.
        let (sender, heard) = oneshot::channel();
        if self.completions.send(Completion::Barrier(sender)).is_ok() {
            let _ = heard.await;
        }
        if self.gate.go_on().is_ok() {
            let store = Arc::clone(&self.store);
            if let Err(reason) = blocking(self.writing, move || store.settle()).await {
                self.gate.close(reason);
            }
        }
        self.gate.close(StopReason::Shutdown);
    }
}
