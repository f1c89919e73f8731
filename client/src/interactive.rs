//! Interactive transactions: the application calls services itself, and commits what they did together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use http::{HeaderMap, HeaderValue};
use thiserror::Error;
use tokio::time::Instant;
use tonic::Status;
use tower::{Layer, Service};
use unanimo_core::{ClusterId, Decision, Generation, Members, ParticipantId, Timestamp, TransactionId};
use unanimo_proto::{BRANCH_KEY, BadContext, BranchReport, BranchState, CONTEXT_KEY, Context};

use crate::client::LONGEST_PATIENCE;
use crate::client::never_connected;
use crate::{CallError, Client, CommitError};

/// How long the abort of a transaction that was dropped is tried. What it does not reach is let go at the
/// transaction's deadline.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// A transaction whose work the application gives to the services itself.
///
/// Services are called through [`channel`](Self::channel). Each call tells the service which transaction it belongs
/// to, and each reply tells which participant now holds something for it, so that [`commit`](Self::commit) knows
/// whom to name. Nothing that a service did is visible to others before the commit.
///
/// Whatever is not committed before the transaction's time is over is let go by the participants. A transaction that
/// is dropped without commit or abort is aborted in the background, as well as that can be done: inside a tokio
/// runtime, and once.
pub struct InteractiveTransaction {
    client: Client,
    shared: Arc<Shared>,
    /// Commit or abort has been sent, so dropping it has to leave it alone.
    sent: bool,
}

struct Shared {
    cluster: ClusterId,
    transaction: TransactionId,
    /// For people: by this machine's clock.
    deadline: Timestamp,
    ends: Instant,
    progress: Mutex<Progress>,
}

/// What the replies so far have told.
#[derive(Default)]
struct Progress {
    branches: BTreeMap<ParticipantId, Generation>,
    calls_under_way: usize,
    doom: Option<Doom>,
    /// Commit or abort has begun: no more calls.
    ended: bool,
}

/// Why a transaction can only be aborted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Doom {
    /// A participant refused an operation, or does not know what became of it.
    #[error("participant {participant} refused one of its operations")]
    Refused {
        /// Who.
        participant: ParticipantId,
    },
    /// A call ended without a reply: nobody knows whether its service holds something.
    #[error(
        "a call ended without a reply, so it is not known which participant holds something: {last_error}"
    )]
    Unanswered {
        /// What the call met.
        last_error: String,
    },
    /// A reply that does not tell about the transaction. Its service is no participant, or somebody else answered
    /// in its place.
    #[error(
        "a reply said nothing about the transaction ({problem}): its service does not take part, \
         or somebody else answered in its place"
    )]
    Unreported {
        /// What was found instead.
        problem: String,
    },
    /// A participant restarted after it had joined, and lost what it held.
    #[error("participant {participant} restarted between two calls and lost what it held")]
    Restarted {
        /// Who.
        participant: ParticipantId,
    },
}

impl InteractiveTransaction {
    pub(crate) fn new(client: Client, transaction: TransactionId, now: Timestamp, timeout: Duration) -> Self {
        let shared = Shared {
            cluster: client.cluster().clone(),
            transaction,
            deadline: now.after(timeout),
            ends: Instant::now() + timeout.min(LONGEST_PATIENCE),
            progress: Mutex::default(),
        };
        Self {
            client,
            shared: Arc::new(shared),
            sent: false,
        }
    }

    /// The id. Keep it if the process may die during the commit and has to know afterwards: [`Client::outcome`].
    pub fn transaction(&self) -> TransactionId {
        self.shared.transaction
    }

    /// A channel whose calls belong to this transaction. Only for services that take part in it: a reply that says
    /// nothing about the transaction makes its commit impossible.
    ///
    /// ```no_run
    /// # async fn example(client: unanimo_client::Client, channel: tonic::transport::Channel) {
    /// let transaction = client.begin(std::time::Duration::from_secs(10)).await.unwrap();
    /// let channel = transaction.channel(channel);
    /// // let seats = SeatsClient::new(channel);
    /// # }
    /// ```
    pub fn channel<S>(&self, inner: S) -> TransactionChannel<S> {
        self.layer().layer(inner)
    }

