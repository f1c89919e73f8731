//! What goes wrong, and when.

use crate::node::Node;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In milliseconds.
    pub(crate) at_ms: u64,
    pub(crate) harm: Harm,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The node loses power after it has done so many more things; at once if none. Of what was not forced to its disk
    /// `keep` thousandths stay, each record whole. If it is down already, it crashes when it comes up.
    Crash {
        node: Node,
        after: u64,
        down_ms: u64,
        keep: u64,
    },
    /// All nodes lose power at once.
    CrashAll { down_ms: u64 },
    /// The next forced write of the node fails: it stops, and somebody starts it again.
    FailSync { node: Node, down_ms: u64 },
    /// What the one sends does not reach the other; the way back is open.
    Cut { from: Node, to: Node, for_ms: u64 },
    /// The node hears nothing and nobody hears it.
    Isolate { node: Node, for_ms: u64 },
    /// Everything takes the node so many times as long.
    Slow { node: Node, times: u64, for_ms: u64 },
    /// Whatever is sent to the node comes again, some time later.
    Replay { node: Node, for_ms: u64 },
    /// The node's wall clock jumps.
    Jump { node: Node, by_ms: i64 },
    /// Somebody copies the disk of the participant.
    Copy { node: Node },
    /// The participant stops, and starts again from the copy that was made last.
    FallBack { node: Node, down_ms: u64 },
    /// An operator restarts the node: it stops with everything on its disk.
    Restart { node: Node, down_ms: u64 },
    /// The node stands for election at once: an operator hands the leadership to it, or it cannot wait.
    Elect { node: Node },
}

impl Harm {
    /// What it is counted as.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Crash { after: 0, .. } => "crash",
            Self::Crash { .. } => "crash_at_a_step",
            Self::CrashAll { .. } => "crash_of_all",
            Self::FailSync { .. } => "failed_sync",
            Self::Cut { .. } => "one_way_cut",
            Self::Isolate { .. } => "isolation",
            Self::Slow { .. } => "slow_node",
            Self::Replay { .. } => "replay",
            Self::Jump { .. } => "clock_jump",
            Self::Copy { .. } => "disk_copied",
            Self::FallBack { .. } => "old_disk",
            Self::Restart { .. } => "restart_by_operator",
            Self::Elect { .. } => "leadership_moved_by_operator",
        }
    }
}
