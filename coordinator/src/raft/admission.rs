//! Whether a node that is new answers the others yet, and what it notes before its first answer leaves.
//!
//! A node that lost its log and does not know it might vote twice in a term. So before anybody hears its first answer,
//! which may be a promise, a new node notes outside of the log that it has answered. If the log is gone later, the note
//! tells.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;
use unanimo_proto::{ErrorReason, refusal};

use super::failure::Failure;
use super::{Background, background};

/// Makes the note durable.
pub(crate) type Note = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Stands in front of every answer to the other nodes.
pub(super) struct Admission {
    admitted: AtomicBool,
    /// Whether the note is durable, or none is needed.
    noted: AtomicBool,
    note: Mutex<Option<Note>>,
    /// Held while the note is made, so that no second answer overtakes it.
    noting: tokio::sync::Mutex<()>,
    background: Background,
    failure: Failure,
}

impl Admission {
    /// A node that `answers_at_once` has noted all that there is to note.
    pub(super) fn new(answers_at_once: bool, background: Background, failure: Failure) -> Self {
        Self {
            admitted: AtomicBool::new(answers_at_once),
            noted: AtomicBool::new(answers_at_once),
            note: Mutex::new(None),
            noting: tokio::sync::Mutex::new(()),
            background,
            failure,
        }
    }

    /// Lets the node answer. `note` is made before the first answer leaves.
    pub(super) fn admit(&self, note: Note) {
        if !self.admitted.load(Ordering::Acquire) {
            *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
            self.admitted.store(true, Ordering::Release);
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    /// To be awaited between the moment when an answer rests on the disk and the moment when it leaves.
    pub(super) async fn before_answering(self: &Arc<Self>) -> Result<(), Status> {
        if self.noted.load(Ordering::Acquire) {
            return Ok(());
        }
        // A task of its own: a caller that gives up ends us in the middle, and the note would be neither made nor there
        // to be made by somebody else.
        let noting = tokio::spawn(Arc::clone(self).make_note());
        if let Err(error) = noting.await {
            self.failure
                .tell(format!("the note that this node has answered: {error}"));
        }
        if self.noted.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(refusal(
            ErrorReason::StorageFailed,
            "the storage of this node failed",
        ))
    }

    /// Makes the note, unless it is made already.
    async fn make_note(self: Arc<Self>) {
        let _noting = self.noting.lock().await;
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(note) = note else { return };
        let made = background::run(self.background, note).await;
        if let Err(error) = made.and_then(|made| made) {
            // R10: what is on the disk is not known any more. Nothing is noted, so nothing is answered either.
            self.failure.tell(format!(
                "it cannot be noted that this node is part of a cluster: {error}"
            ));
        } else {
            self.noted.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A caller that gives up while a slow disk makes the note must not leave a node behind that neither answers nor
    /// ends.
    #[tokio::test]
    async fn a_caller_that_gives_up_does_not_take_the_note_along() {
        let failure = Failure::new();
        let admission = Arc::new(Admission::new(false, Background::Threads, failure.clone()));
        let (started, has_started) = mpsc::channel();
        let (finish, may_finish) = mpsc::channel::<()>();
        admission.admit(Box::new(move || {
            started.send(()).map_err(io::Error::other)?;
            may_finish.recv().map_err(io::Error::other)
        }));
        let gave_up = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.before_answering().await }
        });
        tokio::task::spawn_blocking(move || has_started.recv())
            .await
            .unwrap()
            .unwrap();
        gave_up.abort();
        assert!(gave_up.await.unwrap_err().is_cancelled());
        finish.send(()).unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(10), admission.before_answering()).await;
        answered.unwrap().unwrap();
        assert_eq!(failure.reason(), None);
    }
}
