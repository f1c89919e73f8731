use super::quiet::damages;
use super::{Case, Checker, Findings};

/// V24: damaged files are never used in silence. Whoever finds them refuses to start and says why, or serves what is
/// right, which every other checker of the run judges.
pub(super) struct Corruption;

impl Checker for Corruption {
    fn name(&self) -> &'static str {
        "corruption"
    }

    fn checks(&self) -> &'static str {
        "V24: whoever had its files damaged refused to start and named the file, or served what is right"
    }

    fn applies(&self, case: &Case<'_>) -> bool {
        case.faults.iter().any(damages)
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        for fault in case.faults.iter().filter(|fault| damages(fault)) {
            findings.count("damages", 1);
            let said = fault.evidence.as_deref().unwrap_or_default();
            if said.contains("accepted") {
                findings.violate("damage_accepted", format!("{}: {said}", fault.what), None);
            } else if said.contains("refused") {
                findings.count("refused", 1);
                if said.contains("does not name the file") {
                    findings.violate("damage_without_place", format!("{}: {said}", fault.what), None);
                }
            } else if said.contains("served") {
                findings.count("served", 1);
            } else {
                findings.miss(format!("what came of {}: {}", fault.fault, fault.what));
            }
        }
        if case.evidence.participants.is_empty() || case.evidence.outcomes.is_empty() {
            findings.miss("what nodes and participants have after the damage");
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::Made;

    #[test]
    fn damage_that_was_refused_or_did_not_matter_is_right() {
        let mut made = Made::with_transfers();
        assert!(!Corruption.applies(&made.case()));
        made.fault("bit-flip", 0, 1, Some("c1 refused to start: damaged record"));
        made.fault("truncate", 2, 3, Some("c1 served as before"));
        assert!(Corruption.applies(&made.case()));
        let findings = made.assert(&Corruption, &[]);
        assert_eq!(findings.counted["damages"], 2);
    }

    #[test]
    fn a_refusal_that_leaves_open_what_is_damaged_is_found() {
        let mut made = Made::with_transfers();
        let said = "c1 refused to start, but does not name the file: something is wrong";
        made.fault("bit-flip", 0, 1, Some(said));
        made.assert(&Corruption, &["damage_without_place"]);
    }

    #[test]
    fn damage_that_was_accepted_is_found() {
        let mut made = Made::with_transfers();
        made.fault(
            "bit-flip",
            0,
            1,
            Some("accepted: it answers from damaged records"),
        );
        made.assert(&Corruption, &["damage_accepted"]);
    }

    #[test]
    fn damage_of_which_nobody_knows_what_came_is_no_pass() {
        let mut made = Made::with_transfers();
        made.fault("bit-flip", 0, 1, Some("a bit was flipped"));
        assert_eq!(made.check(&Corruption).verdict, Verdict::Unknown);
    }
}
