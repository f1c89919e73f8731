use std::time::Duration;

use crate::history::Call;

/// What a client does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// This.
    One(Ask),
    /// All of these, each as a client of its own: at the same moment, but for those that wait.
    Together(Vec<Ask>),
}

/// A call, and how it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What is asked for.
    pub call: Call,
    /// How long it waits before.
    pub after: Duration,
    /// The coordinator node that a one-shot transaction goes to first. Only if that one has no answer it goes to others.
    pub through: Option<u64>,
    /// When its client goes away without a word, if it does.
    pub leaves: Option<Leaves>,
}

/// When a client goes away, as one that crashes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// It has begun an interactive transaction, and no participant has heard of it.
    AfterBegin,
    /// Participants hold everything of an interactive transaction, and nobody asks for its commit.
    AfterCalls,
    /// It has asked for the commit, and this long afterwards it hears no answer any more.
    Unanswered(Duration),
}

impl Ask {
    /// This call, after so long.
    pub fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }

    /// This call, through this coordinator node.
    pub fn through(mut self, node: u64) -> Self {
        self.through = Some(node);
        self
    }

    /// This call, of a client that goes away.
    pub fn leaves(mut self, leaves: Leaves) -> Self {
        self.leaves = Some(leaves);
        self
    }
}

impl From<Call> for Ask {
    fn from(call: Call) -> Self {
        Self {
            call,
            after: Duration::ZERO,
            through: None,
            leaves: None,
        }
    }
}

impl From<Call> for Request {
    fn from(call: Call) -> Self {
        Self::One(call.into())
    }
}
