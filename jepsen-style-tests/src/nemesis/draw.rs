use rand::seq::SliceRandom as _;

use super::Fault;
use crate::random::Seed;

/// How long a fault takes on average, with the pause before it.
const TURN_SECONDS: u64 = 6;

/// The faults of a run that leaves the choice to its seed: as many of these as fit into the time, in an order of their own.
///
/// Runs that follow each other, with every one of `workloads` at one seed and then at the next, go through all faults
/// again and again, so that few of them leave none out. `workload` is the place of this run's one.
pub fn draw(
    mut faults: Vec<Box<dyn Fault>>,
    seed: Seed,
    (workload, workloads): (usize, usize),
    seconds: u64,
) -> Vec<Box<dyn Fault>> {
    let all = faults.len();
    let count = usize::try_from(seconds / TURN_SECONDS).unwrap_or(usize::MAX);
    let count = count.clamp(1, all.max(1));
    // So many runs go through all of them, and the next so many in another order.
    let round = all.div_ceil(count).max(1) as u64;
    let run = seed
        .0
        .wrapping_mul(workloads as u64)
        .wrapping_add(workload as u64);
    faults.shuffle(&mut Seed(run / round).stream("turns"));
    let first = usize::try_from(run % round).unwrap_or_default() * count;
    faults.rotate_left(first.min(all));
    faults.truncate(count);
    faults.shuffle(&mut seed.stream("faults"));
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::nemesis;

    fn names(seed: u64, workload: usize, seconds: u64) -> Vec<&'static str> {
        let drawn = draw(nemesis::all(), Seed(seed), (workload, 5), seconds);
        drawn.iter().map(|fault| fault.name()).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_one_others() {
        assert_eq!(names(7, 0, 60), names(7, 0, 60));
        assert_ne!(names(7, 0, 60), names(8, 0, 60));
        assert_ne!(names(7, 0, 60), names(7, 1, 60));
        assert_eq!(names(u64::MAX, 4, 60).len(), 10);
        assert_eq!(names(7, 0, 1).len(), 1);
    }

    #[test]
    fn a_longer_run_has_every_fault_and_each_once() {
        let mut drawn = names(7, 2, 100_000);
        drawn.sort_unstable();
        let mut all: Vec<_> = nemesis::all().iter().map(|fault| fault.name()).collect();
        all.sort_unstable();
        assert_eq!(drawn, all);
    }

    #[test]
    fn a_few_seeds_with_every_workload_leave_no_fault_out() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for seed in 1..=5 {
            for workload in 0..5 {
                for name in names(seed, workload, 60) {
                    *counts.entry(name).or_default() += 1;
                }
            }
        }
        assert_eq!(counts.len(), nemesis::all().len(), "{counts:?}");
        assert!(counts.values().all(|count| *count >= 2), "{counts:?}");
    }
}
