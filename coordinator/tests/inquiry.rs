//! Inquiries (R5): many in one call, each answered for itself, whatever the others are.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use cluster::{TestCluster, TestParticipant, eventually, new_transaction, request_hash};
use unanimo_core::{Timestamp, TransactionId};
use unanimo_proto::v1::inquiry_answer::Answer;
use unanimo_proto::{ErrorReason, v1};

const DAY_MS: u64 = 86_400_000;

async fn inquire(cluster: &TestCluster, place: usize, inquiries: &[v1::Inquiry]) -> Vec<(String, Answer)> {
    let request = v1::InquireRequest {
        cluster: "test".to_owned(),
        participant: "a".to_owned(),
        inquiries: inquiries.to_vec(),
    };
    let mut client = cluster.coordinator(place).await;
    let reply = client.inquire(request).await.unwrap().into_inner();
    let answers = reply.answers.into_iter();
    answers
        .map(|told| (told.transaction, told.answer.unwrap()))
        .collect()
}

/// An inquiry of a about what it prepared together with b.
fn inquiry(transaction: TransactionId, branches: &[(&TestParticipant, &str)]) -> v1::Inquiry {
    v1::Inquiry {
        transaction: transaction.to_string(),
        request_hash: request_hash(branches).as_bytes().to_vec().into(),
        members: vec!["a".to_owned(), "b".to_owned()],
    }
}

async fn is_undecided(cluster: &TestCluster, transaction: &str) -> bool {
    let request = v1::GetOutcomeRequest {
        cluster: "test".to_owned(),
        transaction: transaction.to_owned(),
    };
    let known = eventually("a leader's answer", async || {
        let mut client = cluster.coordinator(cluster.leader().await).await;
        Some(client.get_outcome(request.clone()).await.ok()?.into_inner().known)
    })
    .await;
    matches!(known, Some(v1::get_outcome_reply::Known::Undecided(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_inquiry_is_named_and_keeps_no_other_branch_in_doubt() {
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    let branches = [(&a, "x"), (&b, "y")];
    let good = || inquiry(new_transaction(), &branches);
    let with_members = |members: Vec<String>| v1::Inquiry { members, ..good() };
    for place in 0..3 {
        let bad = [
            (
                with_members(vec!["a".to_owned(), "ghost".to_owned()]),
                ErrorReason::UnknownParticipant,
                "ghost",
            ),
            (
                with_members(vec!["b".to_owned()]),
                ErrorReason::Malformed,
                "not among the members",
            ),
            (
                with_members((0..65).map(|n| format!("p{n}")).chain(["a".to_owned()]).collect()),
                ErrorReason::Malformed,
                "66 participants",
            ),
            (with_members(Vec::new()), ErrorReason::Malformed, "members"),
            (
                v1::Inquiry {
                    request_hash: vec![7; 31].into(),
                    ..good()
                },
                ErrorReason::Malformed,
                "31 bytes",
            ),
            (
                v1::Inquiry {
                    transaction: "t1".to_owned(),
                    ..good()
                },
                ErrorReason::Malformed,
                "\"t1\" is not a UUID",
            ),
        ];
        // One in front, one in between, one behind.
        let mut inquiries: Vec<v1::Inquiry> = bad.iter().map(|(inquiry, ..)| inquiry.clone()).collect();
        let in_doubt = [good(), good(), good()];
        for (at, inquiry) in [0, 4, inquiries.len() + 2].into_iter().zip(&in_doubt) {
            inquiries.insert(at, inquiry.clone());
        }
        let asked: Vec<String> = inquiries.iter().map(|asked| asked.transaction.clone()).collect();
        let told = eventually("a decision for all that are in doubt", async || {
            let told = inquire(&cluster, place, &inquiries).await;
            let decided = told
                .iter()
                .filter(|(_, answer)| matches!(answer, Answer::Committed(_)));
            (decided.count() == in_doubt.len()).then_some(told)
        })
        .await;
        assert!(
            told.iter().map(|(transaction, _)| transaction).eq(&asked),
            "{told:?}"
        );
        for (inquiry, reason, says) in &bad {
            let (_, answer) = told.iter().find(|(tx, _)| *tx == inquiry.transaction).unwrap();
            let Answer::Refused(refused) = answer else {
                panic!("{says}: {answer:?}")
            };
            assert_eq!(refused.reason, reason.as_str(), "{refused:?}");
            assert!(refused.message.contains(says), "{says}: {refused:?}");
            if inquiry.transaction == "t1" {
                continue;
            }
            assert!(
                is_undecided(&cluster, &inquiry.transaction).await,
                "nothing is recorded: {says}"
            );
            let asked = cluster::Heard::Prepare {
                transaction: inquiry.transaction.clone(),
                operation: None,
            };
            assert!(!a.heard().contains(&asked), "nobody is asked: {says}");
        }
    }
}

/// R7: what is adopted is decided, and a record so far ahead could not be forgotten when its time has come.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_far_ahead_of_its_time_is_not_taken_over() {
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| {
        b.vote_again = Some(unanimo_core::Vote::No {
            reason: "never saw it".to_owned(),
        });
    });
    let branches = [(&a, "x"), (&b, "y")];
    let ahead = Timestamp::from_unix_ms(new_transaction().timestamp().unix_ms() + DAY_MS);
    let ahead = inquiry(TransactionId::new(ahead, 1), &branches);
    for place in 0..3 {
        let refused = eventually("a refusal", async || {
            match inquire(&cluster, place, std::slice::from_ref(&ahead))
                .await
                .remove(0)
                .1
            {
                // No clock was read yet.
                Answer::Undecided(_) => None,
                answer => Some(answer),
            }
        })
        .await;
        let Answer::Refused(refused) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(refused.reason, ErrorReason::Premature.as_str(), "{refused:?}");
    }
    assert!(
        is_undecided(&cluster, &ahead.transaction).await,
        "nothing is recorded"
    );
    assert!(a.heard().is_empty(), "nobody is asked: {:?}", a.heard());
}
