//! Notes when a resource manager was told a decision, so that the time in doubt can be measured from outside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use bytes::Bytes;
use unanimo_core::{Timestamp, TransactionId};
use unanimo_participant::{Preparation, ResourceError, ResourceManager};
use unanimo_proto::transport::{Clock as _, SystemClock};

/// A resource manager whose decisions are noted, one line each, in a file: when, by the wall clock in milliseconds, and
/// of which transaction.
///
/// Each line is one write, so what a process has noted outlives `kill -9`. A decision that is told again after a restart
/// is noted again; the first line counts. The file is for measuring: nothing is forced to disk, and nobody's data depends
/// on it.
pub struct Heard<R> {
    inner: R,
    file: File,
}

impl<R> Heard<R> {
    /// Notes what this resource manager is told at the end of this file.
    pub fn new(inner: R, file: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(file)?;
        Ok(Self { inner, file })
    }

    fn note(&self, transaction: TransactionId) {
        let line = format!("{} {transaction}\n", SystemClock.now().unix_ms());
        if let Err(error) = (&self.file).write_all(line.as_bytes()) {
            // It is only missing in the measurement, which says so.
            tracing::error!(%transaction, %error, "cannot note when the decision was heard");
        }
    }
}

impl<R: ResourceManager> ResourceManager for Heard<R> {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        self.inner.prepare(transaction, operation).await
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        self.note(transaction);
        self.inner.commit(transaction, redo).await
    }

    async fn abort(&self, transaction: TransactionId, redo: Option<Bytes>) -> Result<(), ResourceError> {
        self.note(transaction);
        self.inner.abort(transaction, redo).await
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        self.inner.restore(transaction, redo).await
    }

    async fn prepared(&self) -> Result<Vec<TransactionId>, ResourceError> {
        self.inner.prepared().await
    }
}

/// When each decision in this file was first heard.
pub(crate) fn read(file: &Path) -> io::Result<BTreeMap<TransactionId, Timestamp>> {
    let text = fs::read_to_string(file)?;
    let mut heard = BTreeMap::new();
    for line in text.lines() {
        let entry = line.split_once(' ').and_then(|(time, transaction)| {
            let time = Timestamp::from_unix_ms(time.parse().ok()?);
            Some((transaction.parse().ok()?, time))
        });
        let Some((transaction, time)) = entry else {
            let error = format!("{}: the line {line:?} is no decision", file.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        };
        heard.entry(transaction).or_insert(time);
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_first_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("decisions");
        let [one, two] = [1, 2].map(|at| TransactionId::new(Timestamp::from_unix_ms(at), 0));
        fs::write(&file, format!("100 {one}\n150 {two}\n900 {one}\n")).unwrap();
        let [at_one, at_two] = [100, 150].map(Timestamp::from_unix_ms);
        assert_eq!(
            read(&file).unwrap(),
            BTreeMap::from([(one, at_one), (two, at_two)])
        );
        fs::write(&file, format!("soon {one}\n")).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("is no decision"));
    }

    /// Does nothing, and has been told everything already.
    struct Nothing;

    impl ResourceManager for Nothing {
        async fn prepare(&self, _: TransactionId, redo: Bytes) -> Result<Preparation, ResourceError> {
            Ok(Preparation::Yes { redo })
        }
        async fn commit(&self, _: TransactionId, _: Bytes) -> Result<(), ResourceError> {
            Ok(())
        }
        async fn abort(&self, _: TransactionId, _: Option<Bytes>) -> Result<(), ResourceError> {
            Ok(())
        }
        async fn restore(&self, _: TransactionId, _: Bytes) -> Result<(), ResourceError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn commits_and_aborts_are_noted_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("decisions");
        let transactions = [1, 2, 3].map(|at| TransactionId::new(Timestamp::from_unix_ms(at), 0));
        let [committed, aborted, promised] = transactions;
        let before = SystemClock.now();
        for transaction in [committed, aborted] {
            // Opened anew each time, as a process that was killed does.
            let heard = Heard::new(Nothing, &file).unwrap();
            heard.prepare(promised, Bytes::new()).await.unwrap();
            heard.restore(promised, Bytes::new()).await.unwrap();
            if transaction == committed {
                heard.commit(transaction, Bytes::new()).await.unwrap();
            } else {
                heard.abort(transaction, None).await.unwrap();
            }
        }
        let noted = read(&file).unwrap();
        assert_eq!(noted.keys().copied().collect::<Vec<_>>(), [committed, aborted]);
        assert!(
            noted
                .values()
                .all(|time| (before..=SystemClock.now()).contains(time)),
            "{noted:?}"
        );
    }
}
