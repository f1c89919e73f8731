use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cluster::Surroundings;

/// Where systems keep the library.
const FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
    "/lib/faketime",
];
/// The library, for programs with threads.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// A wall clock that is wrong: what a file says is done to the clock of a process that was started under libfaketime.
/// Its monotonic clock stays right. Dropping it removes the file, and what the library left of those processes.
#[derive(Debug)]
pub(super) struct FakeClock {
    file: PathBuf,
    processes: Vec<u32>,
}

/// What is wrong with a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wrong {
    /// It is ahead by so many milliseconds, or behind.
    By(i64),
    /// It runs so many times as fast, from when the process was started.
    Rate(f64),
}

/// Why there are no such clocks on this machine, if so.
pub(super) fn unavailable() -> Option<String> {
    match library() {
        Some(_) => None,
        None => Some(format!("{LIBRARY} is not there: install the package libfaketime")),
    }
}

fn library() -> Option<PathBuf> {
    let candidates = FOLDERS.map(|folder| Path::new(folder).join(LIBRARY));
    candidates.into_iter().find(|library| library.exists())
}

impl FakeClock {
    /// A clock that is right so far. The file is made.
    pub(super) fn new(file: PathBuf) -> io::Result<Self> {
        let clock = Self {
            file,
            processes: Vec::new(),
        };
        clock.set(Wrong::By(0))?;
        Ok(clock)
    }

    /// What a process is started in so that this is its clock.
    pub(super) fn surroundings(&self) -> io::Result<Surroundings> {
        let library = library().ok_or_else(|| io::Error::other(unavailable().unwrap_or_default()))?;
        let variables = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // A change is seen at once.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        Ok(Surroundings {
            under: Vec::new(),
            variables: variables.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        })
    }

    /// This process has it.
    pub(super) fn belongs_to(&mut self, process: u32) {
        self.processes.push(process);
    }

    /// From now on it is wrong in this way, and in no other.
    pub(super) fn set(&self, wrong: Wrong) -> io::Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, wrong.text())?;
        // Whoever reads it reads all of it.
        fs::rename(next, &self.file)
    }
}

impl Wrong {
    fn text(self) -> String {
        match self {
            Self::By(ms) => format!("{}.{:03}\n", Seconds(ms), ms.unsigned_abs() % 1000),
            Self::Rate(rate) => format!("+0 x{rate:.3}\n"),
        }
    }
}

/// The whole seconds of milliseconds, with the sign, also of none.
struct Seconds(i64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{}", self.0.unsigned_abs() / 1000)
    }
}

impl Drop for FakeClock {
    fn drop(&mut self) {
        // What is not there any more, was removed already: a process that is not killed does it itself.
        let _ = fs::remove_file(&self.file);
        for process in &self.processes {
            for shared in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = fs::remove_file(Path::new("/dev/shm").join(format!("{shared}{process}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_set_in_the_words_of_the_library() {
        assert_eq!(Wrong::By(0).text(), "+0.000\n");
        assert_eq!(Wrong::By(61_250).text(), "+61.250\n");
        assert_eq!(Wrong::By(-250).text(), "-0.250\n");
        assert_eq!(Wrong::Rate(1.5).text(), "+0 x1.500\n");
    }
}
