//! The columns of the matrix: what is done to the service while a rule is tested.

use crate::watched::{Call, Point};

/// What is done while a rule is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Nothing.
    Calm,
    /// Every message comes twice.
    Twice,
    /// When all is over every message comes again, the last one first.
    Late,
    /// The power is cut after every answer.
    AfterAnswers,
    /// The power is cut once, here.
    At(Point),
    /// The power is cut at a write of the participant's disk, at each in turn.
    JournalWrites,
    /// The power is cut at a write of the service's table, at each in turn.
    TableWrites,
}

impl Schedule {
    pub(crate) const ALL: [Self; 16] = [
        Self::Calm,
        Self::Twice,
        Self::Late,
        Self::AfterAnswers,
        Self::At(Point::Before(Call::Prepare)),
        Self::At(Point::After(Call::Prepare)),
        Self::At(Point::Before(Call::Commit)),
        Self::At(Point::After(Call::Commit)),
        Self::At(Point::Before(Call::Abort)),
        Self::At(Point::After(Call::Abort)),
        Self::At(Point::Before(Call::Restore)),
        Self::At(Point::After(Call::Restore)),
        Self::At(Point::Before(Call::Prepared)),
        Self::At(Point::After(Call::Prepared)),
        Self::JournalWrites,
        Self::TableWrites,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Calm => "nothing besides",
            Self::Twice => "every message twice",
            Self::Late => "every message again at the end, in reverse",
            Self::AfterAnswers => "crash after every answer",
            Self::At(Point::Before(Call::Prepare)) => "crash before prepare",
            Self::At(Point::After(Call::Prepare)) => "crash after prepare",
            Self::At(Point::Before(Call::Commit)) => "crash before commit",
            Self::At(Point::After(Call::Commit)) => "crash after commit",
            Self::At(Point::Before(Call::Abort)) => "crash before abort",
            Self::At(Point::After(Call::Abort)) => "crash after abort",
            Self::At(Point::Before(Call::Restore)) => "crash before restore",
            Self::At(Point::After(Call::Restore)) => "crash after restore",
            Self::At(Point::Before(Call::Prepared)) => "crash before prepared, at a start after a promise",
            Self::At(Point::After(Call::Prepared)) => "crash after prepared, at a start after a promise",
            Self::JournalWrites => "crash at every write of the participant",
            Self::TableWrites => "crash at every write of the service",
        }
    }

    /// Whether the service lives through it without a crash.
    pub(crate) const fn is_calm(self) -> bool {
        matches!(self, Self::Calm | Self::Twice | Self::Late)
    }

    /// Whether the power is cut after every answer. What is called at a start only follows no other crash of a run for
    /// sure.
    pub(crate) const fn cuts_after_answers(self) -> bool {
        matches!(self, Self::AfterAnswers) || self.is_at_a_start()
    }

    /// Whether it waits until something has been promised: the first start has nothing to recover.
    pub(crate) const fn waits_for_a_promise(self) -> bool {
        matches!(
            self,
            Self::At(Point::Before(Call::Prepared) | Point::After(Call::Prepared))
        )
    }

    const fn is_at_a_start(self) -> bool {
        matches!(
            self,
            Self::At(
                Point::Before(Call::Restore | Call::Prepared) | Point::After(Call::Restore | Call::Prepared)
            )
        )
    }
}
