use tonic::{Request, Response, Status};
use unanimo_proto::reason_of;
use unanimo_proto::v1::{self, participant_server};

use crate::metrics::{Call, Metrics};
use crate::service::Answering;

/// The gRPC service of a participant.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) answering: Answering,
    pub(crate) metrics: Metrics,
}

impl Endpoint {
    /// Counts a refusal. An error without a reason refuses nothing: the branch goes on, and its caller asks again.
    fn counted<A>(&self, call: Call, result: Result<A, Status>) -> Result<A, Status> {
        if let Some(reason) = result.as_ref().err().and_then(reason_of) {
            self.metrics.refused(call, reason);
        }
        result
    }
}

#[tonic::async_trait]
impl participant_server::Participant for Endpoint {
    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareReply>, Status> {
        self.counted(Call::Prepare, self.answering.prepare(request).await)
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitReply>, Status> {
        self.counted(Call::Commit, self.answering.commit(request).await)
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Result<Response<v1::AbortReply>, Status> {
        self.counted(Call::Abort, self.answering.abort(request).await)
    }
}
