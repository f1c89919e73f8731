use std::fmt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::Instant;
use unanimo_coordinator::mutants::CHOICE;
use unanimo_core::mutants::Mutant;

use crate::run::UNASKED;
use crate::{nemesis, workload};

/// For how long the faults of one run happen.
const RUN_SECONDS: u64 = 12;
/// How much longer a run may take: the cluster starts, and what is undecided resolves. Where a bug keeps processes from
/// starting again, each of them is waited for several times.
const AROUND: Duration = Duration::from_secs(600);
/// How long the tests of one program may take. They take a few seconds, but for what a planted bug keeps waiting.
const TESTS: Duration = Duration::from_secs(240);
/// How long they may take to be built.
const BUILD: Duration = Duration::from_secs(900);

/// One way to catch a planted bug.
#[derive(Clone, Debug)]
pub(super) enum Hunt {
    /// Runs of real processes, with other seeds each time.
    Run {
        workload: &'static str,
        nemesis: &'static str,
    },
    /// The tests of one program whose names contain `filter`.
    Tests {
        package: &'static str,
        /// None for those inside of the library.
        program: Option<&'static str>,
        filter: &'static str,
    },
}

/// What came of one attempt.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// It was found, and by what.
    Caught(String),
    /// Nothing was found.
    Escaped,
    /// Nothing may be concluded.
    Unclear(String),
}

impl Hunt {
    pub(super) const fn run(workload: &'static str, nemesis: &'static str) -> Self {
        Self::Run { workload, nemesis }
    }

    pub(super) const fn test(package: &'static str, program: &'static str, filter: &'static str) -> Self {
        Self::Tests {
            package,
            program: Some(program),
            filter,
        }
    }

    pub(super) const fn unit_tests(package: &'static str, filter: &'static str) -> Self {
        Self::Tests {
            package,
            program: None,
            filter,
        }
    }

    /// Whether it is one of real processes. Then a further attempt may find what this one did not.
    pub(super) fn is_real(&self) -> bool {
        matches!(self, Self::Run { .. })
    }

    /// Why it cannot be tried, if so.
    pub(super) fn unavailable(&self) -> Option<String> {
        let Self::Run { workload, nemesis } = self else {
            return None;
        };
        if !workload::all().iter().any(|known| known.name() == *workload) {
            return Some(format!("there is no workload {workload}"));
        }
        let faults = nemesis::all();
        nemesis.split(',').find_map(|name| {
            let Some(fault) = faults.iter().find(|fault| fault.name() == name) else {
                return Some(format!("there is no fault {name}"));
            };
            let reason = fault.unavailable()?;
            Some(format!("{name}: {reason}"))
        })
    }

    /// Tries once to catch the bug, or shows that nothing is caught where there is none.
    pub(super) async fn attempt(
        &self,
        mutant: Option<Mutant>,
        seed: u64,
        executable: &Path,
        folder: &Path,
    ) -> std::io::Result<Attempt> {
        std::fs::create_dir_all(folder)?;
        match self {
            Self::Run { workload, nemesis } => {
                let mut command = Command::new(executable);
                command.args(["run", "--workload", workload, "--nemesis", nemesis]);
                command.args(["--seconds", &RUN_SECONDS.to_string(), "--seed", &seed.to_string()]);
                command.arg("--folder").arg(folder);
                let within = Duration::from_secs(RUN_SECONDS) + AROUND;
                let ended = carry_out(command, mutant, folder, within).await?;
                let result = std::fs::read(folder.join("result.json"))
                    .ok()
                    .and_then(|text| serde_json::from_slice::<Value>(&text).ok());
                Ok(match (result, ended) {
                    (Some(result), _) => judge(mutant, &result),
                    (None, Some(status)) => Attempt::Unclear(format!("{status}: {}", last_line(folder))),
                    (None, None) => Attempt::Unclear(format!("a run did not end within {within:?}")),
                })
            }
            Self::Tests {
                package,
                program,
                filter,
            } => {
                let built = carry_out(cargo_test(package, *program, &["--no-run"]), None, folder, BUILD);
                if !built.await?.is_some_and(|status| status.success()) {
                    return Ok(Attempt::Unclear(format!(
                        "the tests of {package} are not built: {}",
                        last_line(folder)
                    )));
                }
                let command = cargo_test(package, *program, &["--", filter]);
                Ok(match carry_out(command, mutant, folder, TESTS).await? {
                    None => Attempt::Caught(format!("{self} never ends")),
                    Some(_) => read_tests(&std::fs::read_to_string(folder.join(OUTPUT))?),
                })
            }
        }
    }
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { workload, nemesis } => write!(f, "run {workload} with {nemesis}"),
            Self::Tests {
                package,
                program,
                filter,
            } => {
                let program = program.unwrap_or("its own tests");
                write!(f, "{package}, {program}")?;
                match *filter {
                    "" => Ok(()),
                    filter => write!(f, " ({filter})"),
                }
            }
        }
    }
}

