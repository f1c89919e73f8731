//! Schedules as files: what was found once is tried again for ever.

use std::fmt;
use std::rc::Rc;

use crate::run::{Keep, run};
use crate::schedule::Schedule;
use crate::watch::Broken;

/// A script that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError(String);

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScriptError {}

/// Where the script ends and the transcript begins, which is there for whoever reads it.
const SEPARATOR: &str = "\n---\n";

/// Runs a script. Returns the rule that it breaks, if it breaks one, and the transcript.
///
/// # Errors
///
/// [`ScriptError`] if there is a line that cannot be read.
pub fn replay(text: &str) -> Result<(Option<Broken>, String), ScriptError> {
    let schedule = read(text)?;
    let outcome = run(&Rc::new(schedule), Keep::Text);
    Ok((outcome.broken, outcome.transcript))
}

pub(crate) fn read(text: &str) -> Result<Schedule, ScriptError> {
    let script = text.split_once(SEPARATOR).map_or(text, |(script, _)| script);
    Schedule::from_text(script).map_err(ScriptError)
}

/// The script of a schedule that breaks a rule, with the transcript behind it.
pub(crate) fn write(schedule: &Schedule, broken: &Broken, transcript: &str) -> String {
    format!("# {broken}\n{}---\n{transcript}", schedule.to_text())
}
