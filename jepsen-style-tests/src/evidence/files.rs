use std::collections::BTreeMap;
use std::path::Path;

use unanimo_table::{SledOptions, SledTable, Table as _};

use super::raft_log::{self, NodeLog};
use super::{Evidence, journal, logs};
use crate::cluster::{Cluster, Member};
use crate::history::Tx;
use crate::store::{CELLS, HEARD, said};

/// Entries read from a table at once.
const PAGE: usize = 1000;

/// Ends every process and reads what they leave behind: the journals, what the stores heard, and the logs.
///
/// To be called last: nothing runs afterwards. What cannot be read is noted as missing.
pub fn add_files(evidence: &mut Evidence, cluster: &mut Cluster) {
    for member in cluster.layout().members() {
        if let Err(error) = cluster.kill(member) {
            // Files that somebody still writes are no evidence.
            evidence.missing.push(error.to_string());
            return;
        }
    }
    let mut raft_logs = BTreeMap::new();
    let former = cluster.former().to_vec();
    for member in cluster.layout().members().chain(former.iter().copied()) {
        if let Err(error) = logs::read(evidence, member, &cluster.log(member)) {
            evidence
                .missing
                .push(format!("{member}: cannot read its log: {error}"));
        }
        let data = cluster.data(member);
        if let Member::Coordinator(node) = member {
            match NodeLog::read(&data.join("log")) {
                Ok(log) => drop(raft_logs.insert(node, log)),
                // Nodes that were replaced may have left because of their files.
                Err(_) if former.contains(&member) => {}
                Err(error) => evidence.missing.push(format!("{member}: {error}")),
            }
            continue;
        }
        let found = evidence.participants.entry(member.to_string()).or_default();
        if let Err(error) = journal::read(&data.join("participant").join("journal"), found) {
            found.journal_whole = false;
            evidence.missing.push(format!("{member}: {error}"));
            continue;
        }
        match said::read(&cluster.said(member)) {
            Ok(words) => {
                found.said_yes = Some(words.yes);
                found.said_committed = Some(words.committed);
            }
            Err(error) => evidence
                .missing
                .push(format!("{member}: cannot read what it has said: {error}")),
        }
        match heard(&data.join(CELLS)) {
            Ok(heard) => found.heard = heard,
            Err(error) => evidence
                .missing
                .push(format!("{member}: cannot read its cells: {error}")),
        }
    }
    evidence.raft_logs = raft_log::together(raft_logs);
}

/// When a store was told how each of its promises ended.
fn heard(cells: &Path) -> Result<BTreeMap<Tx, u64>, String> {
    if !cells.is_dir() {
        // Opening it would make one.
        return Err("there are none".to_owned());
    }
    let opened = SledTable::open(cells, SledOptions::new("cells")).map_err(|error| error.to_string())?;
    if opened.set_aside.is_some() {
        return Err("they were damaged".to_owned());
    }
    let mut heard = BTreeMap::new();
    let mut from = vec![HEARD];
    loop {
        let page = opened
            .table
            .scan(&from, Some(&[HEARD + 1]), PAGE)
            .map_err(|error| error.to_string())?;
        let Some((last, _)) = page.last() else {
            return Ok(heard);
        };
        from = [last.as_slice(), &[0]].concat();
        for (key, value) in page {
            let (transaction, at) = entry(&key, &value).ok_or("an entry that nobody has written")?;
            heard.insert(transaction, at);
        }
    }
}

fn entry(key: &[u8], value: &[u8]) -> Option<(Tx, u64)> {
    let bits: [u8; 16] = key.get(1..)?.try_into().ok()?;
    let transaction = unanimo_core::TransactionId::from_u128(u128::from_be_bytes(bits)).ok()?;
    Some((Tx(transaction), u64::from_be_bytes(value.try_into().ok()?)))
}
