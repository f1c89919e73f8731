//! What the system says of a process.

use std::fs;
use std::io;

/// The state of a process: `T` if it is stopped.
pub(super) fn state_of(process: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which is in parentheses and may contain anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The numbers of its open files.
pub(super) fn open_files(process: u32) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        numbers.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok()),
        );
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// How many open files it may have.
pub(super) fn file_limit(process: u32) -> Option<String> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next().map(str::to_owned)
}
