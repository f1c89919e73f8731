//! A process of the cluster: started, killed, and gone when its parent is.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child as Process, Command, ExitStatus, Stdio};

/// What a process is started in, other than usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// A program and its arguments that becomes the process, such as `unshare --time`.
    pub under: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
}

/// One process, running or not. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
    /// How the last one ended, if it did so by itself and was not started again.
    ended: Option<ExitStatus>,
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
            ended: None,
        }
    }

    /// From its next start on.
    pub(super) fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// Starts it.
    pub(super) fn start(&mut self, surroundings: &Surroundings) -> io::Result<()> {
        self.ended()?;
        assert!(self.process.is_none(), "{} is running already", self.name);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = match surroundings.under.split_first() {
            None => Command::new(&self.executable),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.executable);
                command
            }
        };
        let process = command
            .args(&self.arguments)
            .envs(surroundings.variables.iter().cloned())
            // It ends when nobody holds the other end any more, whatever became of us.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in a terminal is for us alone; we see to the others.
            .process_group(0)
            .spawn()?;
        self.process = Some(process);
        self.ended = None;
        Ok(())
    }

    /// Ends it the way `kill -9` does, and waits until it is gone. Nothing happens if it is not running.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.ended = None;
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// So too, of one that has to be running, or was sent SIGKILL a moment ago: `None` then. Otherwise how it had ended.
    pub(super) fn kill_running(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.process.is_none() && self.ended.is_none() {
            return Err(io::Error::other("it does not run"));
        }
        let status = match (self.ended()?, self.process.take()) {
            (None, Some(mut process)) => {
                process.kill()?;
                process.wait()?
            }
            (Some(status), _) => status,
            (None, None) => unreachable!("it ran, or had ended"),
        };
        let ours = status.signal() == Some(9);
        // Otherwise it was faster than we.
        self.ended = (!ours).then_some(status);
        Ok(self.ended)
    }

    /// Its number in the system, if it was started. Nobody's any more once it is known to have ended.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// How it ended, if it was started and ended by itself.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if let Some(process) = &mut self.process
            && let Some(status) = process.try_wait()?
        {
            self.process = None;
            self.ended = Some(status);
        }
        Ok(self.ended)
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn child(folder: &std::path::Path, script: &str) -> Child {
        let arguments = ["-c", script].map(str::to_owned).to_vec();
        let mut child = Child::new("c1".to_owned(), "/bin/sh".into(), arguments, folder.join("log"));
        child.start(&Surroundings::default()).unwrap();
        child
    }

    /// It is seen as running until somebody asks, in the state `Z`.
    fn wait_for_end(child: &Child) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let stat = format!("/proc/{}/stat", child.id().unwrap());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn who_has_ended_by_itself_is_nobodys_victim() {
        let folder = tempfile::tempdir().unwrap();
        let mut running = child(folder.path(), "exec sleep 60");
        assert_eq!(running.kill_running().unwrap(), None);
        assert_eq!(running.ended().unwrap(), None);
        assert!(running.kill_running().is_err(), "it was killed before");

        let mut at_once = child(folder.path(), "kill -9 $$");
        wait_for_end(&at_once);
        assert_eq!(at_once.kill_running().unwrap(), None, "as if we had sent it");
        assert_eq!(at_once.ended().unwrap(), None);

        let mut ended = child(folder.path(), "exit 3");
        wait_for_end(&ended);
        let status = ended.kill_running().unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(ended.ended().unwrap(), Some(status), "and it stays so");
        // Whoever is to be gone, however that came, may be killed all the same.
        ended.kill().unwrap();
    }
}
