//! Sees everything that happens: checks the invariants, counts, and writes the transcript if somebody wants it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::counters::{Counters, Sometimes};
use crate::event::Event;
use crate::invariants::{History, Invariants};
use crate::names::Names;
use crate::schedule::Time;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub invariant: &'static str,
    /// What contradicts it.
    pub what: String,
    /// The event, as the transcript shows it.
    pub event: String,
    /// Microseconds since the run began.
    pub at_us: u64,
}

/// What is kept of the events.
#[derive(Debug)]
pub(crate) enum Transcript {
    Nothing,
    /// A hash of all lines.
    Hash(Hash),
    /// All lines.
    Text(String),
}

/// Fowler, Noll and Vo's hash, 64 bits: enough to tell two transcripts apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(pub(crate) u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}

/// Sees everything.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) now: Time,
    pub(crate) names: Names,
    pub(crate) counters: Counters,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) history: History,
    pub(crate) transcript: Transcript,
    pub(crate) broken: Option<Broken>,
    invariants: Invariants,
}

impl Watch {
    pub(crate) fn new(transcript: Transcript) -> Self {
        Self {
            now: 0,
            names: Names::default(),
            counters: Counters::default(),
            faults: BTreeMap::new(),
            history: History::default(),
            transcript,
            broken: None,
            invariants: Invariants::default(),
        }
    }

    pub(crate) fn happened(&mut self, event: &Event<'_>) {
        if self.broken.is_some() {
            return;
        }
        self.write(event);
        self.history.add(event, self.now);
        if let Some((invariant, what)) = self.invariants.observe(&self.history, event, self.now) {
            let event = event.line(&self.names).to_string();
            self.broken = Some(Broken {
                invariant,
                what,
                event,
                at_us: self.now,
            });
            if let Transcript::Text(text) = &mut self.transcript {
                let broken = self.broken.as_ref().map(ToString::to_string);
                let _ = writeln!(text, "!!! {}", broken.unwrap_or_default());
            }
        }
    }

    fn write(&mut self, event: &Event<'_>) {
        if matches!(self.transcript, Transcript::Nothing) || event.is_small_talk() {
            return;
        }
        let (line, now) = (event.line(&self.names), self.now);
        // Neither can fail.
        let _ = match &mut self.transcript {
            Transcript::Nothing => Ok(()),
            Transcript::Hash(hash) => writeln!(hash, "{now} {line}"),
            Transcript::Text(text) => {
                writeln!(text, "{:>8}.{:03} {line}", now / 1000, now % 1000)
            }
        };
    }

    pub(crate) fn sometimes(&mut self, what: Sometimes) {
        self.counters.count(what);
    }

    pub(crate) fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is broken at {} ms by {:?}: {}",
            self.invariant,
            self.at_us / 1000,
            self.event,
            self.what
        )
    }
}
