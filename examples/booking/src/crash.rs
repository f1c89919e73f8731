//! Named points at which a service dies, for the fault test: as by `kill -9`, in the middle of a transaction.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tower::{Layer, Service};

/// The environment variable that names the point: `after_join`, or `after_join:3` for the third time it is passed.
pub const CRASH_AT: &str = "BOOKING_CRASH_AT";

const PREPARE: &str = "/unanimo.v1.Participant/Prepare";
const COMMIT: &str = "/unanimo.v1.Participant/Commit";

/// Where a service may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// The application's call has arrived; nothing is held yet.
    BeforeJoin,
    /// Something is held; the application does not know.
    AfterJoin,
    /// The vote is on disk; the coordinator has not heard it.
    AfterPrepare,
    /// The decision has arrived; nothing is done about it yet.
    BeforeCommit,
    /// The effect and its record are on disk; the coordinator has not heard it.
    BeforeAcknowledge,
}

impl CrashPoint {
    /// All of them, in the order of a transaction.
    pub const ALL: [Self; 5] = [
        Self::BeforeJoin,
        Self::AfterJoin,
        Self::AfterPrepare,
        Self::BeforeCommit,
        Self::BeforeAcknowledge,
    ];

    /// Whether the service has promised nothing by then.
    pub const fn is_before_promise(self) -> bool {
        match self {
            Self::BeforeJoin | Self::AfterJoin => true,
            Self::AfterPrepare | Self::BeforeCommit | Self::BeforeAcknowledge => false,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeJoin => "before_join",
            Self::AfterJoin => "after_join",
            Self::AfterPrepare => "after_prepare",
            Self::BeforeCommit => "before_commit",
            Self::BeforeAcknowledge => "before_acknowledge",
        }
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When to die, if ever. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct CrashPlan {
    point: Option<CrashPoint>,
    passes_left: Arc<AtomicU32>,
}

impl FromStr for CrashPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pass) = text.split_once(':').unwrap_or((text, "1"));
        let point = CrashPoint::ALL.into_iter().find(|point| point.as_str() == name);
        let pass = pass.parse::<u32>().ok().filter(|pass| *pass > 0);
        let (Some(point), Some(pass)) = (point, pass) else {
            return Err(format!(
                "{text:?} is no crash point such as after_join or after_join:3"
            ));
        };
        Ok(Self {
            point: Some(point),
            passes_left: Arc::new(AtomicU32::new(pass)),
        })
    }
}

impl CrashPlan {
    /// What the environment says.
    pub fn from_environment() -> Result<Self, String> {
        match std::env::var(CRASH_AT) {
            Ok(text) => text.parse(),
            Err(_) => Ok(Self::default()),
        }
    }

    /// The service is at this point. If it is the one to die at, this does not return.
    pub fn pass(&self, point: CrashPoint) {
        if self.point == Some(point) && self.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Nobody gets to clean up, flush or say goodbye.
            let killed = kill(Pid::this(), Signal::SIGKILL);
            unreachable!("a process can kill itself: {killed:?}");
        }
    }
}

/// Watches the calls of coordinators go by.
#[derive(Clone)]
pub(crate) struct CrashLayer(pub(crate) CrashPlan);

impl<S> Layer<S> for CrashLayer {
    type Service = CrashService<S>;

    fn layer(&self, inner: S) -> CrashService<S> {
        CrashService {
            inner,
            plan: self.0.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct CrashService<S> {
    inner: S,
    plan: CrashPlan,
}

impl<S, B> Service<http::Request<B>> for CrashService<S>
where
    S: Service<http::Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (before, after) = match request.uri().path() {
            PREPARE => (None, Some(CrashPoint::AfterPrepare)),
            COMMIT => (
                Some(CrashPoint::BeforeCommit),
                Some(CrashPoint::BeforeAcknowledge),
            ),
            _ => (None, None),
        };
        let plan = self.plan.clone();
        if let Some(point) = before {
            plan.pass(point);
        }
        let answered = self.inner.call(request);
        async move {
            let answer = answered.await;
            if let Some(point) = after {
                plan.pass(point);
            }
            answer
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_or_refused() {
        for point in CrashPoint::ALL {
            assert_eq!(point.to_string().parse::<CrashPlan>().unwrap().point, Some(point));
        }
        let plan: CrashPlan = "after_join:3".parse().unwrap();
        assert_eq!(plan.passes_left.load(Ordering::SeqCst), 3);
        for text in ["", "after", "after_join:0", "after_join:x"] {
            assert!(text.parse::<CrashPlan>().is_err(), "{text}");
        }
        // Passing another point is harmless.
        plan.pass(CrashPoint::BeforeJoin);
    }
}
