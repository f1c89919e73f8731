//! A coordinator in memory that confirms every registration and has decided nothing: decisions are told by the kit.

use std::future::ready;
use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status};
use unanimo_proto::transport::{BadAddress, Connector};
use unanimo_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use unanimo_proto::{InquiryAnswer, transaction_from_wire, v1};

/// The cluster of the coordinator.
pub(crate) const CLUSTER: &str = "test";

/// Reaches it, whatever the address.
pub(crate) struct InMemory;

impl InMemory {
    pub(crate) fn shared() -> Arc<dyn Connector> {
        Arc::new(Self)
    }
}

impl Connector for InMemory {
    fn channel(&self, _: &str) -> Result<Channel, BadAddress> {
        let connect = tower::service_fn(|_: Uri| {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let incoming = tokio_stream::once(Ok::<_, io::Error>(server));
            let serving = Server::builder()
                .add_service(CoordinatorServer::new(Undecided))
                .serve_with_incoming(incoming);
            // Ends with the life that it serves.
            tokio::spawn(serving);
            ready(Ok::<_, io::Error>(TokioIo::new(client)))
        });
        Ok(Endpoint::from_static("http://coordinator").connect_with_connector_lazy(connect))
    }
}

struct Undecided;

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not asked of participants"))
}

#[tonic::async_trait]
impl Coordinator for Undecided {
    async fn inquire(
        &self,
        request: Request<v1::InquireRequest>,
    ) -> Result<Response<v1::InquireReply>, Status> {
        let mut answers = Vec::new();
        for inquiry in request.into_inner().inquiries {
            let transaction = transaction_from_wire(&inquiry.transaction)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            answers.push(InquiryAnswer::Undecided.to_wire(transaction));
        }
        Ok(Response::new(v1::InquireReply {
            cluster: CLUSTER.to_owned(),
            answers,
        }))
    }

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterReply>, Status> {
        Ok(Response::new(v1::RegisterReply {
            cluster: CLUSTER.to_owned(),
        }))
    }

    async fn submit(&self, _: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        not_asked()
    }

    async fn begin(&self, _: Request<v1::BeginRequest>) -> Result<Response<v1::BeginReply>, Status> {
        not_asked()
    }

    async fn commit(
        &self,
        _: Request<v1::CommitTransactionRequest>,
    ) -> Result<Response<v1::CommitTransactionReply>, Status> {
        not_asked()
    }

    async fn abort(
        &self,
        _: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionReply>, Status> {
        not_asked()
    }

    async fn get_outcome(
        &self,
        _: Request<v1::GetOutcomeRequest>,
    ) -> Result<Response<v1::GetOutcomeReply>, Status> {
        not_asked()
    }
}
