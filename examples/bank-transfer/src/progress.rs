//! How far the load is, for people and for the fault schedule.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::sync::watch;

/// Shows how far the load is, on standard error if that is a terminal. A clone shows the same.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    reached: watch::Sender<Reached>,
}

/// How far the load is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Transfers whose outcome is known or was given up.
    pub(crate) finished: usize,
    /// Whether no more will come.
    pub(crate) over: bool,
}

impl Progress {
    /// The progress of so many transfers, or of as many as there is time for.
    pub fn new(transfers: Option<usize>) -> Self {
        // Hidden by itself if standard error is no terminal.
        Self::drawn_on(ProgressDrawTarget::stderr(), transfers)
    }

    /// A progress that is not shown.
    pub fn hidden(transfers: usize) -> Self {
        Self::drawn_on(ProgressDrawTarget::hidden(), Some(transfers))
    }

    fn drawn_on(target: ProgressDrawTarget, transfers: Option<usize>) -> Self {
        let bar = ProgressBar::with_draw_target(transfers.map(|transfers| transfers as u64), target);
        let style = match transfers {
            Some(_) => "{bar:40} {percent:>3} % {pos}/{len} transfers, {rate} a second, {elapsed} {msg}",
            None => "{spinner} {pos} transfers, {rate} a second, {elapsed} {msg}",
        };
        match ProgressStyle::with_template(style) {
            Ok(style) => bar.set_style(style.with_key("rate", write_rate)),
            Err(error) => unreachable!("the template is a constant: {error}"),
        }
        Self {
            bar,
            reached: watch::Sender::default(),
        }
    }

    /// One more transfer is finished.
    pub(crate) fn finished_one(&self) {
        self.reached.send_modify(|reached| reached.finished += 1);
        self.bar.inc(1);
    }

    /// No more transfers will finish.
    pub(crate) fn over(&self) {
        self.reached.send_modify(|reached| reached.over = true);
    }

    /// How far the load is, now and whenever it changes.
    pub(crate) fn reached(&self) -> watch::Receiver<Reached> {
        self.reached.subscribe()
    }

    /// Says what goes on, beside the bar.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Says what happened, on a line of its own on standard error.
    pub fn say(&self, what: &str) {
        self.bar.suspend(|| eprintln!("{what}"));
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Whole transfers are precise enough.
fn write_rate(state: &ProgressState, text: &mut dyn fmt::Write) {
    // Writing to a string does not fail.
    let _ = write!(text, "{:.0}", state.per_sec());
}
