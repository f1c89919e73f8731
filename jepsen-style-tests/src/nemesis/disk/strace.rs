use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::command::exists;

/// System calls of one process that do something else, by `strace` from outside. Dropping it lets the process go.
pub(super) struct Injection {
    strace: Child,
    log: PathBuf,
}

/// What is missing for it, if anything. Found out once, by trying.
pub(super) fn unavailable() -> Option<String> {
    static TRIED: OnceLock<Option<String>> = OnceLock::new();
    let tried = TRIED.get_or_init(|| {
        if !exists("strace") {
            return Some("strace is not installed".to_owned());
        }
        let said = attach_to_somebody().unwrap_or_else(|error| error.to_string());
        (!said.contains("attached"))
            .then(|| format!("strace does not attach, it needs root: {}", said.trim()))
    });
    tried.clone()
}

/// What strace says when it is to watch another process.
fn attach_to_somebody() -> io::Result<String> {
    use std::io::BufRead as _;
    let mut somebody = std::process::Command::new("sleep").arg("60").spawn()?;
    let strace = std::process::Command::new("strace")
        .args(["-o", "/dev/null", "-p", &somebody.id().to_string()])
        .stderr(Stdio::piped())
        .spawn();
    let said = strace.and_then(|mut strace| {
        let mut said = String::new();
        if let Some(stderr) = strace.stderr.take() {
            io::BufReader::new(stderr).read_line(&mut said)?;
        }
        strace.kill()?;
        strace.wait()?;
        Ok(said)
    });
    somebody.kill()?;
    somebody.wait()?;
    said
}

impl Injection {
    /// `what` is done to these calls of a process (`error=EIO:when=3`, `delay_enter=300000`), as soon as this returns.
    pub(super) async fn attach(process: u32, calls: &str, what: &str, log: PathBuf) -> io::Result<Self> {
        let mut strace = Command::new("strace")
            .args(["-f", "-y", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{what}")])
            .args(["-p", &process.to_string(), "-o"])
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal is for us alone.
            .process_group(0)
            .spawn()?;
        let Some(stderr) = strace.stderr.take() else {
            return Err(io::Error::other("strace has no standard error"));
        };
        let mut stderr = BufReader::new(stderr);
        let mut said = String::new();
        // It says so once it has all threads.
        stderr.read_line(&mut said).await?;
        if !said.contains("attached") {
            strace.kill().await?;
            return Err(io::Error::other(format!(
                "strace does not attach: {}",
                said.trim()
            )));
        }
        // What it says about new threads goes nowhere, so that it never waits for a reader.
        tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
        Ok(Self { strace, log })
    }

    /// Lets the process go, and returns the calls to which it happened, as strace writes them.
    pub(super) async fn detach(mut self) -> io::Result<Vec<String>> {
        self.tell_to_end();
        self.strace.wait().await?;
        let log = fs::read_to_string(&self.log)?;
        fs::remove_file(&self.log)?;
        Ok(happened(&log))
    }

    /// SIGTERM: it lets the process go in order, and then ends.
    fn tell_to_end(&self) {
        // Absent once it has ended by itself, with the process.
        if let Some(id) = self.strace.id().and_then(|id| i32::try_from(id).ok())
            && let Err(error) = kill(Pid::from_raw(id), Signal::SIGTERM)
        {
            tracing::warn!(%error, "strace cannot be ended");
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.tell_to_end();
    }
}

/// The calls to which it happened. One that was written down in two parts, because others were between them, is put
/// together.
fn happened(log: &str) -> Vec<String> {
    let mut unfinished: BTreeMap<&str, &str> = BTreeMap::new();
    let mut happened = Vec::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        if let Some((begun, _)) = call.split_once(" <unfinished ...>") {
            unfinished.insert(thread, begun);
        }
        let begun = match call.split_once(" resumed>") {
            Some((_, end)) => unfinished
                .remove(thread)
                .map(|begun| format!("{thread} {begun}{end}")),
            None => Some(line.to_owned()),
        };
        if line.contains("(INJECTED)") || line.contains("(DELAYED)") {
            happened.push(begun.unwrap_or_else(|| line.to_owned()));
        }
    }
    happened
}

/// The file of a call as strace writes it: `fdatasync(9</data/journal>) = …`.
pub(super) fn file_of(call: &str) -> Option<&str> {
    let (_, rest) = call.split_once('<')?;
    Some(rest.split_once('>')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_two_parts_are_put_together() {
        let log = "17 fdatasync(9</data/a> <unfinished ...>\n\
                   18 fdatasync(7</data/b>) = 0\n\
                   17 <... fdatasync resumed>) = 0 (DELAYED)\n\
                   18 fdatasync(7</data/b>) = -1 EIO (Input/output error) (INJECTED)\n";
        let both = happened(log);
        assert_eq!(both.len(), 2);
        assert_eq!(file_of(&both[0]), Some("/data/a"));
        assert_eq!(file_of(&both[1]), Some("/data/b"));
    }

    #[test]
    fn the_file_of_a_call_is_found() {
        let call = "17 fdatasync(9</data/p1/journal/x.segment>) = -1 EIO (Input/output error) (INJECTED)";
        assert_eq!(file_of(call), Some("/data/p1/journal/x.segment"));
        assert_eq!(file_of("17 sync() = 0"), None);
    }
}
