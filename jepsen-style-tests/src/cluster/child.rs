//! A process of the cluster: started, killed, and gone when its parent is.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child as Process, Command, ExitStatus, Stdio};

/// One process, running or not. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

impl Child {
    /// A process that is not running yet. What it says goes to the end of `log`.
    pub(super) fn new(name: String, executable: PathBuf, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            name,
            executable,
            arguments,
            log,
            process: None,
        }
    }

    /// Starts it.
    pub(super) fn start(&mut self) -> io::Result<()> {
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
    pub(super) fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Its number in the system, if it was started.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// How it ended, if it was started and ended by itself.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.as_mut().map_or(Ok(None), Process::try_wait)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::error!(child = self.name, %error, "a process could not be ended");
        }
    }
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
