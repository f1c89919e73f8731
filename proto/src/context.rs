//! What an interactive transaction puts into the metadata of the application's own calls.
//!
//! ```text
//! request   unanimo-context: 1;shop;019aa5e2-…;1763712005000;4870;9f1c2ab4d0e35a77
//!                            version;cluster;transaction;deadline;remaining_ms;tag
//! reply     unanimo-branch:  1;shop;019aa5e2-…;seats;3;joined;5be2c7a1900d4f62
//!                            version;cluster;transaction;participant;generation;state;tag
//! ```
//!
//! The tag is the first eight bytes of a SHA-256 over the other fields. It finds what was garbled, cut off or edited
//! by hand. It is no signature: who means to forge a context can compute one. TLS and the services' own
//! authentication keep such callers out, as they do for every other field of a call.

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use tonic::Status;
use unanimo_core::{ClusterId, Generation, ParticipantId, Timestamp, TransactionId};

use crate::{ErrorReason, refusal};

/// The key of the context in a request's metadata.
pub const CONTEXT_KEY: &str = "unanimo-context";
/// The key of the answer in a reply's metadata.
pub const BRANCH_KEY: &str = "unanimo-branch";

/// The form of both values. A later form gets another number.
const VERSION: &str = "1";
/// Both are shorter: two names of 64 bytes, an id and numbers.
const LONGEST_BYTES: usize = 512;

/// What a call says about the transaction that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The cluster that the transaction belongs to.
    pub cluster: ClusterId,
    /// The transaction.
    pub transaction: TransactionId,
    /// When the transaction ends by its beginner's clock. For people and logs: nobody compares it with a clock (R8).
    pub deadline: Timestamp,
    /// How much of its time was left when the call was sent.
    pub remaining: Duration,
}

/// What the reply to such a call says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchReport {
    /// The cluster that the participant belongs to.
    pub cluster: ClusterId,
    /// The transaction of the call.
    pub transaction: TransactionId,
    /// The participant that the call reached.
    pub participant: ParticipantId,
    /// Its life: what it had joined in an earlier one is lost.
    pub generation: Generation,
    /// What the call did to its branch.
    pub state: BranchState,
}

/// What a call did to a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BranchState {
    /// Nothing: it brought no operation, or none was started.
    Untouched,
    /// Every operation it brought is done.
    Joined,
    /// An operation was refused, or it is not known what became of it. The transaction can only be aborted.
    Refused,
}

/// A context or report that is not one. Definite: whatever carried it had no effect on the transaction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadContext {
    /// It is given twice, or is no text.
    #[error("{key} must be given once, in ASCII")]
    Unreadable {
        /// The key of the metadata.
        key: &'static str,
    },
    /// It has another form.
    #[error("{key} has {fields} fields and version {version:?}; this side reads version 1 only")]
    OtherForm {
        /// The key of the metadata.
        key: &'static str,
        /// How many fields it has.
        fields: usize,
        /// Its version, shortened.
        version: String,
    },
    /// The tag does not fit the other fields.
    #[error("{key} was damaged or edited on its way: its tag does not fit")]
    WrongTag {
        /// The key of the metadata.
        key: &'static str,
    },
    /// The tag fits, and still a field is not what it should be.
    #[error("field {field} of {key} is malformed")]
    Malformed {
        /// The key of the metadata.
        key: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The transaction is of another cluster (R11).
    #[error("the transaction is of cluster {found}, this is cluster {ours}")]
    OtherCluster {
        /// The cluster of this side.
        ours: ClusterId,
        /// The cluster of the context.
        found: ClusterId,
    },
    /// No time is left.
    #[error("the time of transaction {transaction} is over")]
    Expired {
        /// The transaction.
        transaction: TransactionId,
    },
    /// The transaction's id lies so far ahead that what is noted of it could not be forgotten for long (R7).
    #[error("transaction {transaction} lies {ahead:?} or more ahead of this side's clock")]
    Ahead {
        /// The transaction.
        transaction: TransactionId,
        /// How far is too far.
        ahead: Duration,
    },
}

