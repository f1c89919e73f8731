//! What there is to choose from, and what this machine allows.

use std::fmt::Write as _;

use crate::cluster::disks_unavailable;
use crate::{nemesis, network, workload};

/// Workloads, faults and places for people: one in each line, with the reason if this machine cannot do it. Each is
/// found out by trying it.
pub fn list() -> String {
    let mut text = String::from("workloads\n");
    for workload in workload::all() {
        line(&mut text, workload.name(), None);
    }
    text.push_str("\nfaults\n");
    for fault in nemesis::all() {
        line(&mut text, fault.name(), fault.unavailable());
    }
    text.push_str("\nthis machine\n");
    line(&mut text, "a network of its own", network::unavailable());
    line(&mut text, "a disk for each process", disks_unavailable());
    text
}

fn line(text: &mut String, name: &str, unavailable: Option<String>) {
    let written = match unavailable {
        None => writeln!(text, "  {name}"),
        Some(reason) => writeln!(text, "  {name:<24} not available: {reason}"),
    };
    debug_assert!(written.is_ok(), "a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_everything_and_why_not() {
        let list = list();
        for fault in nemesis::all() {
            let line = list
                .lines()
                .find(|line| line.split_whitespace().next() == Some(fault.name()))
                .unwrap();
            assert_eq!(
                line.contains("not available"),
                fault.unavailable().is_some(),
                "{line}"
            );
        }
        for workload in workload::all() {
            assert!(list.contains(workload.name()));
        }
    }
}
