//! R10 for a process with a participant in it: a bank whose disk fails promises nothing more and ends; what it had
//! promised and done is there when it comes back.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

#[path = "../../../coordinator/tests/disk_faults/mod.rs"]
mod disk_faults;

use std::path::Path;
use std::time::{Duration, Instant};

use bank_transfer::cluster::{CLUSTER, Cluster, Role};
use bank_transfer::operation::branches;
use bank_transfer::wire::{self, bank_client::BankClient};
use bank_transfer::{AccountId, BankName, Cents};
use disk_faults::FailingCalls;
use unanimo_client::{Client, Decision, TransactionId};

const PATIENCE: Duration = Duration::from_secs(60);
const FAILING: Role = Role::Bank(BankName::South);
const OPENING_CENTS: u64 = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_whose_forced_writes_fail_ends_and_keeps_its_word() {
    a_bank_ends_and_keeps_its_word("fdatasync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_whose_writes_fail_ends_and_keeps_its_word() {
    a_bank_ends_and_keeps_its_word("pwrite64").await;
}

async fn a_bank_ends_and_keeps_its_word(call: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_bank-transfer"));
    let mut cluster = Cluster::start(program, folder.path()).unwrap();
    load(&cluster).await;
    let nodes = cluster.addresses().coordinators();
    let client = Client::connect(CLUSTER.parse().unwrap(), nodes).unwrap();
    let before = transfers(&client, 5).await;
    assert!(
        before.iter().all(|(_, decision)| decision.is_commit()),
        "{before:?}"
    );

    let failing = FailingCalls::of(
        cluster.process(FAILING).unwrap(),
        call,
        folder.path().join("strace"),
    );
    let (ended, during) = tokio::join!(
        eventually("the bank's end", async || cluster.check().err()),
        transfers(&client, 20),
    );
    assert_eq!(
        ended.to_string(),
        format!("{FAILING} ended by itself: exit status: 1")
    );
    let log = cluster.log_tails();
    // Whichever is written first: the participant's journal or the bank's accounts.
    for said in ["the participant stopped: its", "failed", "Input/output error"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    // A call that failed is not tried again: the system may report success for bytes that it has dropped.
    let mut failed = failing.failed_files();
    failed.retain(|file| file.contains("/journal/"));
    let calls = failed.len();
    failed.sort_unstable();
    failed.dedup();
    assert_eq!(failed.len(), calls, "a call was repeated: {failed:?}");
    // A participant that is away votes nothing, so none of these committed.
    assert!(
        during.iter().all(|(_, decision)| !decision.is_commit()),
        "{during:?}"
    );

    cluster.kill(FAILING).unwrap();
    cluster.start_again(FAILING).unwrap();
    let after = eventually("a commit", async || {
        let after = transfers(&client, 1).await;
        after[0].1.is_commit().then_some(after)
    })
    .await;
    let committed = (before.len() + after.len()) as u64;
    for (role, balance) in [
        (Role::Bank(BankName::North), OPENING_CENTS - committed),
        (FAILING, OPENING_CENTS + committed),
    ] {
        eventually("what was told is done, and nothing else", async || {
            let totals = bank(&cluster, role)
                .await
                .get_totals(wire::GetTotalsRequest {})
                .await
                .unwrap()
                .into_inner();
            (totals.balance_cents == balance && totals.ledger_entries == committed).then_some(())
        })
        .await;
    }
}

/// Transfers of a cent from the north to the south, side by side, and what was told.
async fn transfers(client: &Client, count: usize) -> Vec<(TransactionId, Decision)> {
    let transfer = || async {
        let transaction = client.new_transaction();
        let [from, to] = BankName::ALL.map(|bank| AccountId::new(bank, 1));
        let branches = branches(from, to, Cents::new(1).unwrap());
        // Refused until the banks are registered, with the same id each time.
        let told = eventually("an outcome", async || {
            client.submit(transaction, branches.clone(), PATIENCE).await.ok()
        });
        (transaction, told.await)
    };
    futures::future::join_all((0..count).map(|_| transfer())).await
}

/// One account at each bank.
async fn load(cluster: &Cluster) {
    for name in BankName::ALL {
        let accounts = vec![wire::Account {
            account: AccountId::new(name, 1).to_string(),
            balance_cents: OPENING_CENTS,
        }];
        let mut bank = bank(cluster, Role::Bank(name)).await;
        bank.load_accounts(wire::LoadAccountsRequest { accounts })
            .await
            .unwrap();
    }
}

async fn bank(cluster: &Cluster, role: Role) -> BankClient<tonic::transport::Channel> {
    let address = format!("http://{}", cluster.addresses().of(role));
    eventually("a connection", async || {
        BankClient::connect(address.clone()).await.ok()
    })
    .await
}

async fn eventually<T>(what: &str, mut happened: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = happened().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