impl From<BadContext> for Status {
    fn from(error: BadContext) -> Self {
        let reason = match error {
            BadContext::OtherCluster { .. } => ErrorReason::WrongCluster,
            BadContext::Unreadable { .. }
            | BadContext::OtherForm { .. }
            | BadContext::WrongTag { .. }
            | BadContext::Malformed { .. }
            | BadContext::Expired { .. } => ErrorReason::BadContext,
            BadContext::Ahead { .. } => ErrorReason::Premature,
        };
        refusal(reason, format!("{error}; nothing was done"))
    }
}

impl Context {
    /// The value as it travels.
    pub fn to_wire(&self) -> String {
        sealed(
            CONTEXT_KEY,
            &[
                self.cluster.as_str(),
                &self.transaction.to_string(),
                &self.deadline.unix_ms().to_string(),
                &self.remaining.as_millis().to_string(),
            ],
        )
    }

    /// Parses a context that came to this cluster. One whose time is over is refused as well.
    pub fn from_wire(text: &str, ours: &ClusterId) -> Result<Self, BadContext> {
        let key = CONTEXT_KEY;
        let [cluster, transaction, deadline, remaining] = opened(key, text)?;
        let malformed = |field| BadContext::Malformed { key, field };
        let number = |text: &str, field| text.parse::<u64>().map_err(|_| malformed(field));
        let context = Self {
            cluster: cluster.parse().map_err(|_| malformed("cluster"))?,
            transaction: transaction.parse().map_err(|_| malformed("transaction"))?,
            deadline: Timestamp::from_unix_ms(number(deadline, "deadline")?),
            remaining: Duration::from_millis(number(remaining, "remaining_ms")?),
        };
        if context.cluster != *ours {
            let (ours, found) = (ours.clone(), context.cluster);
            return Err(BadContext::OtherCluster { ours, found });
        }
        if context.remaining.is_zero() {
            let transaction = context.transaction;
            return Err(BadContext::Expired { transaction });
        }
        Ok(context)
    }
}

impl BranchReport {
    /// The value as it travels.
    pub fn to_wire(&self) -> String {
        sealed(
            BRANCH_KEY,
            &[
                self.cluster.as_str(),
                &self.transaction.to_string(),
                self.participant.as_str(),
                &self.generation.0.to_string(),
                self.state.as_str(),
            ],
        )
    }

    /// Parses a report.
    pub fn from_wire(text: &str) -> Result<Self, BadContext> {
        let key = BRANCH_KEY;
        let [cluster, transaction, participant, generation, state] = opened(key, text)?;
        let malformed = |field| BadContext::Malformed { key, field };
        let generation = generation.parse().map_err(|_| malformed("generation"))?;
        Ok(Self {
            cluster: cluster.parse().map_err(|_| malformed("cluster"))?,
            transaction: transaction.parse().map_err(|_| malformed("transaction"))?,
            participant: participant.parse().map_err(|_| malformed("participant"))?,
            generation: Generation(generation),
            state: BranchState::parse(state).ok_or_else(|| malformed("state"))?,
        })
    }
}

