use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use http::{HeaderMap, HeaderValue};
use thiserror::Error;
use tokio::time::Instant;
use tonic::Status;
use tonic::server::NamedService;
use tower::{Layer, Service};
use unanimo_proto::{BRANCH_KEY, BadContext, BranchState, CONTEXT_KEY, Context, ErrorReason, refusal};

use crate::{Bytes, Participant, TransactionId};

/// Lets the methods of a gRPC service take part in interactive transactions.
///
/// It reads the transaction's context from the metadata of each call and hands the method an [`Enlistment`], and it
/// says in the reply's metadata, also in that of an error, what became of the branch. A call without a context passes
/// untouched. One whose context is damaged, of another cluster or too old is refused before the method sees it, and
/// counted.
///
/// ```
/// use unanimo_participant::{Bytes, Enlistment, JoinLayer, Participant};
/// use tonic::{Request, Response, Status};
///
/// struct Seats;
///
/// impl Seats {
///     // As a method of a generated service trait.
///     async fn take(&self, request: Request<String>) -> Result<Response<()>, Status> {
///         let enlistment = Enlistment::of(&request)?.clone();
///         let operation = Bytes::from(request.into_inner());
///         enlistment.join(operation).await?;
///         Ok(Response::new(()))
///     }
/// }
///
/// fn serve(participant: &Participant) {
///     let layer = JoinLayer::new(participant);
///     // For all services: Server::builder().layer(layer).add_service(participant.service())…
///     // For one of them: .add_service(layer.layer(SeatsServer::new(Seats)))…
/// #   let _ = layer;
/// }
/// ```
#[derive(Clone)]
pub struct JoinLayer {
    participant: Participant,
}

impl JoinLayer {
    /// Calls join branches at this participant.
    pub fn new(participant: &Participant) -> Self {
        Self {
            participant: participant.clone(),
        }
    }
}

impl<S> Layer<S> for JoinLayer {
    type Service = JoinService<S>;

    fn layer(&self, inner: S) -> JoinService<S> {
        JoinService {
            inner,
            participant: self.participant.clone(),
        }
    }
}

/// A service behind a [`JoinLayer`].
#[derive(Clone)]
pub struct JoinService<S> {
    inner: S,
    participant: Participant,
}

impl<S: NamedService> NamedService for JoinService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<http::Request<B>> for JoinService<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = http::Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let Some(text) = context_of(request.headers()) else {
            return self.inner.call(request).boxed();
        };
        let context = match self.participant.read_context(text) {
            Ok(context) => context,
            Err(error) => return ready(Ok(Status::from(error).into_http())).boxed(),
        };
        let enlistment = Enlistment::new(self.participant.clone(), context);
        request.extensions_mut().insert(enlistment.clone());
        let answered = self.inner.call(request);
        async move {
            let mut response = answered.await?;
            let report = enlistment.close();
            response.headers_mut().insert(BRANCH_KEY, report);
            Ok(response)
        }
        .boxed()
    }
}

/// The context of a call, if it has one.
fn context_of(headers: &HeaderMap) -> Option<Result<&str, BadContext>> {
    let unreadable = BadContext::Unreadable { key: CONTEXT_KEY };
    let mut values = headers.get_all(CONTEXT_KEY).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return Some(Err(unreadable));
    }
    Some(first.to_str().map_err(|_| unreadable))
}

/// A call's place in an interactive transaction: what a method brings operations through. In the extensions of the
/// request, behind a [`JoinLayer`]. Clones belong to the same call.
#[derive(Clone)]
pub struct Enlistment {
    call: Arc<Call>,
}

struct Call {
    participant: Participant,
    context: Context,
    arrived: Instant,
    progress: Mutex<Progress>,
}

struct Progress {
    state: BranchState,
    /// Operations that were begun and have no answer yet. What became of one that is dropped is not known.
    under_way: usize,
    /// The reply has been made: nobody would hear of an operation that comes now.
    closed: bool,
}

impl Enlistment {
    fn new(participant: Participant, context: Context) -> Self {
        let progress = Progress {
            state: BranchState::Untouched,
            under_way: 0,
            closed: false,
        };
        Self {
            call: Arc::new(Call {
                participant,
                context,
                arrived: Instant::now(),
                progress: Mutex::new(progress),
            }),
        }
    }

