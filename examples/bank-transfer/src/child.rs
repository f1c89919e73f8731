//! A process of the cluster: started, killed, and gone when its parent is.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};

/// Lines of a log that a failure shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 8 * 1024;

/// One process, running or not. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

impl Child {
    /// A process that is not running yet. What it says goes to the end of `log`.
    pub(crate) fn new(name: String, executable: PathBuf, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            name,
            executable,
            arguments,
            log,
            process: None,
        }
    }

    /// Its name, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its log.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        assert!(self.process.is_none(), "{} is running already", self.name);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let process = Command::new(&self.executable)
            .args(&self.arguments)
            // It ends when nobody holds the other end any more, whatever became of us.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in a terminal is for us alone; we see to the others.
            .process_group(0)
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it the way `kill -9` does, and waits until it is gone. Nothing happens if it is not running.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Its number in the system, if it was started.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// How it ended, if it was started and ended by itself.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.as_mut().map_or(Ok(None), Process::try_wait)
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let tail = read_tail(&self.log).unwrap_or_else(|error| format!("(unreadable: {error})"));
        let lines: Vec<&str> = tail.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::error!(child = self.name, %error, "a process could not be ended");
        }
    }
}

fn read_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Ends this process as soon as its standard input does, which is when its parent is gone. To be called by children.
pub fn end_with_parent() -> io::Result<()> {
    let wait = || {
        let copied = io::copy(&mut io::stdin().lock(), &mut io::sink());
        tracing::info!(?copied, "the parent is gone");
        std::process::exit(0);
    };
    std::thread::Builder::new()
        .name("end-with-parent".to_owned())
        .spawn(wait)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Child {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Child::new(
            "shell".to_owned(),
            "/bin/sh".into(),
            arguments,
            folder.join("shell.log"),
        )
    }

    fn is_alive(process: u32) -> bool {
        Path::new(&format!("/proc/{process}")).exists()
    }

    #[test]
    fn a_child_is_gone_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell(folder.path(), "exec sleep 600");
        child.start().unwrap();
        let id = child.process.as_ref().unwrap().id();
        assert!(is_alive(id));
        assert!(child.ended().unwrap().is_none());
        drop(child);
        assert!(!is_alive(id));
    }

    #[test]
    fn a_child_that_is_killed_can_be_started_again_and_goes_on_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        // Reads what never comes, so that it stays.
        let mut child = shell(folder.path(), "echo started; cat");
        for starts in 1..=2 {
            child.start().unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while child.log_tail().lines().count() < starts {
                assert!(
                    std::time::Instant::now() < deadline,
                    "it does not start: {}",
                    child.log_tail()
                );
                std::thread::yield_now();
            }
            child.kill().unwrap();
        }
        assert_eq!(child.log_tail(), "started\nstarted");
    }

    #[test]
    fn a_child_that_ends_by_itself_is_noticed_and_its_last_words_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell(folder.path(), "for i in $(seq 30); do echo $i; done; exit 3");
        child.start().unwrap();
        let status = child.process.as_mut().unwrap().wait().unwrap();
        assert_eq!(child.ended().unwrap(), Some(status));
        assert_eq!(status.code(), Some(3));
        let tail: Vec<String> = child.log_tail().lines().map(str::to_owned).collect();
        assert_eq!(
            (tail.len(), tail[0].as_str(), tail[19].as_str()),
            (20, "11", "30")
        );
    }
}
