//! Whether a node that is new answers the others yet, and what it notes before its first answer leaves.
//!
//! A node that lost its log and does not know it might vote twice in a term. So before anybody hears its first answer,
//! which may be a promise, a new node notes outside of the log that it has answered. If the log is gone later, the note
//! tells.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

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
    pub(super) async fn before_answering(&self) -> Result<(), Status> {
        if self.noted.load(Ordering::Acquire) {
            return Ok(());
        }
        let _noting = self.noting.lock().await;
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(note) = note {
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
        if self.noted.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(refusal(
            ErrorReason::StorageFailed,
            "the storage of this node failed",
        ))
    }
}
