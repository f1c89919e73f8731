use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use tonic::Status;

use crate::history::Tx;
use crate::late::Reaction;

/// What a store has said, in a file that is not on its own disk: it is there whatever becomes of the process or of the
/// disk.
pub(super) struct Said(File);

/// What stands in such a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// To these it said Yes.
    pub(crate) yes: BTreeSet<Tx>,
    /// Of these it acknowledged a Commit.
    pub(crate) committed: BTreeSet<Tx>,
}

impl Said {
    /// Goes on in this file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    /// Notes an answer before anybody hears it. What cannot be noted must not be said.
    pub(super) fn note(&self, method: &str, transaction: &str, answer: &Reaction) -> Result<(), Status> {
        let word = match (method, answer) {
            ("Prepare", Reaction::Yes) => "yes",
            ("Commit", Reaction::Acknowledged) => "committed",
            _ => return Ok(()),
        };
        // In one write, so that lines of two calls do not mix.
        let line = format!("{word} {transaction}\n");
        let unnoted = |error| Status::unavailable(format!("cannot note what is said: {error}"));
        (&self.0).write_all(line.as_bytes()).map_err(unnoted)
    }
}

/// Reads what was noted.
pub(crate) fn read(path: &Path) -> io::Result<Words> {
    let mut words = Words::default();
    for line in std::fs::read_to_string(path)?.lines() {
        let unknown = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line that is none: {line:?}"),
            )
        };
        let (word, transaction) = line.split_once(' ').ok_or_else(unknown)?;
        let transaction = Tx(transaction.parse().map_err(|_| unknown())?);
        match word {
            "yes" => words.yes.insert(transaction),
            "committed" => words.committed.insert(transaction),
            _ => return Err(unknown()),
        };
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use unanimo_core::{Timestamp, TransactionId};

    use super::*;

    #[test]
    fn what_binds_is_noted_and_found_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p1.said");
        let id = |number| TransactionId::new(Timestamp::from_unix_ms(number), 0);
        for number in [1, 2] {
            let said = Said::open(&path).unwrap();
            let text = id(number).to_string();
            said.note("Prepare", &text, &Reaction::Yes).unwrap();
            said.note("Prepare", &text, &Reaction::No).unwrap();
            said.note("Commit", &text, &Reaction::Refused("no".to_owned()))
                .unwrap();
            said.note("Abort", &text, &Reaction::Acknowledged).unwrap();
        }
        let text = id(2).to_string();
        let said = Said::open(&path).unwrap();
        said.note("Commit", &text, &Reaction::Acknowledged).unwrap();
        let words = read(&path).unwrap();
        assert_eq!(words.yes, BTreeSet::from([Tx(id(1)), Tx(id(2))]));
        assert_eq!(words.committed, BTreeSet::from([Tx(id(2))]));
        std::fs::write(&path, "yes nobody\n").unwrap();
        assert!(read(&path).is_err());
    }
}
