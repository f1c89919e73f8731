use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use unanimo_proto::transport::MAX_MESSAGE_BYTES;

use super::answers::{About, Answer, Answers};
use super::{PATIENCE, channel, nodes, participants};
use crate::cluster::{Cluster, Member};
use crate::late::{Came, LateAnswers, Reaction};
use crate::nemesis::{Fault, NemesisError};

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a process may keep a connection that says nonsense, before it is closed from here.
const LISTENS: Duration = Duration::from_millis(200);
/// A field with 127 bytes, of which none come.
const TRUNCATED: &[u8] = &[0x0a, 0x7f];
/// How long a process may take to say that it is well.
const WELL: Duration = Duration::from_secs(5);

const COORDINATOR: [(&str, &str); 9] = [
    ("Submit", "/unanimo.v1.Coordinator/Submit"),
    ("CommitTransaction", "/unanimo.v1.Coordinator/Commit"),
    ("AbortTransaction", "/unanimo.v1.Coordinator/Abort"),
    ("Inquire", "/unanimo.v1.Coordinator/Inquire"),
    ("Register", "/unanimo.v1.Coordinator/Register"),
    ("RemoveNode", "/unanimo.v1.Admin/RemoveNode"),
    ("Raft.Vote", "/unanimo.internal.v1.Raft/Vote"),
    ("Raft.Append", "/unanimo.internal.v1.Raft/Append"),
    ("no method", "/unanimo.v1.Coordinator/Nothing"),
];
const PARTICIPANT: [(&str, &str); 4] = [
    ("Prepare", "/unanimo.v1.Participant/Prepare"),
    ("Commit", "/unanimo.v1.Participant/Commit"),
    ("Abort", "/unanimo.v1.Participant/Abort"),
    ("no method", "/unanimo.v1.Participant/Nothing"),
];

/// Every process gets bytes that mean nothing: noise, another protocol, messages cut short, and ones that are larger than
/// any may be. It has to live on.
#[derive(Default)]
pub(super) struct Garbage {
    answers: Answers,
    latest: Option<String>,
}

impl Fault for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(100..500))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let mut noise = vec![0; random.random_range(1..20_000)];
            random.fill_bytes(&mut noise);
            let noise = Bytes::from(noise);
            let members = nodes(cluster).into_iter().chain(participants(cluster));
            let sent = members.map(|member| attack(cluster, member, noise.clone()));
            let mut answers = Answers::default();
            for answered in futures::future::join_all(sent).await {
                answers.add(answered?);
            }
            self.latest = answers.summary();
            self.answers.absorb(answers);
            let what = "noise, HTTP/1, broken HTTP/2, messages cut short and too large ones to everybody";
            Ok(what.to_owned())
        }
        .boxed()
    }

    fn end<'a>(&'a mut self, _: &'a mut Cluster) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move { Ok(self.latest.take()) }.boxed()
    }

    fn answers(&self) -> Vec<LateAnswers> {
        self.answers.of(self.name())
    }
}

async fn attack(cluster: &Cluster, to: Member, noise: Bytes) -> Result<Vec<Answer>, NemesisError> {
    let answer = |(method, answer)| Answer {
        to,
        method,
        about: About::nothing(Came::Malformed),
        transaction: None,
        answer,
    };
    let address = cluster.addresses().of(to);
    let broken = [PREFACE, &noise].concat();
    let half_a_frame = [PREFACE, &[0, 0x40, 0, 0, 0, 0, 0, 0, 0, 1]].concat();
    let mut answers = Vec::new();
    for bytes in [
        &noise,
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        &broken,
        &half_a_frame,
    ] {
        answers.push(("bytes", raw(address, bytes).await));
    }
    let channel = channel(cluster, to)?;
    let methods: &[(&str, &str)] = match to {
        Member::Coordinator(_) => &COORDINATOR,
        Member::Participant(_) => &PARTICIPANT,
    };
    // As large as a message may be, and then some.
    let oversized = Bytes::from(vec![0; MAX_MESSAGE_BYTES + 1]);
    for (method, path) in methods {
        let path = PathAndQuery::from_static(path);
        let bodies = [Bytes::from_static(TRUNCATED), noise.clone()];
        for body in bodies {
            answers.push((*method, call(channel.clone(), path.clone(), body).await));
        }
    }
    let path = PathAndQuery::from_static(methods[0].1);
    answers.push(("too large", call(channel, path, oversized).await));
    answers.push(("afterwards", is_well(cluster, to).await));
    Ok(answers.into_iter().map(answer).collect())
}

/// Says this on a connection of its own, and nothing more.
async fn raw(address: &str, bytes: &[u8]) -> Reaction {
    let said = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(bytes).await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await
    };
    match tokio::time::timeout(LISTENS, said).await {
        Ok(_) => Reaction::Refused("closed".to_owned()),
        Err(_) => Reaction::Nothing("kept open".to_owned()),
    }
}

/// Calls a method with this as its message.
async fn call(channel: Channel, path: PathAndQuery, body: Bytes) -> Reaction {
    let call = async {
        let mut grpc = Grpc::new(channel);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(tonic::Request::new(body), path, Raw).await
    };
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(_)) => Reaction::Done,
        // Whoever reads the bytes refuses them, before anybody of ours sees a message.
        Ok(Err(status)) => match Reaction::refusal(&status) {
            Reaction::Nothing(code) => Reaction::Refused(code),
            refused => refused,
        },
        Err(_) => Reaction::Nothing("silence".to_owned()),
    }
}

/// Whether it lives on and serves.
async fn is_well(cluster: &Cluster, member: Member) -> Reaction {
    let well = async {
        let serves = async || match member {
            Member::Coordinator(node) => cluster.status(node).await.is_some(),
            Member::Participant(number) => cluster.store_status(number).await.is_some(),
        };
        while !serves().await {}
    };
    match tokio::time::timeout(WELL, well).await {
        Ok(()) => Reaction::Nothing("serves".to_owned()),
        Err(_) => Reaction::Died,
    }
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