/// What a process that is hunted in says.
const OUTPUT: &str = "output.log";

/// Runs a command with a planted bug, and says how it ended: none if it had to be ended.
async fn carry_out(
    mut command: Command,
    mutant: Option<Mutant>,
    folder: &Path,
    within: Duration,
) -> std::io::Result<Option<ExitStatus>> {
    let output = std::fs::File::create(folder.join(OUTPUT))?;
    command.env_remove(CHOICE);
    if let Some(mutant) = mutant {
        command.env(CHOICE, mutant.name());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true)
        .spawn()?;
    let deadline = Instant::now() + within;
    // Both only wait.
    let interrupted = tokio::select! {
        ended = tokio::time::timeout_at(deadline, child.wait()) => match ended {
            Ok(status) => return status.map(Some),
            Err(_) => false,
        },
        _ = tokio::signal::ctrl_c() => true,
    };
    // It takes down what it has set up.
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        kill(Pid::from_raw(id), Signal::SIGTERM)?;
    }
    if tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .is_err()
    {
        child.kill().await?;
    }
    match interrupted {
        true => Err(std::io::Error::new(
            std::io::ErrorKind::Interrupted,
            "interrupted by SIGINT",
        )),
        false => Ok(None),
    }
}

/// Has cargo carry out the tests of one program, in the workspace that this one was built in.
fn cargo_test(package: &str, program: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(["test", "--locked", "--package", package]);
    command.arg("--features").arg(format!("{package}/mutants"));
    match program {
        Some(program) => command.args(["--test", program]),
        None => command.arg("--lib"),
    };
    command.args(arguments);
    command
}

/// What a run has found.
fn judge(mutant: Option<Mutant>, result: &Value) -> Attempt {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let missing: Vec<String> = list(&result["faults_missing"]).iter().map(text).collect();
    match result["verdict"].as_str() {
        Some("valid") => Attempt::Escaped,
        Some("invalid") if let Some(kinds) = convincing(result) => Attempt::Caught(kinds),
        // Whether a fault happened is what this one is about.
        _ if mutant == Some(Mutant::M30) && !missing.is_empty() => {
            Attempt::Caught(format!("faults_missing: {}", missing.join(", ")))
        }
        _ => Attempt::Unclear(format!(
            "nothing is clear: {}",
            serde_json::json!([
                result["problems"],
                missing,
                list(&result["findings"])
                    .iter()
                    .flat_map(|findings| list(&findings["missing"]))
                    .take(3)
                    .collect::<Vec<_>>()
            ])
        )),
    }
}

/// What is said of a process that ended, whatever was done to it (`ClusterError::Ended`).
const ENDED: &str = "ended by itself";

/// Checkers that complain where a process is merely away.
const OF_ABSENCE: [&str; 3] = ["in-doubt", "availability", "non-triviality"];

