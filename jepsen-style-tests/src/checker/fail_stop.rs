use super::quiet::fails_calls;
use super::{Case, Checker, Findings};

/// V7, V8: who cannot write or sync does not go on, because nobody knows what is on its disk (R10). What it had said
/// before is there when it comes back, which every other checker of the run judges.
pub(super) struct FailStop;

impl Checker for FailStop {
    fn name(&self) -> &'static str {
        "fail-stop"
    }

    fn checks(&self) -> &'static str {
        "V7, V8: a process whose disk returned one error ended by itself, even if all later calls worked"
    }

    fn applies(&self, case: &Case<'_>) -> bool {
        case.faults.iter().any(fails_calls)
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        for fault in case.faults.iter().filter(|fault| fails_calls(fault)) {
            findings.count("errors", 1);
            let said = fault.evidence.as_deref().unwrap_or_default();
            if said.contains("accepted") {
                findings.violate("error_accepted", format!("{}: {said}", fault.what), None);
            } else if said.contains("ended by itself") {
                findings.count("ended", 1);
            } else {
                findings.miss(format!("what came of {}: {}", fault.fault, fault.what));
            }
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
    fn a_process_that_ended_is_right() {
        let mut made = Made::with_transfers();
        assert!(!FailStop.applies(&made.case()));
        made.fault(
            "fsync-error",
            0,
            1,
            Some("1 calls; process 7 ended by itself, as it must"),
        );
        assert!(FailStop.applies(&made.case()));
        assert_eq!(made.assert(&FailStop, &[]).counted["ended"], 1);
    }

    #[test]
    fn a_process_that_went_on_is_found() {
        let mut made = Made::with_transfers();
        made.fault(
            "fsync-error",
            0,
            1,
            Some("1 calls; accepted: process 7 of c1 went on"),
        );
        made.assert(&FailStop, &["error_accepted"]);
    }

    #[test]
    fn an_error_of_which_nobody_knows_what_came_is_no_pass() {
        for said in [None, Some("it failed")] {
            let mut made = Made::with_transfers();
            made.fault("fsync-error", 0, 1, said);
            assert_eq!(made.check(&FailStop).verdict, Verdict::Unknown);
        }
    }
}