    /// The place of this call, if it belongs to a transaction.
    pub fn find<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// The place of this call.
    ///
    /// # Errors
    ///
    /// A status for the caller, if the call belongs to no transaction.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        Self::find(request).ok_or_else(|| {
            let message = format!(
                "the call belongs to no transaction: its metadata has no {CONTEXT_KEY}; nothing was done"
            );
            refusal(ErrorReason::BadContext, message)
        })
    }

    /// The transaction.
    pub fn transaction(&self) -> TransactionId {
        self.call.context.transaction
    }

    /// What the caller said about the transaction.
    pub fn context(&self) -> &Context {
        &self.call.context
    }

    /// Has the resource manager do this operation, and holds it for the transaction. Has to end before the method
    /// returns its reply, whose metadata tells of it.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says what became of the operation. It turns into a status for the caller.
    pub async fn join(&self, operation: Bytes) -> Result<(), JoinError> {
        let Call {
            participant,
            context,
            arrived,
            ..
        } = &*self.call;
        let remaining = context.remaining.saturating_sub(arrived.elapsed());
        if remaining.is_zero() {
            let transaction = context.transaction;
            let expired = Err(JoinError::BadContext(BadContext::Expired { transaction }));
            participant.count_join(&expired);
            return expired;
        }
        {
            let mut progress = self.lock();
            if progress.closed {
                let late = Err(JoinError::TooLate);
                participant.count_join(&late);
                return late;
            }
            progress.under_way += 1;
        }
        let context = Context {
            remaining,
            ..context.clone()
        };
        let joined = participant.join(&context, operation).await;
        let mut progress = self.lock();
        progress.under_way -= 1;
        let state = match &joined {
            Ok(()) => BranchState::Joined,
            Err(error) if error.changed_nothing() => BranchState::Untouched,
            Err(_) => BranchState::Refused,
        };
        progress.state = progress.state.max(state);
        joined
    }

    /// Takes no more operations, and says what became of those before.
    fn close(&self) -> HeaderValue {
        let mut progress = self.lock();
        progress.closed = true;
        let state = if progress.under_way == 0 {
            progress.state
        } else {
            BranchState::Refused
        };
        let report = self.call.participant.report(self.transaction(), state);
        match HeaderValue::from_str(&report.to_wire()) {
            Ok(value) => value,
            Err(error) => unreachable!("names, numbers and hexadecimal digits are ASCII: {error}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.call.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an operation of an interactive transaction is not held.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The resource manager refused it, or the transaction is aborted or committing here. The transaction can only be
    /// aborted.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// Another operation of the transaction is under way here; nothing was changed. Bring them one after the other.
    #[error("another operation of this transaction is under way here; nothing was done")]
    Busy,
    /// The context is of another cluster or too old; nothing was done.
    #[error("{0}; nothing was done")]
    BadContext(BadContext),
    /// The operation is over the limit; nothing was done.
    #[error("the operation has {bytes} bytes, the limit of this participant is {limit}; nothing was done")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The call has been answered already, so the reply could not tell of it; nothing was done.
    #[error("the call has been answered already, it takes no more operations; nothing was done")]
    TooLate,
    /// The participant takes nothing new at the moment; nothing was done.
    #[error("{}", .0.message())]
    NotStarted(Status),
    /// The participant stopped meanwhile. What it held is lost with it; the transaction can only be aborted.
    #[error("{}", .0.message())]
    Unknown(Status),
}

impl JoinError {
    /// Whether the transaction is as it was before, so that it may go on without this operation.
    pub fn changed_nothing(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Unknown(_) => false,
            Self::Busy
            | Self::BadContext(_)
            | Self::TooLarge { .. }
            | Self::TooLate
            | Self::NotStarted(_) => true,
        }
    }
}

impl From<JoinError> for Status {
    fn from(error: JoinError) -> Self {
        let message = error.to_string();
        match error {
            JoinError::Refused { .. } | JoinError::TooLate => Self::failed_precondition(message),
            JoinError::Busy => Self::aborted(message),
            JoinError::BadContext(error) => error.into(),
            JoinError::TooLarge { .. } => refusal(ErrorReason::Malformed, message),
            JoinError::NotStarted(status) | JoinError::Unknown(status) => status,
        }
    }
}
