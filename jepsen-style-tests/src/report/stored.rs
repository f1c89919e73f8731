use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::plots::{self, Seen};
use super::summary::Summary;
use super::{RunResult, context, edn, lines, page, style};
use crate::checker::{self, Case};
use crate::cluster::Member;
use crate::evidence::Evidence;
use crate::history::{History, HistoryError};

/// A run as its folder has it.
pub struct Stored {
    folder: PathBuf,
    result: RunResult,
    history: History,
    evidence: Evidence,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A file cannot be read or written.
    #[error("cannot read or write {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what a run leaves.
    #[error("{} is not what a run leaves: {source}", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Stored {
    /// What a run left in its folder, with what came of it.
    pub fn new(folder: &Path, result: RunResult) -> Result<Self, ReportError> {
        Ok(Self {
            folder: folder.to_owned(),
            result,
            history: History::read(&folder.join("history.jsonl"))?,
            evidence: json(&folder.join("evidence.json"))?,
        })
    }

    /// What a run left in its folder.
    pub fn read(folder: &Path) -> Result<Self, ReportError> {
        Self::new(folder, json(&folder.join("result.json"))?)
    }

    /// Lets the checkers judge it again, as they are now. Faults that did not happen stay so.
    pub fn judge(&mut self) {
        let findings = checker::judge(&self.case());
        self.result.verdict =
            RunResult::conclude(&findings, &self.result.faults_missing, &self.result.problems);
        self.result.findings = findings;
    }

    /// Writes everything that people and other programs read: `result.json`, `history.edn`, the drawings and the page.
    pub fn write(&self) -> Result<Summary, ReportError> {
        let path = self.folder.join("report.html");
        let report = std::path::absolute(&path).unwrap_or(path);
        let summary = Summary::of(&self.result, &self.history, &report);
        let text = serde_json::to_vec_pretty(&self.result).map_err(|source| ReportError::Content {
            path: self.folder.join("result.json"),
            source,
        })?;
        self.write_file("result.json", &text)?;
        let edn = edn::history(&self.history, &self.result.faults);
        self.write_file("history.edn", edn.as_bytes())?;
        let seen = Seen::new(self.case());
        let mut drawings = plots::all(&seen);
        let bad = context::first_bad(&seen, &self.result.findings);
        drawings.extend(bad.as_ref().map(|bad| bad.drawing(&seen)));
        for drawing in &drawings {
            let file = style::standalone(&drawing.wide);
            self.write_file(&format!("{}.svg", drawing.name), file.as_bytes())?;
        }
        let logs = lines::read(
            &self.folder.join("data"),
            self.members(),
            self.evidence.began_unix_ms,
            &self.result.faults,
        );
        let page = page::Page {
            result: &self.result,
            summary: &summary,
            seen: &seen,
            drawings: &drawings,
            bad: bad.as_ref(),
            logs: &logs,
        };
        self.write_file("report.html", page.write().as_bytes())?;
        Ok(summary)
    }

    /// Every process that there ever was, those too that were replaced.
    fn members(&self) -> impl Iterator<Item = Member> {
        let layout = self.evidence.layout.unwrap_or(self.result.layout);
        let last = layout.replaced.saturating_add(layout.coordinators);
        // What nobody could have started may stand in a file.
        let nodes = (1..=last.min(1_000)).map(Member::Coordinator);
        nodes.chain((1..=layout.participants.min(1_000)).map(Member::Participant))
    }

    fn case(&self) -> Case<'_> {
        Case {
            history: &self.history,
            evidence: &self.evidence,
            faults: &self.result.faults,
        }
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ReportError> {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| ReportError::File { path, source })
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ReportError> {
    let unusable = |source| ReportError::File {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unusable)?;
    serde_json::from_reader(io::BufReader::new(file)).map_err(|source| ReportError::Content {
        path: path.to_owned(),
        source,
    })
}
