//! Planted bugs: see `mutants` of `unanimo-core`. Compiled under the feature `mutants` only.

use unanimo_core::mutants::{MARKER, Mutant, plant};

/// The environment variable that says which bug this process is to have, such as `M4`.
pub const CHOICE: &str = "UNANIMO_MUTANT";

/// Gives this process the bug that its environment asks for, if it asks for one. To be called when it starts.
///
/// # Errors
///
/// There is no such bug.
pub fn plant_what_is_asked_for() -> Result<Option<Mutant>, String> {
    let Some(name) = std::env::var_os(CHOICE) else {
        return Ok(None);
    };
    let mutant = name.to_str().and_then(Mutant::named);
    let mutant = mutant.ok_or_else(|| format!("{CHOICE}={}: there is no such mutant", name.display()))?;
    plant(mutant);
    tracing::warn!("{MARKER}, and this process has {mutant:?}: {}", mutant.breaks());
    Ok(Some(mutant))
}