/// The violations of an invalid run; none if the harness's troubles may explain them.
///
/// What the harness could not set right may look like a violation. That somebody ended by itself is no fault of the
/// harness; but while it is away, others may wait for it, unless nothing had been done to it.
fn convincing(result: &Value) -> Option<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let problems: Vec<String> = list(&result["problems"]).iter().map(text).collect();
    if !problems.iter().all(|what| what.contains(ENDED)) {
        return None;
    }
    let unasked = problems.iter().all(|what| what.contains(UNASKED));
    let mut kinds = Vec::new();
    for findings in list(&result["findings"]) {
        let checker = text(&findings["checker"]);
        if !unasked && OF_ABSENCE.contains(&checker.as_str()) {
            continue;
        }
        for violation in list(&findings["violations"]) {
            let kind = format!("{checker}: {}", text(&violation["kind"]));
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    (!kinds.is_empty()).then(|| kinds.join(", "))
}

/// What cargo says of the tests.
fn read_tests(output: &str) -> Attempt {
    let failed = |line: &str| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.to_owned())
    };
    let failed: Vec<String> = output.lines().filter_map(failed).collect();
    match failed.as_slice() {
        [] if output.contains("test result: ok.") => Attempt::Escaped,
        [] => Attempt::Unclear("the tests say neither ok nor failed".to_owned()),
        [one] => Attempt::Caught(one.clone()),
        [first, second] => Attempt::Caught(format!("{first}, {second}")),
        [first, second, others @ ..] => {
            Attempt::Caught(format!("{first}, {second} and {} more", others.len()))
        }
    }
}

fn last_line(folder: &Path) -> String {
    let output = std::fs::read_to_string(folder.join(OUTPUT)).unwrap_or_default();
    output.lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_violation_catches_a_bug_and_what_is_unknown_does_not() {
        let result = |verdict: &str, kinds: &[&str], missing: &[&str]| {
            let violations: Vec<Value> = kinds.iter().map(|kind| json!({ "kind": kind })).collect();
            json!({
                "verdict": verdict,
                "findings": [{ "checker": "agreement", "violations": violations, "missing": [] }],
                "faults_missing": missing,
                "problems": [],
            })
        };
        let judged = |mutant, result: Value| format!("{:?}", judge(Some(mutant), &result));
        let invalid = result("invalid", &["two_decisions", "two_decisions", "other"], &[]);
        assert_eq!(
            judged(Mutant::M1, invalid),
            "Caught(\"agreement: two_decisions, agreement: other\")"
        );
        let mut troubled = result("invalid", &["two_decisions"], &[]);
        troubled["problems"] = json!(["a process did not come up again"]);
        assert!(judged(Mutant::M1, troubled.clone()).starts_with("Unclear"));
        troubled["problems"] = json!([format!("at the end: c1 ended by itself: signal: 6, {UNASKED}")]);
        assert!(judged(Mutant::M1, troubled.clone()).starts_with("Caught"));
        // One that would not start again may be waited for, and explains no second decision.
        troubled["problems"] = json!(["kill-participant: p3 ended by itself: exit status: 1"]);
        assert!(judged(Mutant::M1, troubled.clone()).starts_with("Caught"));
        troubled["findings"][0]["checker"] = json!("in-doubt");
        assert!(judged(Mutant::M1, troubled).starts_with("Unclear"));
        assert_eq!(judged(Mutant::M1, result("valid", &[], &[])), "Escaped");
        let missing = result("unknown", &[], &["kill-leader"]);
        assert!(judged(Mutant::M1, missing.clone()).starts_with("Unclear"));
        assert_eq!(
            judged(Mutant::M30, missing),
            "Caught(\"faults_missing: kill-leader\")"
        );
    }

    #[test]
    fn a_test_that_failed_is_named_and_a_build_that_failed_catches_nothing() {
        let read = |output: &str| format!("{:?}", read_tests(output));
        let failed = "test a::b ... FAILED\ntest c ... ok\ntest result: FAILED. 1 passed; 1 failed";
        assert_eq!(read(failed), "Caught(\"a::b\")");
        assert_eq!(
            read("test c ... ok\ntest result: ok. 1 passed; 0 failed"),
            "Escaped"
        );
        assert!(read("error: could not compile `x`").starts_with("Unclear"));
    }
}
