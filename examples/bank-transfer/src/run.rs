//! A run from top to bottom.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};
use unanimo_client::{Client, ClientError};
use unanimo_core::IdError;
use unanimo_proto::transport::{BadAddress, Clock as _, SystemClock};

use crate::audit::audit;
use crate::auditor::audit_again_and_again;
use crate::cluster::{CLUSTER, Cluster, ClusterError};
use crate::evidence::{EvidenceError, collect, load_accounts, read_bank_files};
use crate::faults::{FaultError, Faults};
use crate::in_doubt::InDoubtTimes;
use crate::load::{LoadOptions, Work, submit_all};
use crate::observer::{Observer, POLL_EVERY, Rest};
use crate::progress::Progress;
use crate::report::{Findings, Report};
use crate::schedule::{Extent, Schedule};

/// How long the processes may take to find each other. It takes about two seconds.
const FORMING_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take until nothing is going on any more. Whoever was killed has long been started again then.
const REST_PATIENCE: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to transfer.
    pub work: Work,
    /// Where the transfers came from, for people.
    pub input: String,
    /// The seed, if they are generated.
    pub seed: Option<u64>,
    /// How they are submitted.
    pub load: LoadOptions,
    /// Whom to kill when.
    pub schedule: Schedule,
    /// How often the auditor asks for the sum of all accounts, if at all.
    pub audit_every: Option<Duration>,
    /// The folder for everybody's data. It exists and is empty.
    pub folder: PathBuf,
    /// This program.
    pub executable: PathBuf,
}

/// Why a run came to no audit.
#[derive(Debug, Error)]
#[error("{problem}\n{logs}")]
pub struct RunError {
    /// What went wrong.
    #[source]
    pub problem: Problem,
    /// The end of every process's log.
    pub logs: String,
}

/// What went wrong.
#[derive(Debug, Error)]
pub enum Problem {
    /// The processes do not run.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The faults could not be injected.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// Somebody does not tell what happened.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The cluster has no name.
    #[error(transparent)]
    Name(#[from] IdError),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An address is not one.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// Something that has to happen does not.
    #[error("waited {waited:?} in vain: {what}")]
    TimedOut {
        /// What did not happen.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// Starts everybody, runs the transfers while some are killed, and audits what is left. All processes are gone when
/// this returns, and also when it is dropped before.
pub async fn run(options: Options, progress: &Progress) -> Result<Report, RunError> {
    let started = Cluster::start(&options.executable, &options.folder);
    let mut cluster = started.map_err(|error| RunError {
        problem: error.into(),
        logs: String::new(),
    })?;
    let result = conduct(&mut cluster, options, progress).await;
    progress.clear();
    let report = result.map_err(|problem| RunError {
        problem,
        logs: cluster.log_tails(),
    })?;
    if !report.holds() {
        progress.say(&cluster.log_tails());
    }
    Ok(report)
}

async fn conduct(cluster: &mut Cluster, options: Options, progress: &Progress) -> Result<Report, Problem> {
    let observer = Observer::new(cluster.addresses())?;
    let client = Client::connect(CLUSTER.parse()?, cluster.addresses().coordinators())?;

    progress.doing("the processes find each other");
    until_ready(cluster, &observer).await?;
    load_accounts(&observer).await?;

    progress.doing("");
    let extent = match &options.work {
        Work::Listed(transfers) => Extent::Transfers(transfers.len()),
        Work::Generated { lasting, .. } => Extent::Time(*lasting),
    };
    let load = submit_all(client.clone(), options.work, options.load, progress);
    let audits = async {
        match options.audit_every {
            Some(every) => {
                audit_again_and_again(client.clone(), every, options.load.patience, progress).await
            }
            None => Vec::new(),
        }
    };
    let faults = Faults::new(
        cluster,
        observer.clone(),
        options.schedule,
        progress.clone(),
        extent,
    )
    .inject();
    // The load always comes to an end, and the audits with it. A fault that could not be injected ends both at once.
    let (load, audits, injected) =
        tokio::try_join!(async { Ok(load.await) }, async { Ok(audits.await) }, faults)?;

    progress.doing("what was left undone is finished");
    until_at_rest(cluster, &observer, progress).await?;
    let end = SystemClock.now();
    progress.doing("audit");
    let mut evidence = collect(&observer, &client, load.submitted.clone(), audits, &injected).await?;
    let files = read_bank_files(cluster).await?;
    evidence.promised = files
        .iter()
        .map(|(&bank, files)| (bank, files.promised.keys().copied().collect()))
        .collect();
    let transfers = match extent {
        Extent::Transfers(transfers) => transfers,
        Extent::Time(_) => load.submitted.len(),
    };
    Ok(Report::new(Findings {
        input: options.input,
        seed: options.seed,
        transfers,
        load,
        in_doubt: InDoubtTimes::new(files.values(), &injected.leader_deaths, end),
        injected,
        audit: audit(&evidence),
    }))
}

async fn until_ready(cluster: &mut Cluster, observer: &Observer) -> Result<(), Problem> {
    let started = Instant::now();
    while !observer.is_ready().await {
        cluster.check()?;
        if started.elapsed() > FORMING_PATIENCE {
            let what = "the coordinators form a cluster and both banks register".to_owned();
            return Err(Problem::TimedOut {
                what,
                waited: started.elapsed(),
            });
        }
        sleep(POLL_EVERY).await;
    }
    Ok(())
}

async fn until_at_rest(
    cluster: &mut Cluster,
    observer: &Observer,
    progress: &Progress,
) -> Result<(), Problem> {
    let started = Instant::now();
    loop {
        let what = match observer.rest().await {
            Rest::Reached => return Ok(()),
            Rest::NotYet(what) => what,
        };
        cluster.check()?;
        if started.elapsed() > REST_PATIENCE {
            let what = format!("everything comes to rest ({what})");
            return Err(Problem::TimedOut {
                what,
                waited: started.elapsed(),
            });
        }
        progress.doing(what);
        sleep(POLL_EVERY).await;
    }
}