impl BranchState {
    const ALL: [Self; 3] = [Self::Untouched, Self::Joined, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Joined => "joined",
            Self::Refused => "refused",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// The fields with the version before and the tag behind.
fn sealed(key: &'static str, fields: &[&str]) -> String {
    let body = format!("{VERSION};{}", fields.join(";"));
    let tag = tag(key, &body);
    format!("{body};{tag}")
}

/// The fields between version and tag, once both are right.
fn opened<'a, const N: usize>(key: &'static str, text: &'a str) -> Result<[&'a str; N], BadContext> {
    let fields: Vec<&str> = text.split(';').take(LONGEST_BYTES).collect();
    let version = fields[0];
    if version != VERSION || fields.len() != N + 2 || text.len() > LONGEST_BYTES {
        return Err(BadContext::OtherForm {
            key,
            fields: fields.len(),
            version: version.chars().take(16).collect(),
        });
    }
    let known = text
        .rsplit_once(';')
        .map(|(body, claimed)| (tag(key, body), claimed));
    if known.is_none_or(|(tag, claimed)| tag != claimed) {
        return Err(BadContext::WrongTag { key });
    }
    let mut inner = [""; N];
    inner.copy_from_slice(&fields[1..=N]);
    Ok(inner)
}

/// The key stands in front, so that a context is never taken for a report.
fn tag(key: &'static str, body: &str) -> String {
    let mut hasher = Sha256::new_with_prefix(key);
    hasher.update(b"\n");
    hasher.update(body);
    let mut text = String::with_capacity(16);
    for byte in &hasher.finalize()[..8] {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            cluster: "shop".parse().unwrap(),
            transaction: TransactionId::new(Timestamp::from_unix_ms(1_763_712_000_000), 7),
            deadline: Timestamp::from_unix_ms(1_763_712_005_000),
            remaining: Duration::from_millis(4_870),
        }
    }

    fn report() -> BranchReport {
        BranchReport {
            cluster: "shop".parse().unwrap(),
            transaction: context().transaction,
            participant: "seats".parse().unwrap(),
            generation: Generation(3),
            state: BranchState::Joined,
        }
    }

    #[test]
    fn both_survive_the_wire() {
        assert_eq!(
            Context::from_wire(&context().to_wire(), &context().cluster),
            Ok(context())
        );
        for state in BranchState::ALL {
            let report = BranchReport { state, ..report() };
            assert_eq!(BranchReport::from_wire(&report.to_wire()), Ok(report));
        }
    }

    #[test]
    fn every_changed_byte_is_found() {
        let ours = context().cluster;
        for (wire, refused) in [
            (
                context().to_wire(),
                (|text| Context::from_wire(text, &"shop".parse().unwrap()).is_err()) as fn(&str) -> bool,
            ),
            (report().to_wire(), |text| BranchReport::from_wire(text).is_err()),
        ] {
            for place in 0..wire.len() {
                for other in [b'0', b'1', b';', b'x'] {
                    let mut bytes = wire.clone().into_bytes();
                    if bytes[place] != other {
                        bytes[place] = other;
                        let text = String::from_utf8(bytes).unwrap();
                        assert!(refused(&text), "{text} was taken for {wire}");
                    }
                }
                assert!(refused(&wire[..place]), "the first {place} bytes of {wire}");
            }
        }
        assert!(Context::from_wire(&report().to_wire(), &ours).is_err());
    }

    #[test]
    fn a_context_of_another_cluster_or_without_time_is_refused() {
        let text = context().to_wire();
        let elsewhere: ClusterId = "elsewhere".parse().unwrap();
        let error = Context::from_wire(&text, &elsewhere).unwrap_err();
        assert_eq!(crate::reason_of(&error.into()), Some(ErrorReason::WrongCluster));
        let late = Context {
            remaining: Duration::ZERO,
            ..context()
        };
        let error = Context::from_wire(&late.to_wire(), &late.cluster).unwrap_err();
        assert!(matches!(error, BadContext::Expired { .. }));
        assert_eq!(crate::reason_of(&error.into()), Some(ErrorReason::BadContext));
    }

    #[test]
    fn strange_values_are_refused() {
        let ours = context().cluster;
        let long = format!("1;{}", "x;".repeat(100_000));
        for text in ["", ";", "1", "2;shop;x;1;1;0123456789abcdef", &long] {
            assert!(
                matches!(Context::from_wire(text, &ours), Err(BadContext::OtherForm { .. })),
                "{}",
                &text[..text.len().min(80)]
            );
        }
        // The tag fits, the fields do not.
        for fields in [
            ["Shop", "x", "1", "1"],
            ["shop", "x", "1", "1"],
            ["shop", &context().transaction.to_string(), "-1", "1"],
        ] {
            let text = sealed(CONTEXT_KEY, &fields);
            assert!(matches!(
                Context::from_wire(&text, &ours),
                Err(BadContext::Malformed { .. })
            ));
        }
    }
}
