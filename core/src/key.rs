//! The name that an initiator gives to what it wants done, where it cannot keep a transaction's id (R12).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// How long a key may be, in bytes: room for a URL or two UUIDs.
const MAX_BYTES: usize = 128;

/// Names one request of one initiator: whoever submits under the same key gets the outcome of the same transaction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// A text that cannot be a key. Definite: whatever carried it had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "an idempotency key of {bytes} bytes is not allowed: use 1 to {MAX_BYTES} printable ASCII characters"
)]
pub struct KeyError {
    bytes: usize,
}

impl IdempotencyKey {
    /// Takes the key if it is 1 to 128 bytes of printable ASCII.
    pub fn new(key: &str) -> Result<Self, KeyError> {
        let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if printable && (1..=MAX_BYTES).contains(&key.len()) {
            Ok(Self(key.into()))
        } else {
            Err(KeyError { bytes: key.len() })
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for IdempotencyKey {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<Self, KeyError> {
        Self::new(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_printable() {
        for key in ["1", "order 4711/a~", &"x".repeat(128)] {
            assert_eq!(
                IdempotencyKey::new(key).map(|key| key.to_string()),
                Ok(key.to_owned())
            );
        }
        for key in ["", "a\n", "\u{7f}", "ä", &"x".repeat(129)] {
            assert!(IdempotencyKey::new(key).is_err(), "{key}");
        }
    }
}
