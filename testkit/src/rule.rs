//! The rows of the matrix: what a resource manager has to keep, each tested by itself.

use crate::Service;
use crate::run::Run;
use crate::watched::{Call, Point};

/// Effects of fresh data, and of `operation` done once.
pub(crate) struct Expected {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    HoldsComeBack,
    YesCanBeCommitted,
    AbortLeavesNothing,
    AbortWhilePreparing,
    LatePrepareRefused,
    CommitOnce,
    CommitStays,
    Isolation,
    AbortOfUnknown,
    NoLeavesNothing,
    ReadLeavesNothing,
}

impl Rule {
    pub(crate) const ALL: [Self; 11] = [
        Self::HoldsComeBack,
        Self::YesCanBeCommitted,
        Self::AbortLeavesNothing,
        Self::AbortWhilePreparing,
        Self::LatePrepareRefused,
        Self::CommitOnce,
        Self::CommitStays,
        Self::Isolation,
        Self::AbortOfUnknown,
        Self::NoLeavesNothing,
        Self::ReadLeavesNothing,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::HoldsComeBack => "R3 holds of a Yes stay",
            Self::YesCanBeCommitted => "R3 a Yes can be committed",
            Self::AbortLeavesNothing => "R3 an abort leaves nothing",
            Self::AbortWhilePreparing => "R3 an abort during prepare leaves nothing",
            Self::LatePrepareRefused => "R4 a late Prepare is refused",
            Self::CommitOnce => "R9 a commit happens once",
            Self::CommitStays => "R9 a commit that was acknowledged stays",
            Self::Isolation => "isolation of what is prepared",
            Self::AbortOfUnknown => "an abort of the unknown changes nothing",
            Self::NoLeavesNothing => "a No leaves nothing",
            Self::ReadLeavesNothing => "a ReadOnly leaves nothing",
        }
    }

    /// Whether crashes have anything to do with it.
    pub(crate) const fn is_about_crashes(self) -> bool {
        !matches!(self, Self::Isolation | Self::AbortOfUnknown)
    }

    /// Whether the service has what is needed.
    pub(crate) fn applies<S: Service>(self, run: &Run<S>) -> bool {
        match self {
            Self::NoLeavesNothing => run.operations.refused.is_some(),
            Self::ReadLeavesNothing => run.operations.read.is_some(),
            _ => true,
        }
    }

    /// Tests it once. An error says how it is broken.
    pub(crate) fn test<S: Service>(self, run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
        match self {
            Self::HoldsComeBack => holds_come_back(run),
            Self::YesCanBeCommitted => yes_can_be_committed(run, expected),
            Self::AbortLeavesNothing => abort_leaves_nothing(run, expected),
            Self::AbortWhilePreparing => abort_while_preparing(run, expected),
            Self::LatePrepareRefused => late_prepare_refused(run, expected),
            Self::CommitOnce => commit_once(run, expected),
            Self::CommitStays => commit_stays(run),
            Self::Isolation => isolation(run, expected),
            Self::AbortOfUnknown => abort_of_unknown(run, expected),
            Self::NoLeavesNothing => no_leaves_nothing(run, expected),
            Self::ReadLeavesNothing => read_leaves_nothing(run, expected),
        }?;
        run.finish()
    }
}

fn holds_come_back<S: Service>(run: &mut Run<S>) -> Result<(), String> {
    let (operation, rival) = (run.operations.operation.clone(), run.operations.rival.clone());
    run.yes(1, &operation, "with fresh data")?;
    run.no(2, &rival, "its rival is promised, while the operation is held")?;
    run.abort(1)?;
    run.yes(3, &rival, "after the abort the rival is free")?;
    run.abort(3)
}

fn yes_can_be_committed<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let operation = run.operations.operation.clone();
    run.yes(1, &operation, "with fresh data")?;
    run.calm();
    run.commit(1)?;
    effects_are(run, &expected.after, "the commit of a Yes")
}

