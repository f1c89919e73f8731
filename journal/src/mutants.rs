//! Planted bugs of the journal, so that it can be shown that the tests find them; see `mutants` of `unanimo-core`, which
//! the journal does not know. Without the feature `mutants` none of them is compiled.

#[cfg(feature = "mutants")]
use std::sync::OnceLock;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    M2,
    M20,
    M26,
}

/// Whether this process has the bug: its environment asks for it. That is looked at once.
#[cfg(feature = "mutants")]
pub(crate) fn is_on(mutant: Mutant) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("UNANIMO_MUTANT").ok());
    planted.as_ref() == Some(&format!("{mutant:?}"))
}

/// Whether this process has the bug.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn is_on(_: Mutant) -> bool {
    false
}
