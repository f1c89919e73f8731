//! A bank as a server: its own service, next to the participant's, with health and reflection.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bank_transfer::bank_process::{BankConfig, run_on};
use bank_transfer::wire::bank_client::BankClient;
use bank_transfer::{BankName, wire};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response};

/// The bank of the north, serving, without any coordinator; and a connection to it.
async fn bank(folder: &std::path::Path) -> (tokio::task::JoinHandle<()>, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = BankConfig {
        name: BankName::North,
        cluster: "test".parse().unwrap(),
        listen: address.clone(),
        // Nobody serves there.
        coordinators: vec!["127.0.0.1:1".to_owned()],
        data: folder.join("bank"),
    };
    let serving = tokio::spawn(async move {
        let error = run_on(listener, config).await.unwrap_err();
        panic!("the bank does not serve any more: {error}");
    });
    // The listener accepts from the beginning; the first call waits until the bank has recovered.
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    (
        serving,
        channel
            .connect_timeout(Duration::from_secs(20))
            .connect()
            .await
            .unwrap(),
    )
}

fn account(account: &str, balance_cents: u64) -> wire::Account {
    wire::Account {
        account: account.to_owned(),
        balance_cents,
    }
}

#[tokio::test]
async fn accounts_are_loaded_and_listed_over_the_wire() {
    let folder = tempfile::tempdir().unwrap();
    let (serving, channel) = bank(folder.path()).await;
    let mut client = BankClient::new(channel);
    let accounts = vec![account("north-000002", 700), account("north-000001", 0)];
    let load = wire::LoadAccountsRequest {
        accounts: accounts.clone(),
    };
    client.load_accounts(load.clone()).await.unwrap();
    client.load_accounts(load).await.unwrap();

    let totals = client
        .get_totals(wire::GetTotalsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (totals.accounts, totals.balance_cents, totals.ledger_entries),
        (2, 700, 0)
    );
    let page = |after: &str| wire::ListAccountsRequest {
        after: after.to_owned(),
        limit: 1,
    };
    let mut listed = Vec::new();
    for after in ["", "north-000001", "north-000002"] {
        listed.push(
            client
                .list_accounts(page(after))
                .await
                .unwrap()
                .into_inner()
                .accounts,
        );
    }
    assert_eq!(
        listed,
        [vec![accounts[1].clone()], vec![accounts[0].clone()], vec![]]
    );
    let ledger = client
        .list_ledger(wire::ListLedgerRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(ledger.entries.is_empty());
    let audits = client
        .list_audits(wire::ListAuditsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(audits.entries.is_empty());
    let statistics = client
        .get_statistics(wire::GetStatisticsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(statistics, wire::GetStatisticsReply::default());
    serving.abort();
}

#[tokio::test]
async fn bad_calls_are_refused_with_what_is_wrong_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (serving, channel) = bank(folder.path()).await;
    let mut client = BankClient::new(channel);
    client
        .load_accounts(wire::LoadAccountsRequest {
            accounts: vec![account("north-000001", 5)],
        })
        .await
        .unwrap();
    let cases = [
        (
            account("north-1", 1),
            Code::InvalidArgument,
            "account \"north-1\" is not an account",
        ),
        (account("east-000001", 1), Code::InvalidArgument, "names no bank"),
        (
            account("north-000002", u64::MAX),
            Code::InvalidArgument,
            "is too large",
        ),
        (
            account("south-000001", 1),
            Code::FailedPrecondition,
            "is kept by bank-south",
        ),
        (
            account("north-000001", 6),
            Code::FailedPrecondition,
            "is open already, with 0.05 in it",
        ),
    ];
    for (bad, code, says) in cases {
        let accounts = vec![account("north-000009", 1), bad];
        let status = client
            .load_accounts(wire::LoadAccountsRequest { accounts })
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    let after = wire::ListAccountsRequest {
        after: "nonsense".to_owned(),
        limit: 0,
    };
    assert_eq!(
        client.list_accounts(after).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let after = wire::ListLedgerRequest {
        after: "nonsense".to_owned(),
        limit: 0,
    };
    assert_eq!(
        client.list_ledger(after).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let totals = client
        .get_totals(wire::GetTotalsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((totals.accounts, totals.balance_cents), (1, 5));
    serving.abort();
}

#[tokio::test]
async fn health_and_reflection_are_served_too() {
    let folder = tempfile::tempdir().unwrap();
    let (serving, channel) = bank(folder.path()).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "unanimo.v1.Participant"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let reply = health.check(request).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service:?}");
    }
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let asked = Request::new(tokio_stream::once(list));
    let mut replies = reflection
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let reply: Option<server_reflection_response::MessageResponse> =
        replies.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = reply else {
        panic!("not a list: {reply:?}")
    };
    let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["bank.v1.Bank", "unanimo.v1.Participant", "grpc.health.v1.Health"] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not in {names:?}"
        );
    }
    serving.abort();
}
