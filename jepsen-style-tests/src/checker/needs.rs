//! What checkers need. What is not there is noted as missing, once.

use super::{Case, Findings};
use crate::cluster::Layout;
use crate::evidence::ParticipantEvidence;

/// How many of each there were.
pub(super) fn layout(case: &Case<'_>, findings: &mut Findings) -> Option<Layout> {
    // As many as nobody could have started: nothing real, and going through them would take for ever.
    let known = case
        .evidence
        .layout
        .filter(|layout| layout.coordinators <= 1000 && layout.participants <= 1000);
    if known.is_none() {
        findings.miss("how many processes there were");
    }
    known
}

/// Every participant that said what it has, by name. Those that did not are noted and left out.
pub(super) fn participants<'a>(
    case: &Case<'a>,
    findings: &mut Findings,
) -> Vec<(String, &'a ParticipantEvidence)> {
    those(case, findings, "cells and effects", |participant| {
        participant.answered
    })
}

/// Every participant whose journal is whole, by name. The others are noted and left out.
pub(super) fn journals<'a>(
    case: &Case<'a>,
    findings: &mut Findings,
) -> Vec<(String, &'a ParticipantEvidence)> {
    those(case, findings, "whole journal", |participant| {
        participant.journal_whole
    })
}

fn those<'a>(
    case: &Case<'a>,
    findings: &mut Findings,
    what: &str,
    has: impl Fn(&ParticipantEvidence) -> bool,
) -> Vec<(String, &'a ParticipantEvidence)> {
    let mut found = Vec::new();
    for name in layout(case, findings).map_or_else(Vec::new, Layout::names) {
        match case
            .evidence
            .participants
            .get(&name)
            .filter(|participant| has(participant))
        {
            Some(participant) => found.push((name, participant)),
            None => findings.miss(format!("the {what} of {name}")),
        }
    }
    found
}

/// Notes the nodes that could not be asked for outcomes.
pub(super) fn nodes(case: &Case<'_>, findings: &mut Findings) -> Vec<u64> {
    let nodes = layout(case, findings).into_iter().flat_map(Layout::nodes);
    let mut found = Vec::new();
    for node in nodes {
        match case.evidence.outcomes.contains_key(&node) {
            true => found.push(node),
            false => findings.miss(format!("the outcomes that node c{node} knows")),
        }
    }
    found
}

/// Notes it if a checker that applies has looked at nothing.
pub(super) fn something(findings: &mut Findings, what: &str) {
    if findings.counted.get(what).copied().unwrap_or_default() == 0 {
        findings.miss(format!("there were no {what} to look at"));
    }
}
