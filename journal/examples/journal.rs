//! Shows what lies in the directory of a journal, for a human: `journal DIRECTORY`.
//!
//! It only reads, works on damaged journals and on those that are in use, and ends with where the journal ends and
//! why. It exits with 1 if the journal would not open.

use std::path::PathBuf;
use std::process::ExitCode;

use unanimo_journal::{Ending, Inspection, RealDisk, inspect};

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: journal DIRECTORY");
        return ExitCode::from(2);
    };
    match RealDisk::open_read_only(&directory).and_then(|disk| inspect(&disk)) {
        Ok(inspection) => {
            println!("{inspection}");
            if opens(&inspection) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::from(2)
        }
    }
}

fn opens(inspection: &Inspection) -> bool {
    let sound = !matches!(inspection.ending, Ending::Damaged { .. } | Ending::Headless);
    sound && inspection.problems.is_empty()
}
