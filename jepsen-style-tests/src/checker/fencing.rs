use super::quiet::restores;
use super::{Case, Checker, Findings, needs};

/// V20, V25: each life of a participant has a number of its own, and one that came back with an old data folder is
/// refused instead of believed.
///
/// What a coordinator of an earlier epoch could do is seen elsewhere: a second decision by agreement, a message that
/// breaks the rules by the alarms.
pub(super) struct Fencing;

impl Checker for Fencing {
    fn name(&self) -> &'static str {
        "fencing"
    }

    fn checks(&self) -> &'static str {
        "V20, V25: the starts of each participant only rise, and every restored or emptied data folder was refused"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        for (name, found) in needs::journals(case, &mut findings) {
            findings.count("starts", found.starts.len() as u64);
            if !found.starts.is_sorted_by(|one, next| one < next) {
                let what = format!("the starts of {name} have the numbers {:?}", found.starts);
                findings.violate("life_repeated", what, None);
            }
        }
        for fault in case.faults.iter().filter(|fault| restores(fault)) {
            let said = fault.evidence.as_deref().unwrap_or_default();
            if said.contains("accepted") {
                findings.violate("stale_restore_believed", format!("{}: {said}", fault.what), None);
            } else if said.contains("refused") {
                findings.count("restores refused", 1);
            } else {
                findings.miss(format!("what came of {}: {}", fault.fault, fault.what));
            }
        }
        needs::something(&mut findings, "starts");
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::Made;

    #[test]
    fn lives_that_rise_and_restores_that_were_refused_are_right() {
        let mut made = Made::with_transfers();
        made.participant("p1").starts = vec![1, 2, 5];
        made.fault(
            "restore-participant",
            0,
            1,
            Some("p1 was refused: its data is older"),
        );
        let findings = made.assert(&Fencing, &[]);
        assert_eq!(findings.counted["restores refused"], 1);
    }

    #[test]
    fn a_life_with_a_number_that_was_used_is_found() {
        for starts in [vec![1, 2, 2], vec![1, 3, 2]] {
            let mut made = Made::with_transfers();
            made.participant("p1").starts = starts;
            made.assert(&Fencing, &["life_repeated"]);
        }
    }

    #[test]
    fn a_restore_that_was_believed_is_found() {
        let mut made = Made::with_transfers();
        made.fault("stale-restore", 0, 1, Some("accepted: it serves"));
        made.assert(&Fencing, &["stale_restore_believed"]);
    }

    #[test]
    fn an_emptied_folder_that_was_believed_is_found() {
        let mut made = Made::with_transfers();
        made.fault(
            "wiped-coordinator",
            0,
            1,
            Some("c1 was refused: its folder is empty"),
        );
        made.assert(&Fencing, &[]);
        made.fault("wiped-participant", 2, 3, Some("accepted: p1 served"));
        made.assert(&Fencing, &["stale_restore_believed"]);
    }

    #[test]
    fn a_restore_of_which_nobody_knows_what_came_is_no_pass() {
        for said in [None, Some("it was copied")] {
            let mut made = Made::with_transfers();
            made.fault("stale-restore", 0, 1, said);
            assert_eq!(made.check(&Fencing).verdict, Verdict::Unknown);
        }
    }
}
