//! Disks that really fail: a file system that can be filled up, and system calls that return errors.
//!
//! Both need root, and the second one `strace`. Without them the tests fail and say so: a test that is skipped proves
//! nothing.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A file system in memory of a few MiB. Unmounted when dropped, also by a test that fails.
pub(crate) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    pub(crate) fn of_mib(size: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "unanimo-test"])
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(
            mounted.status.success(),
            "this test needs root to mount a tmpfs: {said}"
        );
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Takes all the room that is left, to the last byte.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let mut block = vec![0; 1 << 20];
        while !block.is_empty() {
            match file.write(&block) {
                Ok(written) => assert!(written > 0),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                    block.truncate(block.len() / 2);
                }
            }
        }
    }

    /// Gives the room back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that still has files open there keeps nothing mounted.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// System calls of one process that return an error from now on, by `strace`.
pub(crate) struct FailingCalls {
    strace: Child,
    log: PathBuf,
}

impl FailingCalls {
    /// Lets every one of these calls of the process fail with an input/output error and do nothing.
    pub(crate) fn of(process: u32, calls: &str, log: PathBuf) -> Self {
        let mut strace = Command::new("strace")
            .args(["-f", "-y", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error=EIO")])
            .args(["-p", &process.to_string(), "-o"])
            .arg(&log)
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs strace: apt-get install strace");
        // It says so once it has all threads.
        let mut said = String::new();
        let mut stderr = BufReader::new(strace.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        assert!(
            said.contains("attached"),
            "strace does not attach, it needs root: {said}"
        );
        // What it says about new threads goes nowhere, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { strace, log }
    }

    /// The files whose calls failed, one line for each call. To be asked when the process has ended.
    pub(crate) fn failed_files(mut self) -> Vec<String> {
        // It ends with the process that it watches.
        self.strace.wait().unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        let injected = log.lines().filter(|line| line.contains("(INJECTED)"));
        let file = |line: &str| {
            let (_, rest) = line.split_once('<').unwrap_or_else(|| panic!("no file: {line}"));
            let (file, _) = rest.split_once('>').unwrap_or_else(|| panic!("no file: {line}"));
            file.to_owned()
        };
        injected.map(file).collect()
    }
}

impl Drop for FailingCalls {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