fn abort_leaves_nothing<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let (operation, rival) = (run.operations.operation.clone(), run.operations.rival.clone());
    run.yes(1, &operation, "with fresh data")?;
    run.abort(1)?;
    effects_are(run, &expected.before, "an abort")?;
    run.yes(2, &rival, "after the abort the rival is free")?;
    run.abort(2)
}

fn abort_while_preparing<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let (operation, rival) = (run.operations.operation.clone(), run.operations.rival.clone());
    run.abort_while_at_work(1, &operation, Point::Before(Call::Prepare))?;
    run.abort_while_at_work(2, &operation, Point::After(Call::Prepare))?;
    effects_are(run, &expected.before, "an abort during prepare")?;
    run.yes(3, &rival, "after the abort the rival is free")?;
    run.abort(3)
}

fn late_prepare_refused<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let (operation, rival) = (run.operations.operation.clone(), run.operations.rival.clone());
    run.abort(1)?;
    let crashes = run.crashes;
    let refused = run.no(1, &operation, "after its abort");
    // A crash may lose the tombstone, which is not forced to disk.
    if run.crashes == crashes && crashes == 0 {
        refused?;
    } else {
        run.abort(1)?;
    }
    effects_are(run, &expected.before, "an abort that came first")?;
    run.yes(2, &rival, "nothing is held")?;
    run.abort(2)
}

fn commit_once<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let operation = run.operations.operation.clone();
    run.yes(1, &operation, "with fresh data")?;
    for _ in 0..2 {
        run.commit(1)?;
        let effects = run.effects()?;
        // That it did not happen at all is another rule.
        if effects != expected.after && effects != expected.before {
            return Err(format!("{effects:?} instead of {:?}", expected.after));
        }
    }
    Ok(())
}

fn commit_stays<S: Service>(run: &mut Run<S>) -> Result<(), String> {
    let operation = run.operations.operation.clone();
    run.yes(1, &operation, "with fresh data")?;
    run.cut_no_more_answers();
    run.commit(1)?;
    // That it happened, and once, are other rules.
    let acknowledged = run.effects()?;
    run.crash();
    effects_are(run, &acknowledged, "a crash after the acknowledgement")
}

fn isolation<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let (operation, rival) = (run.operations.operation.clone(), run.operations.rival.clone());
    run.yes(1, &operation, "with fresh data")?;
    effects_are(run, &expected.before, "nothing but a Prepare")?;
    run.no(2, &rival, "its rival is promised, while the operation is held")?;
    run.abort(1)
}

fn abort_of_unknown<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let (operation, rival) = (run.operations.operation.clone(), run.operations.rival.clone());
    run.yes(1, &operation, "with fresh data")?;
    run.abort(8)?;
    run.abort_unknown(9)?;
    effects_are(run, &expected.before, "aborts of what it does not know")?;
    run.no(
        2,
        &rival,
        "its rival is promised, after aborts of what it does not know",
    )?;
    run.abort(1)
}

fn no_leaves_nothing<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let operation = run.operations.operation.clone();
    let refused = run.operations.refused.clone().unwrap_or_default();
    run.no(1, &refused, "what is always refused")?;
    effects_are(run, &expected.before, "a No")?;
    run.yes(2, &operation, "after a No")?;
    run.abort(2)
}

fn read_leaves_nothing<S: Service>(run: &mut Run<S>, expected: &Expected) -> Result<(), String> {
    let operation = run.operations.operation.clone();
    let read = run.operations.read.clone().unwrap_or_default();
    let vote = run.prepare(1, &read)?;
    if vote != unanimo_core::Vote::ReadOnly {
        return Err(format!("what only reads voted {vote}"));
    }
    effects_are(run, &expected.before, "reading")?;
    run.yes(2, &operation, "after reading")?;
    run.abort(2)
}

fn effects_are<S: Service>(run: &mut Run<S>, expected: &str, after: &str) -> Result<(), String> {
    let effects = run.effects()?;
    if effects == expected {
        Ok(())
    } else {
        Err(format!("after {after}: {effects:?} instead of {expected:?}"))
    }
}
