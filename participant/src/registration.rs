use std::sync::Arc;
use std::time::Duration;

use unanimo_client::{CallError, Client};
use unanimo_core::table::{Registration, Witness};
use unanimo_core::{Generation, Position};
use unanimo_proto::{ErrorReason, Registering};

use crate::gate::Gate;
use crate::pause::{Jitter, Pauses};
use crate::store::Store;
use crate::{ParticipantOptions, StopReason};

/// The pause after the first attempt that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long one attempt may take, in which the client tries all nodes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells the cluster where this participant serves and how far its memory reaches, until the cluster has
/// confirmed it (R11).
///
/// Before that no new promise is made. Otherwise its position could reach the cluster before the registration
/// does, and the registration would look like that of an old copy; and a participant that *is* an old copy could
/// promise things until it is found out.
pub(crate) struct Registrar {
    pub(crate) client: Client,
    pub(crate) options: Arc<ParticipantOptions>,
    pub(crate) generation: Generation,
    /// Where the journal ended when this life began: see [`Reach`](unanimo_core::Reach).
    pub(crate) reach: Position,
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) jitter: Arc<Jitter>,
}

impl Registrar {
    /// Registers. Ends when it is done, or the participant stops.
    pub(crate) async fn run(self) {
        let mut pauses = Pauses::new(FIRST_PAUSE, self.options.retry_pause_max);
        loop {
            // A call that is dropped may still register us, which is what we want.
            let told = tokio::select! {
                () = self.gate.stopping() => return,
                told = self.tell() => told,
            };
            match told {
                Ok(()) => {
                    let (participant, generation) = (&self.options.name, self.generation);
                    tracing::info!(%participant, %generation, "registered");
                    // Before the first promise of this life, and its first acknowledgement.
                    return match self.store.record_registration(self.generation).await {
                        Ok(()) => self.gate.register(),
                        Err(reason) => self.gate.close(reason),
                    };
                }
                Err(CallError::Refused {
                    reason: ErrorReason::Outdated,
                    message,
                }) => return self.gate.close(StopReason::Outdated { message }),
                Err(CallError::Refused { reason, message }) if reason.is_final() => {
                    return self.gate.close(StopReason::Refused { message });
                }
                Err(error) => {
                    tracing::warn!(participant = %self.options.name, %error, "not registered yet");
                }
            }
            tokio::select! {
                () = self.gate.stopping() => return,
                () = tokio::time::sleep(pauses.next(&self.jitter)) => {}
            }
        }
    }

    async fn tell(&self) -> Result<(), CallError> {
        let registering = Registering {
            participant: self.options.name.clone(),
            registration: Registration {
                address: self.options.address.clone(),
                witness: Witness {
                    generation: self.generation,
                    position: self.reach,
                },
            },
        };
        self.client.register(&registering, PATIENCE).await
    }
}
