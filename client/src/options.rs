//! What a client needs to know.

use std::time::Duration;

use unanimo_core::ClusterId;

/// What a client needs to know. Start from [`ClientOptions::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The cluster; a coordinator of another one refuses every call (R11).
    pub cluster: ClusterId,
    /// Every coordinator node as `host:port`. One that answers is enough.
    pub coordinators: Vec<String>,
    /// How long one attempt waits for its answer before another node is tried with the same id. A running
    /// transaction is not disturbed by a second call: both get the one answer. 3 s is longer than an election, so
    /// that a slow answer is not mistaken for a dead leader all the time.
    pub attempt_timeout: Duration,
    /// The pause after a failed attempt doubles from this on.
    pub first_pause: Duration,
    /// The longest pause between attempts. Short, because a new leader is there within about a second.
    pub longest_pause: Duration,
    /// How long the voting phase of a submitted transaction may take; none means the cluster's default.
    pub voting_timeout: Option<Duration>,
}

impl ClientOptions {
    /// The usual options.
    pub fn new(cluster: ClusterId, coordinators: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            cluster,
            coordinators: coordinators.into_iter().map(Into::into).collect(),
            attempt_timeout: Duration::from_secs(3),
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(250),
            voting_timeout: None,
        }
    }
}
