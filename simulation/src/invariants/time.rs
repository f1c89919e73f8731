//! R8: the cluster's time hardly runs faster than time passes, whatever the clocks say.

use unanimo_core::Timestamp;
use unanimo_core::table::Command;

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::schedule::Time;

/// What rounding and clocks that drift may add, in milliseconds; and the part of the time passed that may be gained.
const SLACK_MS: u64 = 100;
const HASTE: u64 = 64;

#[derive(Debug, Default)]
pub(super) struct SlowTime {
    /// The first time that was recorded, and when.
    first: Option<(Timestamp, Time)>,
    /// What leaders read before any time was recorded.
    read: Vec<(Timestamp, Time)>,
}

impl Invariant for SlowTime {
    const NAME: &'static str = "R8 no correctness from clocks";

    fn observe(&mut self, _: &History, event: &Event<'_>, now: Time) -> Verdict {
        if let Event::TimeRead { time } = event {
            self.read.push((*time, now));
        }
        let Event::Applied {
            entry, first: true, ..
        } = event
        else {
            return Ok(());
        };
        let Some(Command::Advance(horizon)) = &entry.command else {
            return Ok(());
        };
        let read = self.read.iter().find(|(time, _)| *time == horizon.time);
        let read = read.copied().unwrap_or((horizon.time, now));
        let (began, at) = *self.first.get_or_insert(read);
        let passed_ms = (now - at) / 1000;
        let gained_ms = horizon.time.since(began).as_millis() as u64;
        if gained_ms <= passed_ms + passed_ms / HASTE + passed_ms / 100 + SLACK_MS {
            Ok(())
        } else {
            Err(format!("{gained_ms} ms were recorded in {passed_ms} ms"))
        }
    }
}
