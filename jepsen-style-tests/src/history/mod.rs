//! What clients asked and were told: the only word that checkers take for what was promised to anybody.
//!
//! An operation is one line when it is invoked and one when it completes. `ok`: it happened, with this answer. `fail`:
//! it definitely did not happen and will not. `info`: nobody knows. An operation whose completion is missing is `info`
//! too. Time is the harness's monotonic clock, so an operation that completed before another was invoked came before it.

mod event;
mod recorder;

pub use event::{Action, Answer, Call, Event, Kind, Process, Step, Style, Tx};
pub use recorder::{History, HistoryError, Pending, Recorder};