    /// The same as a layer.
    pub fn layer(&self) -> TransactionLayer {
        TransactionLayer {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Who holds something for it, as far as replies have told.
    pub fn participants(&self) -> Members {
        self.shared.lock().branches.keys().cloned().collect()
    }

    /// Why it can only be aborted, if that is so.
    pub fn doom(&self) -> Option<Doom> {
        self.shared.lock().doom.clone()
    }

    /// Commits what every service has done, or nothing of it. The answer is definite and irrevocable; it is asked for
    /// again and again until it is there or `patience` is over.
    ///
    /// # Errors
    ///
    /// [`CommitError`]. All but [`CommitError::Unknown`] and [`CommitError::Expired`] are definite: nothing was and nothing
    /// will be committed, and what is held is let go in the background.
    pub async fn commit(mut self, patience: Duration) -> Result<Decision, CommitError> {
        let transaction = self.transaction();
        let participants = {
            let mut progress = self.shared.lock();
            progress.ended = true;
            if progress.calls_under_way > 0 {
                let calls = progress.calls_under_way;
                return Err(CommitError::CallsUnderWay { transaction, calls });
            }
            if let Some(doom) = progress.doom.clone() {
                return Err(CommitError::Doomed { transaction, doom });
            }
            if progress.branches.is_empty() {
                return Err(CommitError::NoBranches { transaction });
            }
            progress.branches.keys().cloned().collect()
        };
        // From here on the commit may be decided, also if this future is dropped.
        self.sent = true;
        let committed = self.client.commit(transaction, &participants, patience).await;
        self.sent = !matches!(committed, Err(CommitError::Refused { .. }));
        committed
    }

    /// Aborts it. The participants let go of what they hold; those that could not be heard of do so when its time is
    /// over. Returns what holds, which is Commit only if somebody else has committed the same id.
    ///
    /// # Errors
    ///
    /// [`CallError`] if no coordinator answered. Then the participants let go when the transaction's time is over.
    pub async fn abort(mut self, patience: Duration) -> Result<Decision, CallError> {
        self.shared.lock().ended = true;
        let participants = self.participants();
        let aborted = self
            .client
            .abort(self.transaction(), &participants, patience)
            .await;
        self.sent = true;
        aborted
    }
}

impl Drop for InteractiveTransaction {
    fn drop(&mut self) {
        let mut progress = self.shared.lock();
        progress.ended = true;
        let participants: Members = progress.branches.keys().cloned().collect();
        drop(progress);
        if self.sent || participants.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (client, transaction) = (self.client.clone(), self.transaction());
        runtime.spawn(async move {
            if let Err(error) = client.abort(transaction, &participants, ABORT_PATIENCE).await {
                tracing::warn!(tx = %transaction, %error, "a dropped transaction could not be aborted");
            }
        });
    }
}

impl Shared {
    fn context(&self) -> Result<HeaderValue, Status> {
        let remaining = self.ends.saturating_duration_since(Instant::now());
        // What travels is whole milliseconds, and none of them means that it is over.
        if remaining < Duration::from_millis(1) {
            let transaction = self.transaction;
            return Err(BadContext::Expired { transaction }.into());
        }
        let context = Context {
            cluster: self.cluster.clone(),
            transaction: self.transaction,
            deadline: self.deadline,
            remaining,
        };
        match HeaderValue::from_str(&context.to_wire()) {
            Ok(value) => Ok(value),
            Err(error) => unreachable!("names, numbers and hexadecimal digits are ASCII: {error}"),
        }
    }

    /// Takes note of what a reply says.
    fn hear(&self, headers: &HeaderMap) {
        let reported = self.report_of(headers);
        let mut progress = self.lock();
        let doom = match reported {
            Ok(report) => progress.take(report),
            Err(problem) => Some(Doom::Unreported { problem }),
        };
        progress.doom(doom);
    }

    fn report_of(&self, headers: &HeaderMap) -> Result<BranchReport, String> {
        let mut values = headers.get_all(BRANCH_KEY).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(format!("{BRANCH_KEY} is not there once"));
        };
        let text = value.to_str().map_err(|error| error.to_string())?;
        let report = BranchReport::from_wire(text).map_err(|error| error.to_string())?;
        if report.cluster != self.cluster || report.transaction != self.transaction {
            return Err(format!(
                "it is about transaction {} of {}",
                report.transaction, report.cluster
            ));
        }
        Ok(report)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn take(&mut self, report: BranchReport) -> Option<Doom> {
        let BranchReport {
            participant,
            generation,
            state,
            ..
        } = report;
        let known = self.branches.get(&participant);
        // Its journal counts its starts, and nothing of this transaction stood in it yet.
        let restarted = known.is_some_and(|known| *known != generation);
        match state {
            BranchState::Untouched => {}
            BranchState::Joined | BranchState::Refused => {
                self.branches.insert(participant.clone(), generation);
            }
        }
        if restarted {
            return Some(Doom::Restarted { participant });
        }
        (state == BranchState::Refused).then_some(Doom::Refused { participant })
    }

    /// The first reason stays: the others often follow from it.
    fn doom(&mut self, doom: Option<Doom>) {
        self.doom = self.doom.take().or(doom);
    }
}

/// Puts a transaction's context on calls, and reads from the replies who takes part.
#[derive(Clone)]
pub struct TransactionLayer {
    shared: Arc<Shared>,
}

impl<S> Layer<S> for TransactionLayer {
    type Service = TransactionChannel<S>;

    fn layer(&self, inner: S) -> TransactionChannel<S> {
        TransactionChannel {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// A channel whose calls belong to a transaction.
#[derive(Clone)]
pub struct TransactionChannel<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> Service<http::Request<B>> for TransactionChannel<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: std::error::Error + Send + 'static,
    R: Default + Send + 'static,
{
    type Response = http::Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let under_way = match UnderWay::begin(&self.shared) {
            Ok((under_way, context)) => {
                request.headers_mut().insert(CONTEXT_KEY, context);
                under_way
            }
            Err(refused) => return ready(Ok(refused.into_http())).boxed(),
        };
        let answered = self.inner.call(request);
        async move {
            let answered = answered.await;
            under_way.end(&answered);
            answered
        }
        .boxed()
    }
}

/// A call that has been sent. If it is dropped, nobody knows what became of it.
struct UnderWay {
    shared: Arc<Shared>,
    answered: bool,
}

impl UnderWay {
    /// A status says why no call may be made; nothing was sent then.
    fn begin(shared: &Arc<Shared>) -> Result<(Self, HeaderValue), Status> {
        let context = shared.context()?;
        let mut progress = shared.lock();
        if progress.ended {
            return Err(Status::failed_precondition(
                "the transaction is committed or aborted; the call was not sent",
            ));
        }
        progress.calls_under_way += 1;
        let (shared, answered) = (Arc::clone(shared), false);
        Ok((Self { shared, answered }, context))
    }

    fn end<R, E: std::error::Error + 'static>(mut self, answer: &Result<http::Response<R>, E>) {
        self.answered = true;
        match answer {
            Ok(response) => self.shared.hear(response.headers()),
            // It never left this process.
            Err(error) if never_connected(error) => {}
            Err(error) => {
                let last_error = error.to_string();
                self.shared.lock().doom(Some(Doom::Unanswered { last_error }));
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut progress = self.shared.lock();
        progress.calls_under_way -= 1;
        if !self.answered {
            let last_error = "the caller did not wait for it".to_owned();
            progress.doom(Some(Doom::Unanswered { last_error }));
        }
    }
}
