//! Sizes, times and rates of one run.

/// Defines the knobs once: their fields, their names in scripts, and what they are unless somebody says otherwise.
macro_rules! knobs {
    ($($(#[$doc:meta])* $name:ident = $default:expr;)*) => {
        /// Sizes, times and rates of one run.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct Knobs {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl Default for Knobs {
            /// A small calm world, to which shrinking goes back as far as it can.
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Knobs {
            /// All by name.
            pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// The one with this name.
            pub(crate) fn named(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

knobs! {
    /// Coordinator nodes: 3 or 5.
    coordinators = 3;
    /// Participants: 2 to 5.
    participants = 2;
    /// When the faults stop.
    faults_until_ms = 5_000;
    /// How often a leader says that it leads.
    heartbeat_ms = 50;
    /// The shortest time without a leader after which a node stands for election; the longest is twice that.
    election_ms = 200;
    /// How long a message takes, at least and at most.
    delay_min_us = 1_000;
    delay_max_us = 1_000;
    /// How long a forced write takes.
    sync_min_us = 500;
    sync_max_us = 500;
    /// How long a resource manager works.
    work_min_us = 200;
    work_max_us = 200;
    /// How far a replica may be behind with what is committed.
    apply_lag_us = 0;
    /// How long the voting phase may take.
    voting_ms = 1_000;
    /// After how long a coordinator calls a participant again, and how long it pauses at most before that.
    attempt_ms = 500;
    pause_max_ms = 500;
    /// How long an initiator waits for the answer to one attempt.
    call_ms = 500;
    /// How long a branch is in doubt before it asks, and its longest pause between two questions.
    inquiry_after_ms = 500;
    inquiry_pause_ms = 1_000;
    /// How long decisions are kept, how often the leader looks, and how far ahead of its time an id may be.
    window_ms = 86_400_000;
    tick_ms = 1_000;
    tolerance_ms = 60_000;
    /// How long a participant waits before it forgets again.
    forget_pause_ms = 200;
    /// Entries after which a replica makes a snapshot and drops its log.
    snapshot_every = 1_000;
    /// Transactions that a coordinator lets vote at once, and that may wait for acknowledgements.
    in_flight = 1_000;
    completing = 1_000;
    /// Branches that a participant lets be under way at once.
    branches_in_flight = 1_000;
    /// What is in each account at the beginning.
    balance = 20;
    /// Of a thousand messages: how many are lost, come twice, or come much later as well.
    loss = 0;
    repeat = 0;
    hold = 0;
    /// How much later at most.
    hold_max_ms = 0;
    /// How fast clocks drift apart, in millionths.
    drift_ppm = 0;
    /// Of a thousand transactions: how many have an id from a clock that is wrong.
    skew = 0;
    /// Whether the clocks are put right when the faults stop, or stay as wrong as they are.
    clocks_put_right = 1;
    /// How long a leader waits until what it has proposed is applied. What becomes of it after that it does not know.
    propose_timeout_ms = 5_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_knob_is_found_by_its_name() {
        let mut knobs = Knobs::default();
        for (name, value) in Knobs::default().list() {
            let knob = knobs.named(name).unwrap();
            assert_eq!(*knob, value);
            *knob = value + 1;
        }
        assert_ne!(knobs, Knobs::default());
        assert_eq!(knobs.named("volume"), None);
    }
}
