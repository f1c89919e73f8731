//! The rules as named invariants, one file each. They see every event in order, as an observer who knows everything, and
//! trust nothing that the code under test remembers.

mod alarm;
mod atomicity;
mod bounded;
mod closing;
mod conservation;
mod decide_before_speak;
mod definite;
mod exactly_once;
mod fail_stop;
mod final_no;
mod history;
mod idempotent;
mod identity;
mod log;
mod one_decision;
mod presumed_abort;
mod progress;
mod promise;
mod silence;
mod takeover;
mod time;
mod tombstone;

use crate::event::Event;
use crate::schedule::Time;

pub(crate) use history::History;

/// What an invariant says: nothing, or what contradicts it.
type Verdict = Result<(), String>;

/// Something that must hold whatever happens.
trait Invariant {
    /// The rule, as `docs/protocol.md` calls it.
    const NAME: &'static str;

    /// Looks at one event; `history` has it already.
    fn observe(&mut self, history: &History, event: &Event<'_>, now: Time) -> Verdict;
}

/// Lists the invariants once.
macro_rules! invariants {
    ($($field:ident: $type:ty,)*) => {
        /// All invariants.
        #[derive(Debug, Default)]
        pub(crate) struct Invariants {
            $($field: $type,)*
        }

        impl Invariants {
            /// The first one that the event breaks, and why.
            pub(crate) fn observe(
                &mut self,
                history: &History,
                event: &Event<'_>,
                now: Time,
            ) -> Option<(&'static str, String)> {
                $(
                    if let Err(what) = self.$field.observe(history, event, now) {
                        return Some((<$type as Invariant>::NAME, what));
                    }
                )*
                None
            }
        }

        /// The names of all invariants.
        #[cfg(test)]
        pub(crate) const NAMES: &[&str] = &[$(<$type as Invariant>::NAME),*];
    };
}

invariants! {
    log: log::Log,
    one_decision: one_decision::OneDecision,
    decide_before_speak: decide_before_speak::DecideBeforeSpeak,
    promise: promise::Promise,
    tombstone: tombstone::Tombstone,
    final_no: final_no::FinalNo,
    presumed_abort: presumed_abort::PresumedAbort,
    takeover: takeover::Takeover,
    closing: closing::Closing,
    time: time::SlowTime,
    alarm: alarm::Alarm,
    exactly_once: exactly_once::ExactlyOnce,
    fail_stop: fail_stop::FailStop,
    identity: identity::Identity,
    idempotent: idempotent::Idempotent,
    definite: definite::Definite,
    bounded: bounded::Bounded,
    atomicity: atomicity::Atomicity,
    conservation: conservation::Conservation,
    progress: progress::Progress,
}

#[cfg(test)]
mod tests;
